"""What a server and its commands stand on, opened as the settings say: jobs, their schema, objects."""

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from .blocking import BlockingPool
from .errors import StartupError, Unavailable
from .jobs.limits import OwnerLimits
from .jobs.migrations import check_schema, migrate
from .jobs.sql_store import SqlJobStore
from .settings import Settings
from .storage.datafolder import DataPaths
from .storage.local import LocalObjectStore
from .storage.s3 import S3ObjectStore
from .storage.s3_client import PATIENT, QUICK
from .storage.store import ObjectStore

_LONGEST_WAIT = 15.0  # seconds between two looks for a database that is away at the start

_log = structlog.get_logger(__name__)


def open_store(settings: Settings, paths: DataPaths) -> SqlJobStore:
    """The jobs, in PostgreSQL or in the data folder; connects when it is first used.

    Raises StartupError where the role needs a database that others can share.
    """
    url = database_url(settings, paths)
    if settings.role != "all" and not url.startswith("postgresql"):
        raise StartupError(
            f"NPN_ROLE={settings.role} needs other servers beside it, and they share jobs through PostgreSQL; set "
            "NPN_DATABASE_URL to postgresql://USER@HOST/DATABASE, or NPN_ROLE to all"
        )
    limits = OwnerLimits(
        running_jobs=settings.max_running_jobs_per_owner,
        queued_jobs=settings.max_queued_jobs_per_owner,
        stored_bytes=settings.max_bytes_per_owner,
    )
    return SqlJobStore(url, limits=limits)


def database_url(settings: Settings, paths: DataPaths) -> str:
    """Where the jobs are: the setting, or the embedded database."""
    return settings.database_url.get_secret_value() or paths.database_url


async def await_schema(settings: Settings, paths: DataPaths, blocking: BlockingPool) -> None:
    """Until the database has this server's schema.  The embedded one follows the server's version; PostgreSQL
    is waited for, and each look says in the log why it does not answer.

    Raises StartupError when the schema is another, Unavailable when SQLite's file cannot be opened.
    """
    url = database_url(settings, paths)
    if not settings.database_url.get_secret_value():
        await blocking.run(migrate, url)
    elif url.startswith("sqlite"):
        await blocking.run(check_schema, url)
    else:
        waiting = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), wait=wait_random_exponential(0.5, max=_LONGEST_WAIT)
        )
        await waiting(blocking.run, check_schema, url)


def open_objects(
    settings: Settings, paths: DataPaths, *, shared: bool = False
) -> tuple[ObjectStore, ObjectStore]:
    """The objects, for whoever waits for an answer and for whoever carries bytes; `shared` with the server that
    owns the data folder.

    A bucket that is away at the start is waited for as it would be later.  Raises StartupError when S3 refuses, and
    where the role needs objects that others can share.
    """
    if settings.s3 is None and settings.role != "all":
        raise StartupError(
            f"NPN_ROLE={settings.role} needs other servers beside it, and they share objects through S3; set "
            "NPN_S3_ENDPOINT and NPN_S3_BUCKET, or NPN_ROLE to all"
        )
    if settings.s3 is None:
        local = LocalObjectStore(paths.objects, min_free=settings.min_free_bytes, shared=shared)
        return local, local
    quick, patient = (S3ObjectStore(settings.s3, patience=patience) for patience in (QUICK, PATIENT))
    try:
        quick.check()
    except Unavailable as error:
        _log.warning("s3.away", error=error.message)
    return quick, patient
