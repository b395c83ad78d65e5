"""Copies of objects on this host, where a store has no local files of its own."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from .store import ObjectStore


class LocalCopies:
    """Local paths of keys.  What a store does not keep on this host is fetched into `folder`, once."""

    def __init__(self, objects: ObjectStore, folder: Path) -> None:
        self._objects = objects
        self._folder = folder

    def file(self, key: str) -> Path:
        """A local file with the bytes of `key`."""
        return self._objects.local_path(key) or self._fetch(key)

    def folder(self, prefix: str, paths: Sequence[str]) -> Path:
        """A local folder with the files `prefix` + each of `paths`."""
        if (found := self._objects.local_folder(prefix)) is not None:
            return found
        for path in paths:
            self._fetch(prefix + path)
        return self._folder / prefix

    def _fetch(self, key: str) -> Path:
        target = self._folder / key
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f"{secrets.token_hex(8)}.part"
        try:
            with unfinished.open("wb") as file:
                file.writelines(self._objects.read(key))
            return unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
