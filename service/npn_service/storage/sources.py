"""What a job reads from outside of this service: objects of other buckets, as they were when it was created."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import urllib3
from minio.error import MinioException, S3Error

from npn_service.errors import InvalidRequest, NotFound, Unavailable

from .s3_client import PATIENT, QUICK, Patience, S3Client, S3Settings, translated
from .uris import SCHEME, S3Uri, covers

R = TypeVar("R")

MAX_FILES = 1000
MAX_LISTED = 10_000
_CHUNK_BYTES = 1 << 20

# Prefixes of the service's own bucket: the uploads and artifacts of every owner.
_OWN = ("objects", "uploads", "jobs")
# The server's credentials may not read it, or there is no such bucket: to the caller it does not exist.
_NOT_OURS = frozenset(
    {"AccessDenied", "AllAccessDisabled", "NoSuchBucket", "PermanentRedirect", "InvalidBucketName"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One object at one moment: "s3://BUCKET/KEY", size in bytes, ETag, and the version where its bucket keeps them.

    `sha256` is that of the bytes once somebody has read them; empty before.
    """

    uri: str
    size: int
    etag: str
    version_id: str = ""
    sha256: str = ""


class S3Sources:
    """Objects of any bucket that the server's credentials may read.  Thread-safe.

    What somebody waits for is asked with `quick`, what carries bytes with `patient`.
    """

    def __init__(self, settings: S3Settings, *, quick: Patience = QUICK, patient: Patience = PATIENT) -> None:
        self._quick, self._patient = S3Client(settings, quick), S3Client(settings, patient)
        self._own = tuple(f"{SCHEME}{settings.bucket}/{folder}" for folder in _OWN)

    def find(self, uri: str, *, folder: bool) -> Sequence[Source]:
        """What a URI names: one object, or with `folder` the Parquet files below it, or the one file there.

        Raises NotFound where there is nothing to read, InvalidRequest on "uri" where it is too much, Unavailable.
        """
        named = S3Uri.parse(uri)
        if any(covers(own, uri) for own in self._own):
            raise NotFound(f"{uri} does not exist")
        if not named.key.endswith("/"):
            try:
                return (self._stat(self._quick, named),)
            except NotFound:
                if not folder:
                    raise
        below = S3Uri(bucket=named.bucket, key=f"{named.key.rstrip('/')}/")
        return _chosen(uri, self._list(below))

    def changed(self, source: Source) -> bool:
        """Whether the object is another by now, or gone.  Raises Unavailable."""
        try:
            now = self._stat(self._patient, S3Uri.parse(source.uri))
        except NotFound:
            return True
        return (now.size, now.etag) != (source.size, source.etag)

    def read(self, source: Source, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` of the very object that was found; raises NotFound where it is another by now."""
        named = S3Uri.parse(source.uri)
        get_object = self._patient.minio.get_object
        response = self._call(
            self._patient,
            lambda: get_object(
                named.bucket,
                named.key,
                offset=offset,
                request_headers={"If-Match": f'"{source.etag}"'},
                version_id=source.version_id or None,
            ),
        )
        try:
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise translated(error) from error
        finally:
            response.close()
            response.release_conn()

    def _stat(self, client: S3Client, named: S3Uri) -> Source:
        found = self._call(client, lambda: client.minio.stat_object(named.bucket, named.key))
        return Source(
            uri=str(named), size=found.size or 0, etag=found.etag or "", version_id=found.version_id or ""
        )

    def _list(self, folder: S3Uri) -> Sequence[Source]:
        """Every object below the folder, sorted, without hidden ones and markers of empty folders."""

        def list_all() -> list[Source]:
            found = self._quick.minio.list_objects(folder.bucket, folder.key, recursive=True)
            return [
                Source(
                    uri=f"{SCHEME}{folder.bucket}/{item.object_name}",
                    size=item.size or 0,
                    etag=item.etag or "",
                )
                for item in itertools.islice(found, MAX_LISTED + 1)
                if item.object_name and not item.object_name.endswith("/")
            ]

        listed = self._call(self._quick, list_all)
        if len(listed) > MAX_LISTED:
            raise _too_many(folder, f"more than {MAX_LISTED:,} objects below it")
        shown = [source for source in listed if not source.uri.rpartition("/")[2].startswith(".")]
        for source in shown:
            try:
                S3Uri.parse(source.uri)
            except ValueError as error:
                raise InvalidRequest("uri", str(error)) from error
        return sorted(shown, key=lambda source: source.uri)

    def _call(self, client: S3Client, function: Callable[[], R]) -> R:
        try:
            return client.call(function)
        except Unavailable as error:
            if isinstance(error.__cause__, S3Error) and error.__cause__.code in _NOT_OURS:
                raise NotFound("the object does not exist") from error
            raise


def _chosen(uri: str, found: Sequence[Source]) -> Sequence[Source]:
    """The files of a dataset: what lies beside Parquet files is not read."""
    if not found:
        raise NotFound(f"{uri} does not exist")
    chosen = [source for source in found if source.uri.endswith(".parquet")] or found
    if len(chosen) > MAX_FILES:
        raise _too_many(uri, f"{len(chosen):,} Parquet files; at most {MAX_FILES:,}")
    if len(chosen) > 1 and chosen is found:
        raise _too_many(
            uri, f"{len(found):,} files; it must be Parquet files, or one npz or safetensors file"
        )
    return chosen


def _too_many(uri: object, what: str) -> InvalidRequest:
    return InvalidRequest("uri", f"{uri} has {what}", reason="DATASET_TOO_LARGE")
