"""What the server is told by its environment.  The only file that reads it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .jobs.postgresql import parse_url
from .storage.s3_client import S3Settings


def _host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{value!r} is no address; write HOST:PORT, for example 127.0.0.1:50051")
    return value


def _host_and_port_or_nothing(value: str) -> str:
    return _host_and_port(value) if value else value


def _database_url(value: SecretStr) -> SecretStr:
    if value.get_secret_value():
        parse_url(value.get_secret_value())
    return value


def _file_or_https(value: str) -> str:
    if "://" in value and not value.startswith("https://"):
        raise ValueError(f"{value!r} is neither a file nor an https:// URL")
    return value


class Settings(BaseSettings):
    """Settings of one server, each read from `NPN_` and its name in upper case.

    Port 0 in an address takes a free port.  Sizes are in bytes, times in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="NPN_", frozen=True)

    listen: Annotated[str, AfterValidator(_host_and_port)] = Field(
        default="127.0.0.1:50051", description="where gRPC is served"
    )
    metrics_listen: Annotated[str, AfterValidator(_host_and_port_or_nothing)] = Field(
        default="127.0.0.1:9464", description="where probes and Prometheus metrics are served; empty: nowhere"
    )
    data_dir: Path = Field(default=Path("npn-data"), description="database, objects and lock of this server")
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        default=SecretStr(""), description="postgresql://USER@HOST/DATABASE; empty: SQLite in data_dir"
    )
    role: Literal["all", "api", "worker"] = Field(
        default="all", description="api: serve, run no job; worker: run jobs, serve no calls; all: both"
    )
    s3_endpoint: str = Field(
        default="", description="S3 service, https://HOST or http://HOST:PORT; empty: objects lie in data_dir"
    )
    s3_bucket: str = Field(default="", description="bucket of this service's objects; it must exist")
    s3_region: str = Field(default="us-east-1", description="region that requests are signed for")
    s3_access_key: str = Field(
        default="", description="empty: AWS_ variables, web identity, the machine's role"
    )
    s3_secret_key: SecretStr = Field(default=SecretStr(""), description="goes with the access key")
    s3_ca_file: Path | None = Field(default=None, description="PEM file of authorities; empty: the system's")
    s3_public_endpoint: str = Field(
        default="", description="what URLs for clients are signed for; empty: s3_endpoint"
    )
    cache_bytes: int = Field(
        default=20 << 30,
        ge=1 << 20,
        description="copies in data_dir of what jobs read from S3; the oldest go",
    )
    dataset_memory_bytes: int = Field(
        default=2 << 30, ge=0, description="a decoded dataset above this lies in a file, not in memory"
    )
    dataset_disk_bytes: int = Field(
        default=64 << 30, ge=0, description="a decoded dataset above this is refused"
    )
    workers: int = Field(default=1, ge=0, le=1024, description="jobs that run at a time")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of a job that does not say")
    lease_seconds: float = Field(
        default=30.0, ge=5, description="a job whose worker is silent this long is requeued"
    )
    checkpoint_seconds: float = Field(
        default=60.0, gt=0, description="a running job's state is stored this often"
    )
    grace_seconds: float = Field(
        default=25.0, ge=0, description="a server that stops waits this long for last checkpoints"
    )
    stall_timeout: float = Field(
        default=600.0, gt=0, description="an attempt without a training step for this long ends"
    )
    worker_memory_bytes: int = Field(
        default=0, ge=0, description="most memory of a worker and what it starts; 0: no limit"
    )
    max_epochs: int = Field(default=10_000, ge=1, description="most epochs of a job")
    max_message_bytes: int = Field(
        default=4 << 20, ge=64 << 10, le=1 << 30, description="largest gRPC message"
    )
    max_upload_bytes: int = Field(default=16 << 30, ge=1, description="largest upload, all files together")
    max_files_per_upload: int = Field(default=1000, ge=1, description="most files of one upload")
    max_running_jobs_per_owner: int = Field(
        default=64, ge=0, description="most jobs of one owner that run at a time; 0: any number"
    )
    max_queued_jobs_per_owner: int = Field(
        default=1000, ge=0, description="most jobs of one owner that wait; 0: any number"
    )
    max_bytes_per_owner: int = Field(
        default=1 << 40,
        ge=0,
        description="most bytes that one owner stores, artifacts included; 0: any number",
    )
    max_job_duration: float = Field(
        default=7 * 86400.0, ge=0, description="longest that a job may run, and its default; 0: for ever"
    )
    job_retention: float = Field(
        default=90 * 86400.0, ge=0, description="finished jobs go after this time; 0: never"
    )
    min_free_bytes: int = Field(
        default=256 << 20, ge=0, description="free space of the disk below which nothing more is taken"
    )
    max_concurrent_calls: int = Field(
        default=256, ge=1, description="calls answered at a time, watches apart; more are refused"
    )
    max_watches: int = Field(default=10_000, ge=1, description="watches at a time; more are refused")
    max_connection_age: float = Field(
        default=3600.0,
        ge=0,
        description="a connection is asked to go after this time, and cut after twice; 0: never",
    )
    tls_cert_file: Path | None = Field(
        default=None, description="PEM certificate chain of gRPC; reread when it changes"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of the certificate")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM authorities; clients must show a certificate of theirs"
    )
    tokens_file: Path | None = Field(
        default=None, description="tokens that are taken; see npn-server token --help; reread"
    )
    allow_anonymous: bool = Field(
        default=False, description="without tokens, let in whoever reaches the address, not loopback alone"
    )
    oidc_issuer: str = Field(default="", description="iss of the JSON Web Tokens that are taken")
    oidc_audience: str = Field(default="", description="aud that they must have")
    oidc_jwks: Annotated[str, AfterValidator(_file_or_https)] = Field(
        default="", description="the issuer's keys: a JWKS file, reread, or an https URL"
    )
    oidc_owner_claim: str = Field(default="sub", description="claim that is the owner: a team or project")
    oidc_scopes_claim: str = Field(
        default="scope", description="claim with npn:read, npn:write, npn:priority, npn:admin"
    )
    oidc_prefixes_claim: str = Field(
        default="npn_read_prefixes", description="claim with the s3:// prefixes that may be read"
    )
    oidc_default_scopes: Literal["", "read", "read write"] = Field(
        default="", description="scopes of tokens without that claim"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON elsewhere"
    )

    @model_validator(mode="after")
    def _check_s3(self) -> Self:
        if self.s3_endpoint:
            try:
                _ = self.s3
            except ValueError as error:
                raise ValueError(f"NPN_S3_*: {error}") from error
            return self
        given = [
            f"NPN_{name.upper()}"
            for name in sorted(self.model_fields_set)
            if name.startswith("s3_") and getattr(self, name)
        ]
        if given:
            raise ValueError(
                f"NPN_S3_ENDPOINT is missing, but {', '.join(given)} is set; set it, or none of them"
            )
        return self

    @property
    def s3(self) -> S3Settings | None:
        """Where objects are stored; None: in the data folder."""
        if not self.s3_endpoint:
            return None
        return S3Settings(
            endpoint=self.s3_endpoint,
            bucket=self.s3_bucket,
            region=self.s3_region,
            access_key=self.s3_access_key,
            secret_key=self.s3_secret_key.get_secret_value(),
            ca_file=self.s3_ca_file,
            public_endpoint=self.s3_public_endpoint,
        )
