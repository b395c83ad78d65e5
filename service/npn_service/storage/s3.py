"""Objects in a bucket of S3 or MinIO."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import NoReturn

from minio.datatypes import Part
from minio.deleteobjects import DeleteObject
from minio.helpers import MIN_PART_SIZE
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import ProtocolError

from npn_service.errors import InvalidRequest, NotFound, StartupError, Unavailable, WrongState

from .s3_client import AWAY, PATIENT, REFUSED, Patience, S3Client, S3Settings, make_minio
from .s3_multipart import PART_BYTES, Multipart, part_bytes_of
from .store import Incoming, Link, StoredObject, check_key, check_prefix

URL_SECONDS = 900.0  # what takes longer asks for new URLs
_FILES_AT_A_TIME = 8


class S3ObjectStore:
    """Implements ObjectStore in a bucket that exists; any number of processes and threads.

    `patience` is how long calls wait for S3.  URLs are good for `url_seconds`; files over `part_bytes` go in
    parts, of which one is in memory at a time.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        patience: Patience = PATIENT,
        url_seconds: float = URL_SECONDS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._bucket = settings.bucket
        self._client = S3Client(settings, patience)
        self._multipart = Multipart(self._client, self._bucket)
        # Joining the parts of a large file takes S3 a while, however well it is.
        self._joining = Multipart(S3Client(settings, PATIENT), self._bucket)
        self._public = make_minio(settings, patience, public=True)
        self._url_lifetime = timedelta(seconds=url_seconds)
        self._part_bytes = part_bytes

    def check(self) -> None:
        """Raises StartupError where S3 answers and refuses this server, Unavailable where it does not answer."""
        try:
            found = self._client.call(self._client.minio.bucket_exists, self._bucket)
        except Unavailable as error:
            if error.reason == REFUSED:
                raise StartupError(
                    "S3 refuses this server: check NPN_S3_ACCESS_KEY, NPN_S3_SECRET_KEY, NPN_S3_REGION and the rights "
                    f"on the bucket {self._bucket} ({error.__cause__})"
                ) from error
            raise
        if not found:
            raise StartupError(
                f"the bucket {self._bucket} does not exist; make it, or set NPN_S3_BUCKET to another"
            )

    def require_room(self, size: int) -> None:
        """A bucket takes what comes."""

    def put_file(self, key: str, source: Path) -> StoredObject:
        """Store a local file under `key`, replacing what was there; S3 verifies a hash of every part."""
        check_key(key)
        size = source.stat().st_size
        if size > self._part_bytes:
            self._put_parts(key, source, size)
        else:
            self._put_bytes(key, source.read_bytes())
        stored = self.stat(key)
        if stored.size != size:
            raise Unavailable(f"{size} bytes were sent and {stored.size} stored; try again", reason=AWAY)
        return stored

    def read(self, key: str, *, offset: int = 0, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The bytes from `offset` in chunks; NotFound and a bad offset are raised at once.

        A connection that breaks is resumed, on the very same version of the object.
        """
        stored, etag = self._stat(key)
        if not 0 <= offset <= stored.size:
            raise InvalidRequest(
                "offset", f"offset is {offset}; it must be between 0 and the size, {stored.size}"
            )
        return self._chunks(stored, etag, offset, chunk_bytes)

    def stat(self, key: str) -> StoredObject:
        """Size of a key."""
        return self._stat(key)[0]

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key with the prefix, sorted."""
        check_prefix(prefix)

        def list_all() -> list[StoredObject]:
            found = self._client.minio.list_objects(self._bucket, prefix, recursive=True)
            return [
                StoredObject(key=item.object_name, size=item.size or 0, modified=item.last_modified)
                for item in found
                if item.object_name is not None
            ]

        return sorted(self._client.call(list_all), key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        """Remove one key and its open uploads; silent when there is none."""
        check_key(key)
        self._abort((key, upload_id) for upload_id in self._multipart.find(key))
        self._client.call(self._client.minio.remove_object, self._bucket, key)

    def delete_prefix(self, prefix: str) -> None:
        """Remove every key with the prefix; silent when there is none."""
        keys = [stored.key for stored in self.list(prefix)]
        self._abort(self._multipart.find_under(prefix))
        remove = self._client.minio.remove_objects
        left = self._client.call(lambda: list(remove(self._bucket, [DeleteObject(key) for key in keys])))
        if left:
            raise Unavailable(f"{len(left)} objects could not be removed; try again", reason=AWAY)

    def incoming(self, sizes: Mapping[str, int]) -> Mapping[str, Incoming]:
        """What has arrived of growing keys, and URLs for the parts that are missing."""
        with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
            return dict(zip(sizes, pool.map(self._incoming, sizes.keys(), sizes.values()), strict=True))

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Refused: a key grows in parts of megabytes, which go straight to S3."""
        raise WrongState(
            "the bytes go by HTTP PUT to the URLs that GetUpload gives, not by WriteObject",
            reason="USE_PART_URLS",
        )

    def finish(self, key: str, size: int) -> None:
        """Join the parts of a key.  From then on no URL that was given out can change it."""
        if self._exists(key):
            return
        if size == 0:
            self._put_bytes(key, b"")  # nothing was sent, and S3 joins no empty part
        for upload_id in self._multipart.find(key)[:1]:
            parts = self._expected_parts(key, upload_id, size)
            try:
                self._joining.complete(key, upload_id, [parts[number] for number in sorted(parts)])
            except NotFound:  # another call was first; then the key exists
                self.stat(key)
        self._abort((key, upload_id) for upload_id in self._multipart.find(key))

    def download_link(self, key: str) -> Link:
        """A URL of the public endpoint, once the bucket has answered: whoever gets one finds the object there."""
        self.stat(key)
        return Link(url=self._presign("GET", key, {}), expire_time=datetime.now(UTC) + self._url_lifetime)

    def local_path(self, key: str) -> None:
        """A bucket is nowhere on this host."""
        self.stat(key)

    def local_folder(self, prefix: str) -> None:
        """A bucket is nowhere on this host."""
        if not self.list(prefix):
            raise NotFound(f"{prefix} does not exist")

    def _stat(self, key: str) -> tuple[StoredObject, str]:
        """The object and its ETag."""
        check_key(key)
        found = self._client.call(self._client.minio.stat_object, self._bucket, key)
        stored = StoredObject(key=key, size=found.size or 0, modified=found.last_modified)
        return stored, found.etag or ""

    def _exists(self, key: str) -> bool:
        try:
            self._stat(key)
        except NotFound:
            return False
        return True

    def _put_bytes(self, key: str, data: bytes) -> None:
        put_object, part_size = self._client.minio.put_object, max(self._part_bytes, MIN_PART_SIZE)
        self._client.call(
            lambda: put_object(self._bucket, key, BytesIO(data), len(data), part_size=part_size)
        )

    def _put_parts(self, key: str, source: Path, size: int) -> None:
        part_bytes = part_bytes_of(size, self._part_bytes)
        upload_id = self._multipart.create(key)
        try:
            with source.open("rb") as file:
                chunks = enumerate(iter(lambda: file.read(part_bytes), b""), start=1)
                parts = [self._multipart.put_part(key, upload_id, number, data) for number, data in chunks]
            self._joining.complete(key, upload_id, parts)
        except NotFound:
            self.stat(key)  # joined already, by a try whose answer was lost
        except BaseException:
            with contextlib.suppress(Unavailable):
                self._abort([(key, upload_id)])
            raise

    def _chunks(self, stored: StoredObject, etag: str, offset: int, chunk_bytes: int) -> Iterator[bytes]:
        get_object = self._client.minio.get_object
        response: BaseHTTPResponse | None = None

        def read_on() -> bytes:
            nonlocal response
            if response is None:
                same = {"If-Match": f'"{etag}"'}
                response = get_object(self._bucket, stored.key, offset=offset, request_headers=dict(same))
            try:
                return response.read(chunk_bytes) or _ended_early()
            except BaseException:
                response.close()
                response = None
                raise

        try:
            while offset < stored.size:
                chunk = self._client.call(read_on)
                offset += len(chunk)
                yield chunk
        finally:
            if response is not None:
                response.close()
                response.release_conn()

    def _incoming(self, key: str, size: int) -> Incoming:
        check_key(key)
        part_bytes = part_bytes_of(size, self._part_bytes)
        uploads = self._multipart.find(key)
        if not uploads and self._exists(key):
            return Incoming(committed=size, part_bytes=part_bytes)
        if size == 0:
            return Incoming(committed=0, part_bytes=part_bytes)
        upload_id = uploads[0] if uploads else self._multipart.create(key)
        arrived = self._expected_parts(key, upload_id, size) if uploads else {}
        missing = [number for number in range(1, -(-size // part_bytes) + 1) if number not in arrived]
        return Incoming(
            committed=sum(part.size or 0 for part in arrived.values()),
            part_bytes=part_bytes,
            urls={
                number: self._presign("PUT", key, {"partNumber": str(number), "uploadId": upload_id})
                for number in missing
            },
        )

    def _expected_parts(self, key: str, upload_id: str, size: int) -> Mapping[int, Part]:
        """The parts that have arrived in full, by number; one of another size counts as missing."""
        part_bytes = part_bytes_of(size, self._part_bytes)
        return {
            number: part
            for number, part in self._multipart.parts(key, upload_id).items()
            if part.size == min(part_bytes, size - (number - 1) * part_bytes)
        }

    def _presign(self, method: str, key: str, query: Mapping[str, str]) -> str:
        check_key(key)
        presign = self._public.get_presigned_url
        return self._client.call(
            lambda: presign(method, self._bucket, key, self._url_lifetime, extra_query_params=dict(query))
        )

    def _abort(self, uploads: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> None:
        for key, upload_id in uploads:
            with contextlib.suppress(NotFound):
                self._multipart.abort(key, upload_id)


def _ended_early() -> NoReturn:
    raise ProtocolError("the answer ended early")
