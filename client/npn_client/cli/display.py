"""How a job that is followed is shown: bars on a terminal, lines in a log, documents for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from npn_client.job import Job
from npn_client.model import Event, JobSnapshot, JobState, Progress, Progressed, StateChanged

from . import documents, text

MOST_GROUPS = 10  # shown at once; a deep network has more


class Display(Protocol):
    """Shows the events of one job."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal as it was."""

    def show(self, event: Event) -> None:
        """Show what is new."""


class JsonDisplay:
    """One document per event."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, event: Event) -> None:
        """Print the event's document."""
        click.echo(documents.event_line(self._job.name, event))


class _Tried:
    """Which sizes that a job has tried were told already."""

    def __init__(self) -> None:
        self._told = 0

    def news(self, progress: Progress) -> list[str]:
        """A line for each that was not."""
        new = progress.trials[self._told :]
        self._told += len(new)
        return [f"tried {text.trial(trial)}" for trial in new]


class LineDisplay:
    """One line per change of state and per epoch."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._shown: tuple[object, ...] = ()
        self._tried = _Tried()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, event: Event) -> None:
        """Print what changed."""
        if isinstance(event, StateChanged):
            self._print(event, state_line(event.job))
            return
        progress = event.progress
        if progress.warning:
            self._print(event, f"warning: {progress.warning}")
        for line in self._tried.news(progress):
            self._print(event, line)
        if (progress.stage, progress.epoch) != self._shown:
            self._shown = (progress.stage, progress.epoch)
            self._print(event, _progress_line(progress))

    def _print(self, event: Event, line: str) -> None:
        time = (event.time or datetime.now()).astimezone()
        click.echo(f"{time:%H:%M:%S}  {self._job.name}  {line}")


class LiveDisplay:
    """Bars that move, gone when the job is done."""

    def __init__(self, job: Job, dataset: str, console: Console) -> None:
        self._job = job
        self._title = text.title(job.snapshot, dataset)
        self._warned: set[str] = set()
        self._tried = _Tried()
        self._live = Live(console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        """Redraw."""
        if isinstance(event, Progressed) and event.progress.warning not in ("", *self._warned):
            self._warned.add(event.progress.warning)
            self._live.console.print(f"[yellow]warning[/] {escape(event.progress.warning)}")
        if isinstance(event, Progressed):
            for line in self._tried.news(event.progress):
                self._live.console.print(line)
        self._live.update(picture(self._title, self._job.snapshot))


def state_line(job: JobSnapshot) -> str:
    """The state of a job and what explains it."""
    if job.state is JobState.QUEUED:
        again = f"attempt {job.attempt} ended; " if job.attempt else ""
        return f"queued: {again}{job.wait_reason or 'waiting for a worker'}"
    if job.state is JobState.FAILED and job.error is not None:
        return f"failed: {job.error.message}"
    if job.state is JobState.RUNNING and job.attempt > 1:
        return f"running, attempt {job.attempt}"
    return text.state(job.state)


def picture(title: str, job: JobSnapshot) -> RenderableType:
    """A job on a terminal: its progress where there is any, its state elsewhere."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    if job.state is JobState.RUNNING and job.progress is not None:
        _add_progress(grid, job.progress)
    else:
        grid.add_row("state", Text(state_line(job)))
    heading = Text.assemble((title, "bold"), ("  " + job.name, "dim"), overflow="ellipsis", no_wrap=True)
    return Group(heading, grid)


def _add_progress(grid: Table, progress: Progress) -> None:
    grid.add_row("stage", _stages(progress))
    if progress.stage not in text.TRAINING_STAGES:
        return
    bar = Table.grid(padding=(0, 2))
    left = "" if progress.time_left is None else f" · {text.duration(progress.time_left)} left"
    bar.add_row(
        ProgressBar(total=max(progress.steps, 1), completed=progress.step, width=40),
        Text(text.epoch(progress) + left),
    )
    grid.add_row("progress", bar)
    for cost in progress.costs:
        style = "green" if cost.hard <= cost.budget else ""
        grid.add_row(text.COST_NAMES.get(cost.kind, cost.kind), Text(text.cost(cost), style=style))
    grid.add_row("training", Text(text.measures(progress)))
    if progress.groups:
        grid.add_row("awake", _units(progress))


def _stages(progress: Progress) -> Text:
    line = Text()
    for stage, name in text.STAGE_NAMES.items():
        line.append(f"{name}  ", "bold cyan" if stage is progress.stage else "dim")
    return line


def _units(progress: Progress) -> RenderableType:
    units = Table.grid(padding=(0, 2))
    for group in progress.groups[:MOST_GROUPS]:
        units.add_row(
            group.name,
            ProgressBar(total=max(group.size, 1), completed=group.active, width=20, complete_style="cyan"),
            f"{group.active:,} of {group.size:,}",
        )
    hidden = len(progress.groups) - MOST_GROUPS
    return Group(units, Text(f"and {hidden} more groups", "dim")) if hidden > 0 else units


def _progress_line(progress: Progress) -> str:
    stage = text.STAGE_NAMES.get(progress.stage, "running")
    if progress.stage not in text.TRAINING_STAGES:
        return stage
    parts = [f"{stage}, {text.epoch(progress)}", text.measures(progress)]
    parts += [f"{text.COST_NAMES.get(cost.kind, cost.kind)} {text.cost(cost)}" for cost in progress.costs]
    if progress.time_left is not None:
        parts.append(f"{text.duration(progress.time_left)} left")
    return " · ".join(parts)
