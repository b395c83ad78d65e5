"""The `npn-server` command."""

import asyncio
import ctypes
import gc
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import click
import structlog
from pydantic import ValidationError

from .errors import StartupError, Unavailable
from .jobs.garbage import collect
from .jobs.migrations import check_schema
from .jobs.migrations import migrate as migrate_database
from .logs import configure_logs
from .opening import database_url, open_objects, open_store
from .server import serve
from .settings import Settings
from .storage.datafolder import DataFolder, DataPaths
from .token_command import token

_log = structlog.get_logger("npn_service.main")  # __name__ is __main__ under `python -m`

# New objects between two of Python's own collections.  A thousand watches are tens of thousands of objects that live
# on: looked through as often as by default (700), they take an eighth of the server's time.
_YOUNG_OBJECTS = 20_000
_M_ARENA_MAX = -8  # of malloc.h


_SETTINGS = "\n".join(
    ["\b", "Settings, read from the environment:"]
    + [
        f"  NPN_{name.upper():<22}{field.description} [{'' if field.default is None else field.default}]"
        for name, field in Settings.model_fields.items()
    ]
)


@click.group(invoke_without_command=True, epilog=_SETTINGS)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the bound addresses there as JSON when the server listens.",
)
@click.version_option(package_name="npn-compression")
@click.pass_context
def main(context: click.Context, ready_file: Path | None) -> None:
    """Run the compression server until SIGTERM or SIGINT."""
    if context.invoked_subcommand is not None:
        return
    settings = _read_settings()
    configure_logs(settings.log_format)
    _share_free_memory()
    with _explained():
        asyncio.run(_run(settings, ready_file))


@main.command()
def migrate() -> None:
    """Bring the database to this version's schema.  The embedded one is also migrated at every start."""
    settings = _read_settings()
    with _explained():
        if url := settings.database_url.get_secret_value():
            migrate_database(url)
        else:
            with DataFolder(settings.data_dir) as folder:
                migrate_database(folder.database_url)


@main.command("gc")
@click.option("--dry-run", is_flag=True, help="Show what would go, and why; change nothing.")
def collect_garbage(dry_run: bool) -> None:
    """Remove what is over and what nobody needs.  Servers do so every hour; beside them this is safe."""
    settings = _read_settings()
    paths = DataPaths(settings.data_dir)
    with _explained():
        check_schema(database_url(settings, paths))
        _, objects = open_objects(settings, paths, shared=True)
        with closing(open_store(settings, paths)) as store:
            for removal in collect(store, objects, job_retention=settings.job_retention, dry_run=dry_run):
                click.echo(f"{removal.prefix}\t{removal.reason}")


main.add_command(token)


async def _run(settings: Settings, ready_file: Path | None) -> None:
    """Serve until the first SIGTERM or SIGINT, which also ends a start that waits; later ones change nothing."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        starting = asyncio.ensure_future(stack.enter_async_context(serve(settings)))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return
        server = starting.result()
        gc.freeze()  # what is here now stays
        gc.set_threshold(_YOUNG_OBJECTS)
        _log.info(
            "listening",
            role=settings.role,
            address=server.address,
            metrics_address=server.metrics_address,
        )
        if ready_file is not None:
            _write_ready(ready_file, address=server.address, metrics_address=server.metrics_address)
        await asyncio.wait({stopping, server.ended}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            raise StartupError(
                "calls are not answered any more: gRPC ended by itself; start the server again"
            )
        _log.info("draining")
    _log.info("stopped")


def _share_free_memory() -> None:
    """Have glibc keep what is free for all threads together, not for each: the server's memory stays flat."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _write_ready(path: Path, **addresses: str) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(json.dumps(addresses))
    unfinished.replace(path)


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps the server from starting is for its operator: one message, no traceback."""
    try:
        yield
    except (StartupError, Unavailable) as error:
        cause = getattr(error.__cause__, "orig", None)  # what the database's driver says
        _fail(f"{error}: {cause}" if cause else str(error))


def _read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            ": ".join([*(f"NPN_{name}".upper() for name in problem["loc"]), problem["msg"]])
            for problem in error.errors()
        ]
        _fail("\n".join(["these settings are wrong:", *wrong]))


def _fail(message: str) -> NoReturn:
    click.echo(f"npn-server: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
