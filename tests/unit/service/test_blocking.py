"""blocking.py: the bounded threads."""

import asyncio
import contextvars
import threading

import pytest

from npn_service.blocking import BlockingPool

CALLER = contextvars.ContextVar("CALLER", default="nobody")


def test_no_more_than_the_bound_run_at_once() -> None:
    """The third call of two threads waits for one of them."""
    gate, running = threading.Event(), threading.Semaphore(0)

    def call() -> None:
        running.release()
        gate.wait(10)

    async def scenario() -> int:
        pool = BlockingPool(2)
        calls = [asyncio.create_task(pool.run(call)) for _ in range(3)]
        await asyncio.sleep(0.1)
        started = sum(running.acquire(blocking=False) for _ in calls)
        gate.set()
        await asyncio.gather(*calls)
        pool.close()
        return started

    assert asyncio.run(scenario()) == 2


def test_a_call_keeps_its_context_and_its_exception() -> None:
    """Context variables go into the thread, exceptions come back."""

    async def scenario() -> str:
        pool = BlockingPool(1)
        CALLER.set("me")
        who = await pool.run(CALLER.get)
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 / 0)
        pool.close()
        return who

    assert asyncio.run(scenario()) == "me"
