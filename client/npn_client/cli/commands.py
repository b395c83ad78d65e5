"""The commands of `npn`.  Exit codes are those of exits.py, JSON lines those of documents.py."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from npn_client.model import JobState, Plan
from npn_client.spec import Architecture, Budget, Dataset, Expansion, ModelArchive, Training, named_model

from . import documents, tables, text
from .display import picture
from .exits import Exit
from .follow import finish, follow, hint
from .options import Command, Session, budget_options, connected, numbers, pairs, training_options

CHECKING = "sending and checking model and dataset"
OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the artifact, made when absent.",
)
LABELS = click.option(
    "--label", "labels", multiple=True, callback=pairs, metavar="KEY=VALUE", help="Repeatable."
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `npn` and exit."""
    try:
        code = npn.main(arguments, prog_name="npn", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(Exit.INTERRUPTED)
    sys.exit(code or Exit.OK)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="npn-compression")
def npn() -> None:
    """Make neural networks smaller, on a budget.

    Exit codes: 0 done (the job SUCCEEDED), 1 the job FAILED, 2 wrong input, 3 CANCELLED, 4 no answer from the
    server, 5 other errors, 130 interrupted.
    """


def _job_options(command: Command) -> Command:
    """What `compress` and `expand` both take: MODEL and the options of a job."""
    for option in reversed(
        (
            click.argument("model"),
            click.option(
                "--dataset", required=True, help="A file, a folder of Parquet, s3://BUCKET/KEY or objects/ID."
            ),
            click.option("--layout", default="", help="NHWC for images whose channels come last."),
            click.option(
                "--param",
                "params",
                multiple=True,
                callback=pairs,
                metavar="KEY=VALUE",
                help="Of a network of the catalogue; repeatable.",
            ),
            budget_options,
            training_options,
            LABELS,
            click.option("--priority", type=int, default=0, help="Higher runs earlier."),
            click.option("--max-duration", type=float, help="Seconds after which the job fails."),
            click.option("--request-id", help="A UUID; the same one gives the same job."),
            OUT,
            click.option("--detach", is_flag=True, help="Queue the job and return."),
            click.option(
                "--dry-run", is_flag=True, help="Check everything, show the feasible range, queue nothing."
            ),
        )
    ):
        command = option(command)
    return command


@npn.command()
@_job_options
@connected
def compress(session: Session, **asked: Any) -> Exit:
    """Compress MODEL.

    It is a network of the catalogue (`npn models`) or one of your own: a .pt2 file that torch.export wrote,
    s3://BUCKET/KEY or objects/ID.
    """
    return _submit(session, expansion=None, **asked)


@npn.command()
@_job_options
@click.option(
    "--awake",
    multiple=True,
    callback=numbers,
    metavar="GROUP=NUMBER",
    help="Units of a group that are awake at the start (conv1=3, fc1.in=48); repeatable.  Default: all of it.",
)
@connected
def expand(session: Session, *, awake: Mapping[str, int], **asked: Any) -> Exit:
    """Grow MODEL to the size that the data ask for, at most the budget.

    MODEL is as for `compress`; `--dry-run --json` lists its groups.
    """
    return _submit(session, expansion=Expansion(awake=awake), **asked)


def _submit(
    session: Session,
    *,
    model: str,
    dataset: str,
    layout: str,
    params: Mapping[str, str],
    budget: Budget,
    training: Training,
    expansion: Expansion | None,
    labels: Mapping[str, str],
    priority: int,
    max_duration: float | None,
    request_id: str | None,
    out: Path | None,
    detach: bool,
    dry_run: bool,
) -> Exit:
    """Queue the job, or only check it, and follow it to its end."""
    network = _network(model, params)
    asked: dict[str, Any] = {
        "dataset": Dataset(dataset, layout=layout),
        "budget": budget,
        "training": training,
        "labels": labels,
        "priority": priority,
        "max_duration": max_duration,
        "request_id": request_id,
    }
    with session.connect() as client:
        if dry_run:
            with session.busy(CHECKING):
                plan = client.plan(network, expansion=expansion, **asked)
            _show_plan(session, plan, f"{network.name} on {Path(dataset).name}")
            return Exit.OK
        submit = client.compress if expansion is None else partial(client.expand, awake=expansion.awake)
        with session.busy(CHECKING):
            job = submit(network, **asked)
        if not detach:
            return follow(session, job, dataset=Path(dataset).name, out=out)
        if session.json:
            click.echo(documents.line("job", job.snapshot))
        else:
            hint(session, job)
        return Exit.OK


@npn.command()
@click.argument("job")
@OUT
@connected
def watch(session: Session, *, job: str, out: Path | None) -> Exit:
    """Follow JOB to its end."""
    with session.connect() as client:
        handle = client.get_job(job)
        return follow(session, handle, dataset=str(handle.snapshot.dataset.source), out=out)


@npn.command()
@click.option("--state", type=click.Choice([state.value for state in JobState][1:], case_sensitive=False))
@LABELS
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@connected
def jobs(session: Session, *, state: str | None, labels: Mapping[str, str], limit: int) -> None:
    """List jobs, newest first."""
    with session.connect() as client:
        listed = list(itertools.islice(client.list_jobs(state=state, labels=labels), limit))
    if session.json:
        for job in listed:
            click.echo(documents.line("job", job.snapshot))
    elif listed:
        session.console.print(tables.jobs(listed))
    else:
        session.console.print("no jobs")


@npn.command()
@click.argument("job")
@connected
def get(session: Session, *, job: str) -> None:
    """Show JOB as it is now."""
    with session.connect() as client:
        handle = client.get_job(job)
        if session.json:
            click.echo(documents.line("job", handle.snapshot))
        elif handle.snapshot.result is not None:
            finish(session, handle, dataset=str(handle.snapshot.dataset.source), out=None)
        else:
            title = text.title(handle.snapshot, str(handle.snapshot.dataset.source))
            session.console.print(picture(title, handle.snapshot))


@npn.command()
@click.argument("job")
@connected
def cancel(session: Session, *, job: str) -> None:
    """Stop JOB: at once when it is queued, within seconds when it runs."""
    with session.connect() as client:
        handle = client.get_job(job).cancel()
    if session.json:
        click.echo(documents.line("job", handle.snapshot))
    else:
        session.console.print(f"{handle.name} is {text.state(handle.state)}")


@npn.command()
@click.argument("job")
@click.option("--attempt", type=click.IntRange(1), help="From 1; the newest by default.")
@connected
def logs(session: Session, *, job: str, attempt: int | None) -> None:
    """Show how an attempt at JOB went: its last log lines where it ended badly, and its curve."""
    with session.connect() as client:
        handle = client.get_job(job)
        kept = handle.logs(attempt)
    if session.json:
        click.echo(documents.line("logs", kept, job=handle.name))
        return
    session.console.print(text.attempt(handle.snapshot, kept), markup=False)
    for line in kept.lines:
        session.console.print(line, markup=False, soft_wrap=True)
    if kept.curve:
        session.console.print(tables.curve(kept.curve))


@npn.command()
@click.argument("job")
@connected
def delete(session: Session, *, job: str) -> None:
    """Remove JOB, which must be done, and its artifact."""
    with session.connect() as client:
        handle = client.get_job(job)
        handle.delete()
    if session.json:
        click.echo(documents.line("deleted", job=handle.name))
    else:
        session.console.print(f"{handle.name} is gone")


@npn.command()
@click.argument("job")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="out",
    show_default=True,
    help="Folder.",
)
@connected
def download(session: Session, *, job: str, out: Path) -> Exit:
    """Fetch the artifact of JOB, waiting for its end; resumes what was interrupted."""
    with session.connect() as client:
        handle = client.get_job(job)
        return follow(session, handle, dataset=str(handle.snapshot.dataset.source), out=out)


@npn.command()
@connected
def models(session: Session) -> None:
    """List the networks of the catalogue."""
    with session.connect() as client:
        listed = client.architectures()
    if session.json:
        for info in listed:
            click.echo(documents.line("architecture", info))
    else:
        session.console.print(tables.architectures(listed))


def _network(model: str, params: Mapping[str, str]) -> Architecture | ModelArchive:
    network = named_model(model)
    if isinstance(network, Architecture):
        return replace(network, params=params)
    if network is None or params:
        raise click.UsageError("--param goes with networks of the catalogue; an archive is as it is")
    return network


def _show_plan(session: Session, plan: Plan, title: str) -> None:
    if session.json:
        click.echo(documents.line("plan", plan))
        return
    session.console.print(tables.plan(plan, title))
    for note in tables.plan_notes(plan):
        session.console.print(note, markup=False)
