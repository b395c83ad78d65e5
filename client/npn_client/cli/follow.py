"""Following a job to its end, and what Ctrl-C means meanwhile."""

import sys
from contextlib import suppress
from pathlib import Path

import click
from rich.markup import escape

from npn_client.errors import FailedPrecondition, JobFailed
from npn_client.job import Job
from npn_client.model import JobState

from . import documents, tables, text
from .display import Display, JsonDisplay, LineDisplay, LiveDisplay
from .exits import Exit
from .options import Session


def follow(session: Session, job: Job, *, dataset: str, out: Path | None) -> Exit:
    """Show a job until it is done, fetch its artifact, show the result; returns the exit code.

    Raises JobFailed where the job failed.
    """
    if not _watch(session, job, dataset):
        hint(session, job)
        return Exit.INTERRUPTED
    if job.state is JobState.CANCELLED:
        _say(session, f"{job.name} was cancelled")
        return Exit.CANCELLED
    if job.error is not None:
        raise JobFailed(job.name, job.error)
    finish(session, job, dataset=dataset, out=out)
    return Exit.OK


def finish(session: Session, job: Job, *, dataset: str, out: Path | None) -> None:
    """Show what a job gave, fetching its artifact into `out` first."""
    result = job.result()
    if out is not None:
        with session.busy("fetching the artifact"):
            paths = result.download(out)
        if session.json:
            click.echo(documents.line("artifact", job=job.name, folder=out, paths=paths))
    if session.json or job.snapshot.result is None:
        return
    console = session.console
    grown, title = job.snapshot.expansion is not None, text.title(job.snapshot, dataset)
    console.print(tables.result(job.snapshot.result, title, grown=grown))
    if out is not None:
        console.print(f"kept        {escape(tables.units(out))}", style="dim")
    console.print(f"trained in  {text.duration(result.train_time)}", style="dim")
    where = f"{out}/" if out is not None else f"on the server: npn download {job.id} --out DIR"
    console.print(f"artifact    {escape(where)}")


def hint(session: Session, job: Job) -> None:
    """Say how to come back to a job that goes on running."""
    _say(session, f"{job.name} goes on running; follow it with: npn watch {job.id} --server {session.server}")


def _watch(session: Session, job: Job, dataset: str) -> bool:
    """Show events until the job is done (True) or the user leaves it (False)."""
    while True:
        try:
            with _display(session, job, dataset) as display:
                for event in job.watch():
                    display.show(event)
            return True
        except KeyboardInterrupt:
            if not _goes_on(job):
                return False


def _goes_on(job: Job) -> bool:
    """Ask what an interrupt means: cancel the job and see it end, leave it, or go on watching."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        answer = click.prompt(
            f"\nCancel {job.name}?  y cancels it, n leaves it running, w goes on watching",
            type=click.Choice(["y", "n", "w"]),
            default="w",
            show_choices=False,
            err=True,
        )
    except click.Abort:  # interrupted again
        return False
    if answer == "y":
        with suppress(FailedPrecondition):  # it has ended meanwhile, and shows how
            job.cancel()
    return bool(answer != "n")


def _display(session: Session, job: Job, dataset: str) -> Display:
    if session.json:
        return JsonDisplay(job)
    if session.console.is_terminal:
        return LiveDisplay(job, dataset, session.console)
    return LineDisplay(job)


def _say(session: Session, message: str) -> None:
    click.echo(message, err=session.json)
