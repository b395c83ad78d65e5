"""What a worker process sends while and after it works, seen at the other end of its pipe."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from job_samples import SPEC, progress_at

from npn_service.worker.child import Child, ChildEnded
from npn_service.worker.messages import Assignment, Cancel, Cancelled, Failed, Finished, Reported

TESTS = Path(__file__).parent.parent


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """A worker process that follows a script."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = Child("worker_scripts:run")
    assert made.ready(30.0)
    yield made
    made.close()


def send(child: Child, script: str, folder: Path) -> None:
    """Give the process its assignment."""
    dataset = folder / "data.npz"
    dataset.write_text("the dataset")
    spec = replace(SPEC, labels={"script": script})
    child.send(
        Assignment(
            job="jobs/1",
            attempt=1,
            planned=True,
            spec=spec,
            dataset=dataset,
            output=folder,
            checkpoints=folder / "kept",
        )
    )


def received(child: Child) -> list[Any]:
    """All that it sends until it ends."""
    messages = []
    with suppress(ChildEnded):
        while True:
            messages.append(child.receive(30.0))
    return messages


def test_fast_progress_is_thinned_but_no_stage_and_not_the_end_is_lost(child: Child, tmp_path: Path) -> None:
    """Of fast progress the first of each stage, every warning and the very last are sent, in order."""
    send(child, "a-lot", tmp_path)
    *reports, last = received(child)
    assert isinstance(last, Finished)
    steps = [report.progress.step for report in reports]
    assert {1, 501, 700} <= set(steps)
    assert len(steps) < 50
    assert steps[:-1] == sorted(set(steps[:-1]))
    assert reports[-1].progress == progress_at(100)  # what every script reports last


def test_slow_progress_is_sent_as_it_comes(child: Child, tmp_path: Path) -> None:
    """Nothing is held back where there is little."""
    send(child, "slowly", tmp_path)
    *reports, last = received(child)
    assert reports == [Reported(progress=progress_at(step)) for step in (1, 2, 3, 100)]
    assert isinstance(last, Finished)


def test_a_cancel_is_confirmed(child: Child, tmp_path: Path) -> None:
    """Work that asks whether to stop hears of the cancel, and the process says Cancelled and ends."""
    send(child, "obey", tmp_path)
    assert isinstance(child.receive(30.0), Reported)
    child.send(Cancel())
    assert received(child) == [Cancelled()]


def test_a_defect_leaves_its_trace_on_stderr(child: Child, tmp_path: Path) -> None:
    """The owner reads the kind of the error; the log gets the stack."""
    send(child, "blunder", tmp_path)
    failed = received(child)[-1]
    assert isinstance(failed, Failed)
    assert "secret" not in failed.error.message
    assert "ValueError: a secret" in child.stderr_tail()


def test_a_child_that_is_gone_says_how(child: Child) -> None:
    """After a kill both directions raise with the signal's name."""
    child.kill()
    with pytest.raises(ChildEnded, match="SIGKILL"):
        child.ready()
    with pytest.raises(ChildEnded, match="SIGKILL"):
        child.send(Cancel())
    with pytest.raises(ChildEnded, match="SIGKILL"):
        child.receive(1.0)
