"""What a job reads: where its dataset and its model come from, and their bytes on this host.

A URI is "objects/{id}", an upload of the owner's, or "s3://...", where the server has an S3 service.  What lies in
S3 is recorded when the job is created and demanded ever after: a job never reads other data than it was made for.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from npn_service.errors import InvalidRequest, NotFound
from npn_service.storage.cache import Cache, DamagedError, Held, Wanted
from npn_service.storage.sources import S3Sources, Source
from npn_service.storage.store import ObjectStore
from npn_service.storage.uris import SCHEME, S3Uri, covers

from .model import FileSpec, JobSpec, object_id_of, object_prefix
from .store import JobStore

DATASET, MODEL = "job.dataset.uri", "job.model.uri"

_CHANGED = {DATASET: "DATASET_CHANGED", MODEL: "MODEL_CHANGED"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a job reads, on this host: `dataset` is a file or a folder, `model` a file, or None for a network
    of the catalogue.  `hashes` are the SHA-256 of what came from S3, by URI.
    """

    dataset: Path
    model: Path | None
    hashes: Mapping[str, str] = field(default_factory=dict)


class JobInputs:
    """Finds, checks and fetches.  Thread-safe.  `sources` is None where the server has no S3 service."""

    def __init__(
        self, store: JobStore, objects: ObjectStore, cache: Cache, sources: S3Sources | None = None
    ) -> None:
        self._store, self._objects, self._cache, self._sources = store, objects, cache, sources

    def find(
        self, *, owner: str, spec: JobSpec, read_prefixes: Sequence[str]
    ) -> Mapping[str, Sequence[Source]]:
        """What the job is to read of S3, as it is now, by the field that says so; uploads are looked for too.

        Raises InvalidRequest naming the field, in the same words for what does not exist and for what is not
        below any of `read_prefixes`; Unavailable.
        """
        found = {}
        for name, uri in spec.uris.items():
            if uri.startswith(SCHEME):
                found[name] = self._find(name, uri, read_prefixes)
            else:
                self._upload(owner, name, uri)
        return found

    @contextmanager
    def hold(
        self,
        *,
        owner: str,
        spec: JobSpec,
        sources: Mapping[str, Sequence[Source]],
        stop: threading.Event,
    ) -> Iterator[Inputs]:
        """The bytes on this host until the block ends: of S3 those that `sources` tell, or none.

        Raises InvalidRequest (DATASET_CHANGED, MODEL_CHANGED) where an object is another by now or gone, as
        `find` does for uploads that are gone, and what `Cache.hold` raises.
        """
        paths: dict[str, Path] = {}
        hashes: dict[str, str] = {}
        with ExitStack() as stack:
            for name, uri in spec.uris.items():
                if not uri.startswith(SCHEME):
                    paths[name] = self._hold_upload(stack, owner, name, uri, stop)
                    continue
                held = self._hold_sources(stack, owner, name, uri, sources[name], stop)
                paths[name] = _path_of(held)
                hashes |= {source.uri: held.sha256[_path_below(uri, source)] for source in sources[name]}
            yield Inputs(dataset=paths[DATASET], model=paths.get(MODEL), hashes=hashes)

    def _find(self, name: str, uri: str, read_prefixes: Sequence[str]) -> Sequence[Source]:
        if self._sources is None:
            raise InvalidRequest(
                name, "this server has no S3; upload the file and write objects/{id}", reason="UNSUPPORTED"
            )
        try:
            S3Uri.parse(uri)
        except ValueError as error:
            raise InvalidRequest(name, str(error)) from error
        try:
            if not any(covers(prefix, uri) for prefix in read_prefixes):
                raise NotFound(f"{uri} is not below the caller's prefixes")
            return self._sources.find(uri, folder=name == DATASET)
        except NotFound as error:  # in the same words, so that nobody learns what is there
            raise InvalidRequest(name, f"{uri} does not exist, or is not yours to read") from error
        except InvalidRequest as error:
            raise InvalidRequest(name, error.message, reason=error.reason) from error

    def _upload(self, owner: str, name: str, uri: str) -> tuple[str, Sequence[FileSpec]]:
        """Key prefix and files of the upload that a URI names."""
        object_id = object_id_of(uri)
        if object_id is None:
            raise InvalidRequest(
                name, f"{uri!r:.200} is no URI of data; write objects/{{id}} or s3://BUCKET/KEY"
            )
        try:
            files = self._store.get_object(owner=owner, object_id=object_id)
        except NotFound as error:
            raise InvalidRequest(name, f"{uri} does not exist; upload the file again") from error
        if name == MODEL and len(files) != 1:
            raise InvalidRequest(name, f"{uri} has {len(files)} files; a model is one .pt2 file")
        return object_prefix(owner, object_id), files

    def _hold_upload(self, stack: ExitStack, owner: str, name: str, uri: str, stop: threading.Event) -> Path:
        prefix, files = self._upload(owner, name, uri)
        alone = len(files) == 1 and "/" not in files[0].path
        where = self._objects.local_path if alone else self._objects.local_folder
        try:
            local = where(prefix + files[0].path if alone else prefix)
        except NotFound as error:
            raise _damaged(name, uri) from error
        if local is not None:
            return local
        wanted = [
            Wanted(
                path=file.path,
                size=file.size,
                identity=file.sha256,
                sha256=file.sha256,
                read=partial(self._read_upload, prefix + file.path),
            )
            for file in files
        ]
        try:
            return _path_of(stack.enter_context(self._cache.hold(owner, wanted, stop)))
        except (DamagedError, NotFound) as error:
            raise _damaged(name, uri) from error

    def _read_upload(self, key: str, offset: int) -> Iterator[bytes]:
        return self._objects.read(key, offset=offset)

    def _hold_sources(
        self,
        stack: ExitStack,
        owner: str,
        name: str,
        uri: str,
        sources: Sequence[Source],
        stop: threading.Event,
    ) -> Held:
        if self._sources is None:
            raise InvalidRequest(name, "this server has no S3 any more", reason="UNSUPPORTED")
        for source in sources:  # also where the cache has the bytes: a job's end does not depend on that
            if self._sources.changed(source):
                raise _changed(name, source.uri)
        wanted = [
            Wanted(
                path=_path_below(uri, source),
                size=source.size,
                identity=f"{source.uri} {source.etag} {source.version_id}",
                sha256=source.sha256,
                read=partial(self._sources.read, source),
            )
            for source in sources
        ]
        try:
            return stack.enter_context(self._cache.hold(owner, wanted, stop))
        except (DamagedError, NotFound) as error:
            raise _changed(name, uri) from error


def _path_below(uri: str, source: Source) -> str:
    """Where a source lies in its entry: below the folder that the URI names, or by its own name."""
    if source.uri == uri:
        return uri.rpartition("/")[2]
    return source.uri.removeprefix(uri.rstrip("/") + "/")


def _path_of(held: Held) -> Path:
    """The file, or the folder where there are several, or one further down."""
    only = next(iter(held.sha256))
    return held.folder / only if len(held.sha256) == 1 and "/" not in only else held.folder


def _changed(name: str, uri: str) -> InvalidRequest:
    return InvalidRequest(
        name,
        f"{uri} has changed since the job was created, or is gone; create the job anew",
        reason=_CHANGED[name],
    )


def _damaged(name: str, uri: str) -> InvalidRequest:
    return InvalidRequest(
        name,
        f"what is stored of {uri} is not what was uploaded; upload the file again",
        reason="OBJECT_DAMAGED",
    )
