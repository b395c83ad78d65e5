"""opening.py: what a role needs."""

from pathlib import Path
from typing import Literal

import pytest

from npn_service.errors import StartupError
from npn_service.opening import open_objects, open_store
from npn_service.settings import Settings
from npn_service.storage.datafolder import DataPaths


@pytest.mark.parametrize("role", ["api", "worker"])
def test_a_role_needs_what_others_can_share(tmp_path: Path, role: Literal["api", "worker"]) -> None:
    """A server that is one of several is refused jobs or objects that lie in its own folder."""
    settings, paths = Settings(role=role), DataPaths(tmp_path)
    with pytest.raises(StartupError, match=f"NPN_ROLE={role} .* NPN_DATABASE_URL"):
        open_store(settings, paths)
    with pytest.raises(StartupError, match=f"NPN_ROLE={role} .* NPN_S3_ENDPOINT and NPN_S3_BUCKET"):
        open_objects(settings, paths)
