"""The inspector with real processes that follow scripts, and the process with torch behind it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_samples import PLAN, SPEC

from npn_service.errors import Unavailable
from npn_service.worker.inspector import Inspector
from npn_service.worker.messages import Inspected, Inspection

TESTS = Path(__file__).parent.parent
GOOD = Inspected(plan=PLAN, error=None)


@pytest.fixture
def inspector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inspector]:
    """An inspector whose process does what the dataset's text says."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = Inspector(timeout=0.5, target="worker_scripts:inspect")
    made.start()
    yield made
    made.stop()


def inspection(folder: Path, script: str) -> Inspection:
    """A question about a dataset whose text is the script."""
    path = folder / script
    path.write_text(script)
    return Inspection(spec=SPEC, dataset=path)


def test_questions_are_answered_one_after_the_other(inspector: Inspector, tmp_path: Path) -> None:
    """Many questions at a time are all answered, by one process."""

    async def ask() -> list[Inspected]:
        return await asyncio.gather(*(inspector.inspect(inspection(tmp_path, "fine")) for _ in range(20)))

    assert asyncio.run(ask()) == [GOOD] * 20


def test_an_input_that_crashes_the_process_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    """A crash is the input's fault and names the field; the next question finds a fresh process."""

    async def ask() -> tuple[Inspected, Inspected]:
        return (
            await inspector.inspect(inspection(tmp_path, "crash")),
            await inspector.inspect(inspection(tmp_path, "fine")),
        )

    crashed, fine = asyncio.run(ask())
    assert crashed.plan is None
    assert crashed.error is not None
    assert (crashed.error.code, crashed.error.field) == (3, "dataset.uri")
    assert fine == GOOD


def test_an_input_that_takes_too_long_is_unavailable(inspector: Inspector, tmp_path: Path) -> None:
    """A process that hangs is killed in bounded time; the loop runs on; the next question is answered."""

    async def ask() -> tuple[float, int, Inspected]:
        await inspector.inspect(inspection(tmp_path, "fine"))  # warm
        begin, ticks = time.monotonic(), 0
        question = asyncio.create_task(inspector.inspect(inspection(tmp_path, "hang")))
        while not question.done():
            await asyncio.sleep(0.02)
            ticks += 1
        with pytest.raises(Unavailable, match=r"0\.5 s"):
            question.result()
        return time.monotonic() - begin, ticks, await inspector.inspect(inspection(tmp_path, "fine"))

    seconds, ticks, fine = asyncio.run(ask())
    assert seconds < 2.0
    assert ticks > 5
    assert fine == GOOD


def test_stopping_ends_a_question_that_waits(inspector: Inspector, tmp_path: Path) -> None:
    """`stop` does not wait for a process that hangs, and later questions are refused."""

    async def ask() -> None:
        await inspector.inspect(inspection(tmp_path, "fine"))
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
