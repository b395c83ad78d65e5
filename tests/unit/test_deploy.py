"""The manifests: every variable is one that the server knows, and every container is confined."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from npn_service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted([*ROOT.glob("deploy/**/*.yaml"), ROOT / "Dockerfile"])
KNOWN = {f"NPN_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_variable_is_a_setting(path: Path) -> None:
    """A misspelt or removed setting would be ignored by the server without a word."""
    assert set(re.findall(r"\bNPN_[A-Z0-9_]+", path.read_text())) <= KNOWN


def containers(node: Any) -> Iterator[dict[str, Any]]:
    """Every container of a pod in a manifest."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers"):
                yield from value
            yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


@pytest.mark.parametrize("path", sorted(ROOT.glob("deploy/*/*.yaml")), ids=lambda path: path.stem)
def test_containers_are_confined(path: Path) -> None:
    """No container gains rights or writes to its image, and each says what memory it may take."""
    for container in containers(list(yaml.safe_load_all(path.read_text()))):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_secrets_are_references() -> None:
    """A literal password in the manifests of a cluster would be everybody's."""
    for path in ROOT.glob("deploy/*/*.yaml"):
        for container in containers(list(yaml.safe_load_all(path.read_text()))):
            for variable in container.get("env", []):
                if re.search("SECRET|KEY$|DATABASE_URL", variable["name"]):
                    assert "valueFrom" in variable, variable["name"]
