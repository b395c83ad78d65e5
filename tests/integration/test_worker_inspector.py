"""The inspector with real processes that follow scripts, and the process with torch behind it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_samples import PLAN, SPEC
from worker_lab import worker_pids

from npn_service.errors import Unavailable
from npn_service.worker.inspector import Inspector
from npn_service.worker.messages import Inspected, Inspection

TESTS = Path(__file__).parent.parent
GOOD = Inspected(plan=PLAN, error=None)


@pytest.fixture
def inspector(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Inspector]:
    """A warm inspector whose process does what the dataset's text says; half a second where a test says no other."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = Inspector(timeout=getattr(request, "param", 0.5), target="worker_scripts:inspect")
    made.start()
    asyncio.run(answer(made, inspection(tmp_path, "fine")))
    yield made
    made.stop()


async def answer(inspector: Inspector, asked: Inspection) -> Inspected:
    """The answer to a question, asked again while the process starts."""
    deadline = time.monotonic() + 60
    while (answered := await inspector.inspect(asked)) is None:
        assert time.monotonic() < deadline
    return answered


def inspection(folder: Path, script: str, model: str | None = None) -> Inspection:
    """A question about a dataset, and maybe a model, whose text is the script."""
    for text in {script, model} - {None}:
        (folder / str(text)).write_text(str(text))
    return Inspection(spec=SPEC, dataset=folder / script, model=None if model is None else folder / model)


@pytest.mark.parametrize("inspector", [60.0], indirect=True)  # however busy the machine is
def test_questions_are_answered_one_after_the_other(inspector: Inspector, tmp_path: Path) -> None:
    """Many questions at a time are all answered, by one process."""

    async def ask() -> list[Inspected | None]:
        return await asyncio.gather(*(inspector.inspect(inspection(tmp_path, "fine")) for _ in range(20)))

    assert asyncio.run(ask()) == [GOOD] * 20


def test_an_input_that_crashes_the_process_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    """A crash is the input's fault and names the field; the next question finds a fresh process."""

    async def ask() -> tuple[Inspected, Inspected]:
        return (
            await answer(inspector, inspection(tmp_path, "crash")),
            await answer(inspector, inspection(tmp_path, "fine")),
        )

    crashed, fine = asyncio.run(ask())
    assert crashed.plan is None
    assert crashed.error is not None
    assert (crashed.error.code, crashed.error.field) == (3, "dataset.uri")
    assert fine == GOOD


def test_a_model_that_crashes_the_process_is_named(inspector: Inspector, tmp_path: Path) -> None:
    """The process tells what it reads next, so that the right input is blamed."""

    async def ask() -> list[Inspected]:
        pairs = [("fine", "crash"), ("crash", "fine"), ("fine", "fine")]
        return [await answer(inspector, inspection(tmp_path, *pair)) for pair in pairs]

    model, dataset, fine = asyncio.run(ask())
    assert model.error is not None
    assert (model.error.field, model.error.reason) == ("model.uri", "MODEL_UNREADABLE")
    assert dataset.error is not None
    assert (dataset.error.field, dataset.error.reason) == ("dataset.uri", "DATASET_UNREADABLE")
    assert fine == GOOD


def test_waiting_for_others_counts(inspector: Inspector, tmp_path: Path) -> None:
    """Who is not answered in time for the others in front gives up; the process lives on."""

    async def ask() -> list[Inspected | None]:
        slow = await asyncio.gather(*(inspector.inspect(inspection(tmp_path, "slow")) for _ in range(5)))
        return [*slow, await answer(inspector, inspection(tmp_path, "fine"))]

    first, *others, last = asyncio.run(ask())
    assert first == last == GOOD
    assert None in others


def test_an_input_that_takes_too_long_gets_no_answer(inspector: Inspector, tmp_path: Path) -> None:
    """A process that hangs is killed in bounded time; the loop runs on; the next question is answered."""

    async def ask() -> tuple[float, int, Inspected]:
        begin, ticks = time.monotonic(), 0
        question = asyncio.create_task(inspector.inspect(inspection(tmp_path, "hang")))
        while not question.done():
            await asyncio.sleep(0.02)
            ticks += 1
        assert question.result() is None
        return time.monotonic() - begin, ticks, await answer(inspector, inspection(tmp_path, "fine"))

    seconds, ticks, fine = asyncio.run(ask())
    assert seconds < 2.0
    assert ticks > 5
    assert fine == GOOD


def test_a_process_that_still_starts_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first questions give up in their time; the process lives on and answers later ones."""
    (tmp_path / "cold.py").write_text("import time\ntime.sleep(8)\nfrom worker_scripts import inspect\n")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{tmp_path}")
    inspector = Inspector(timeout=0.5, target="cold:inspect")
    inspector.start()
    begin = time.monotonic()
    assert asyncio.run(inspector.inspect(inspection(tmp_path, "fine"))) is None
    assert time.monotonic() - begin < 6.0
    process = worker_pids()
    assert asyncio.run(answer(inspector, inspection(tmp_path, "fine"))) == GOOD
    assert worker_pids() == process
    inspector.stop()


def test_stopping_ends_a_question_that_waits(inspector: Inspector, tmp_path: Path) -> None:
    """`stop` does not wait for a process that hangs, and later questions are refused."""

    async def ask() -> None:
        question = asyncio.create_task(inspector.inspect(inspection(tmp_path, "hang")))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(inspector.stop)
        with pytest.raises(Unavailable):
            await question
        with pytest.raises(Unavailable):
            await inspector.inspect(inspection(tmp_path, "fine"))

    asyncio.run(ask())


def test_the_server_imports_no_torch() -> None:
    """What the server uses of the workers imports no torch."""
    code = (
        "import sys, npn_service.worker.dispatcher, npn_service.worker.inspector, npn_service.worker.pool\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
