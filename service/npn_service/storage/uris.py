"""`s3://` URIs: what they name, and which of them a caller may read."""

import re
from dataclasses import dataclass

from .store import MAX_KEY_BYTES, invalid_path

SCHEME = "s3://"
EVERYTHING = (SCHEME,)  # the prefixes of a caller who may read whatever the server can

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
# A slash, a dot, a backslash, a percent sign or a control character in disguise.
_DISGUISED = re.compile(r"%(2f|2e|5c|25|[01][0-9a-f]|7f)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Uri:
    """A key of a bucket, or with a "/" at its end a folder of keys.  The key is taken as it is, never decoded."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> "S3Uri":
        """Raises ValueError, which says what is wrong."""
        if not uri.startswith(SCHEME):
            raise ValueError(f"{uri!r:.200} is no S3 URI; write s3://BUCKET/KEY")
        bucket, _, key = uri.removeprefix(SCHEME).partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r:.80} is no name of a bucket; write s3://BUCKET/KEY")
        if not key.rstrip("/"):
            raise ValueError(f"{uri!r:.200} names a bucket alone; write s3://BUCKET/KEY")
        if _DISGUISED.search(key):
            raise ValueError(
                f"{uri!r:.200} hides a character behind a percent sign; keys are taken as written"
            )
        if wrong := invalid_path(key.removesuffix("/"), max_bytes=MAX_KEY_BYTES):
            raise ValueError(wrong)
        return cls(bucket=bucket, key=key)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def covers(prefix: str, uri: str) -> bool:
    """Whether `uri` names the same as `prefix` or something below it; "s3://a/b" covers no "s3://a/bc".

    False for what is no URI.
    """
    try:
        segments = str(S3Uri.parse(uri)).rstrip("/").split("/")
    except ValueError:
        return False
    allowed = prefix.rstrip("/").split("/") if prefix != SCHEME else [*SCHEME.split("/")[:2]]
    return prefix.startswith(SCHEME) and segments[: len(allowed)] == allowed
