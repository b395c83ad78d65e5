"""Render the manifests with `kubectl kustomize` and hold them against Kubernetes' own schemas, strictly.

Skipped, and said so, where there is no kubectl.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

OVERLAYS = ("deploy/base", "deploy/embedded")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print what is wrong of every resource; exit code 1 when anything is."""
    if shutil.which("kubectl") is None:
        print("no kubectl here: the manifests were not rendered")
        return
    wrong = [problem for overlay in OVERLAYS for problem in problems(overlay)]
    sys.exit("\n".join(wrong) if wrong else 0)


def problems(overlay: str) -> list[str]:
    """What Kubernetes would refuse of an overlay."""
    rendered = subprocess.run(
        ["kubectl", "kustomize", overlay], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if rendered.returncode:
        return [f"{overlay}: {rendered.stderr.strip()}"]
    found = []
    resources = list(yaml.safe_load_all(rendered.stdout))
    for resource in resources:
        try:
            kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(map(str, error.path))
            found.append(
                f"{overlay}: {resource['kind']} {resource['metadata']['name']}: {where}: {error.message}"
            )
    print(f"{overlay}: {len(resources)} resources, {len(found)} problems")
    return found


if __name__ == "__main__":
    main()
