"""A connection to S3 or MinIO: where it is, how long its answers may take, and what its refusals mean.

Every call goes through `S3Client.call`, which retries what may pass and raises errors of errors.py; those name
neither endpoint, bucket nor key, which callers must not learn.  The log has them.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import structlog
import tenacity
import urllib3
from minio import Minio
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name

from npn_service.errors import NotFound, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

REFUSED = "STORAGE_REFUSED"  # reason of Unavailable: S3 answers, and says no; the operator must act
AWAY = "STORAGE_UNAVAILABLE"  # reason of Unavailable: S3 does not answer, or not in time

# What S3's refusals mean, by its error codes; every code that is missing here is REFUSED.
_MISSING = frozenset(
    {"NoSuchKey", "NoSuchUpload", "NoSuchVersion", "PreconditionFailed"}
)  # not there, or not that
_PASSING = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
)

_CONNECTIONS = 16  # kept open to one host

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Settings:
    """One bucket of one S3 service.

    Endpoints are URLs without a path, "https://minio.example.com:9000"; presigned URLs are signed for
    `public_endpoint`, `endpoint` when it is empty.  Without keys the SDK's chain finds credentials: the AWS_
    variables, the AWS configuration file, web identity, the machine's role.  `ca_file` is a PEM file of
    authorities, None for the system's.
    """

    endpoint: str
    bucket: str
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    ca_file: Path | None = None
    public_endpoint: str = ""

    def __post_init__(self) -> None:
        for name, url in (("endpoint", self.endpoint), ("public endpoint", self.public_endpoint)):
            if url:
                _check_endpoint(name, url)
        if not self.bucket:
            raise ValueError("the bucket is missing; name one that exists")
        check_bucket_name(self.bucket, strict=True)
        if bool(self.access_key) != bool(self.secret_key):
            missing = "secret key" if self.access_key else "access key"
            raise ValueError(
                f"the {missing} is missing; give both keys, or neither for the machine's own identity"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a call may take, in seconds: to connect, between two bytes, and until no further try begins."""

    connect: float
    read: float
    retry: float

    @property
    def total(self) -> float:
        """The longest that a call without an answer takes."""
        return self.retry + self.read


# Whoever waits for an RPC hears within two seconds that S3 is away; whoever carries bytes waits it out.
QUICK = Patience(connect=0.5, read=1.4, retry=0.5)
PATIENT = Patience(connect=3.0, read=15.0, retry=30.0)


class S3Client:
    """The SDK's client with our time limits, retries and errors.  Thread-safe.

    `minio` is the SDK's client: `call(client.minio.stat_object, bucket, key)`.
    """

    def __init__(self, settings: S3Settings, patience: Patience = PATIENT) -> None:
        self.minio = make_minio(settings, patience)
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
            stop=tenacity.stop_before_delay(patience.retry),
            reraise=True,
        )

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What a call of the SDK returns; it must be safe to repeat.

        Raises NotFound for a key, version or multipart upload that is not there, and Unavailable (AWAY, REFUSED).
        """
        try:
            return self._retrying(function, *args, **kwargs)
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise translated(error) from error


def make_minio(settings: S3Settings, patience: Patience, *, public: bool = False) -> Minio:
    """The SDK's client, for the public endpoint with `public`; it does not connect yet, and never retries."""
    url = urlsplit((settings.public_endpoint if public else "") or settings.endpoint)
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=patience.connect, read=patience.read),
        maxsize=_CONNECTIONS,
        retries=False,
        ssl_context=ssl.create_default_context(cafile=settings.ca_file),
    )
    return Minio(
        url.netloc,
        secure=url.scheme == "https",
        region=settings.region,
        credentials=_credentials(settings, pool),
        http_client=pool,
    )


def translated(error: Exception) -> NotFound | Unavailable:
    """What an error of the SDK means to us.  The details go to the log alone."""
    if isinstance(error, S3Error) and error.code in _MISSING:
        return NotFound("the object does not exist, or is another by now")
    _log.warning("s3.failed", error=str(error), kind=type(error).__name__)
    if _may_pass(error):
        return Unavailable("the object store does not answer; try again", reason=AWAY)
    return Unavailable("the object store refuses this server; its operator must act", reason=REFUSED)


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, S3Error):
        return error.code in _PASSING or error.response.status >= 500
    if isinstance(error, ServerError):
        return error.status_code >= 500
    # A proxy's page instead of S3's answer passes; a certificate that is wrong stays wrong.
    return isinstance(error, InvalidResponseError | urllib3.exceptions.HTTPError) and not isinstance(
        error, urllib3.exceptions.SSLError
    )


def _credentials(settings: S3Settings, pool: urllib3.PoolManager) -> Provider:
    if settings.access_key:
        return StaticProvider(settings.access_key, settings.secret_key)
    return ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider(http_client=pool)])


def _check_endpoint(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(
            f"the {name} {url!r} is no address; write https://HOST or http://HOST:PORT, without a path"
        )
