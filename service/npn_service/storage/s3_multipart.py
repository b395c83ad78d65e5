"""Multipart uploads: a key that arrives in parts, in any order, over any time.

The SDK has the calls but keeps them to itself (their names begin with "_"), which is why they are all in this
one file and why its version is bounded in pyproject.toml.

An upload is looked up by its whole key: MinIO lists no uploads under a shorter prefix.
"""

from collections.abc import Mapping, Sequence

from minio.datatypes import ListMultipartUploadsResult, Part
from minio.helpers import DictType

from .s3_client import S3Client

PART_BYTES = 16 << 20
MAX_PARTS = 1000  # one page of a list; S3 itself takes 10,000


def part_bytes_of(size: int, part_bytes: int = PART_BYTES) -> int:
    """Bytes of each part but the last of a key of `size` bytes."""
    return max(part_bytes, -(-size // MAX_PARTS))


class Multipart:
    """The multipart uploads of one bucket.  Raises as `S3Client.call` does."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create(self, key: str) -> str:
        """Begin an upload; returns its id."""
        return self._client.call(self._client.minio._create_multipart_upload, self._bucket, key, {})

    def find(self, key: str) -> Sequence[str]:
        """Ids of the key's open uploads, the same first one for everybody."""
        return [upload_id for found, upload_id in self._list(key) if found == key]

    def find_under(self, prefix: str) -> Sequence[tuple[str, str]]:
        """Key and id of the open uploads under a prefix.  MinIO finds none; it ends stale ones itself in a day."""
        return self._list(prefix)

    def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> Part:
        """Store one part; S3 verifies its hash."""
        upload_part = self._client.minio._upload_part
        etag = self._client.call(upload_part, self._bucket, key, data, None, upload_id, number)
        return Part(number, etag, size=len(data))

    def parts(self, key: str, upload_id: str) -> Mapping[int, Part]:
        """The parts that have arrived, by number."""
        answer = self._client.call(
            self._client.minio._list_parts, self._bucket, key, upload_id, max_parts=MAX_PARTS
        )
        return {part.part_number: part for part in answer.parts}

    def complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Join the parts; others that arrived are dropped.  Raises NotFound where the upload is gone, or done."""
        complete = self._client.minio._complete_multipart_upload
        self._client.call(complete, self._bucket, key, upload_id, list(parts))

    def abort(self, key: str, upload_id: str) -> None:
        """Drop an upload with its parts; silent where there is none.  Raises NotFound where it is gone."""
        self._client.call(self._client.minio._abort_multipart_upload, self._bucket, key, upload_id)

    def _list(self, prefix: str) -> Sequence[tuple[str, str]]:
        # Without the empty "delimiter" that the SDK's own call sends, which Swift takes for a delimiter.
        query: DictType = {
            "uploads": "",
            "prefix": prefix,
            "max-uploads": str(MAX_PARTS),
            "encoding-type": "url",
        }
        answer = self._client.call(self._client.minio._execute, "GET", self._bucket, query_params=query)
        found = ListMultipartUploadsResult(answer).uploads
        return sorted((upload.object_name, upload.upload_id) for upload in found if upload.upload_id)
