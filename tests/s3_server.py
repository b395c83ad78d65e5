"""The S3 server of a test run, and buckets on it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import urllib3
from start_s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Server

from npn_service.storage.s3_client import S3Client, S3Settings

SMALL_PART = 5 << 20  # the smallest that S3 joins

__all__ = ["SMALL_PART", "S3Bucket", "S3Server", "get_url", "make_bucket", "put_url"]


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Bucket:
    """A bucket of a test's own, and how to reach it."""

    server: S3Server
    settings: S3Settings

    def environment(self) -> dict[str, str]:
        """Settings for `start_server`: `start_server(**bucket.environment())`."""
        return {
            "s3_endpoint": self.settings.endpoint,
            "s3_bucket": self.settings.bucket,
            "s3_access_key": self.settings.access_key,
            "s3_secret_key": self.settings.secret_key,
        }


def make_bucket(server: S3Server) -> S3Bucket:
    """A fresh bucket."""
    settings = S3Settings(
        endpoint=server.endpoint,
        bucket=f"test-{secrets.token_hex(6)}",
        region=REGION,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )
    client = S3Client(settings)

    def make() -> None:
        # A busy server may answer 503 and have made the bucket all the same.
        if not client.minio.bucket_exists(settings.bucket):
            client.minio.make_bucket(settings.bucket)

    client.call(make)
    return S3Bucket(server=server, settings=settings)


def put_url(url: str, data: bytes) -> int:
    """Send a part; the status."""
    return urllib3.request("PUT", url, body=data, timeout=60, retries=False).status


def get_url(url: str, **headers: str) -> tuple[int, bytes]:
    """The status of a URL, and what it serves."""
    response = urllib3.request("GET", url, headers=headers, timeout=60, retries=False)
    return response.status, response.data
