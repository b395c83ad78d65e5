"""The lease keeper over a real store."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_samples import create, lease

from npn_service.errors import LostLease
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import State
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.worker.leases import Lease, LeaseKeeper


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlJobStore]:
    """An embedded database."""
    url = f"sqlite:///{tmp_path / 'npn.sqlite'}"
    migrate(url)
    opened = SqlJobStore(url)
    yield opened
    opened.close()


def wait_for_loss(held: Lease) -> str:
    """What the lease says when it is lost."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            held.check()
        except LostLease as lost:
            return lost.message
        time.sleep(0.02)
    raise AssertionError("the lease was not lost")


def test_a_lease_is_kept_and_tells_of_a_cancel(store: SqlJobStore) -> None:
    """A job that runs for longer than its lease stays its attempt's, which hears that it is to stop."""
    create(store)
    keeper = LeaseKeeper(store, 6.0)
    held = keeper.hold(lease(store, seconds=6.0), since=time.monotonic())
    keeper.start()
    time.sleep(7.0)
    assert store.expire_leases() == []
    assert held.check() is State.RUNNING
    store.cancel_job(owner="local", job_id=held.job.id)
    keeper.wake()
    deadline = time.monotonic() + 30
    while held.check() is not State.CANCELLING:
        assert time.monotonic() < deadline
    keeper.stop()


def test_a_lease_that_another_took_is_lost(store: SqlJobStore) -> None:
    """What the database says is final, however much time there is left."""
    create(store)
    keeper = LeaseKeeper(store, 60.0)
    held = keeper.hold(lease(store), since=time.monotonic())
    keeper.start()
    store.release_job(job_id=held.job.id, attempt=1, cause="x", counts=False)
    assert "does not hold" in wait_for_loss(held)
    keeper.stop()


def test_a_lease_that_is_not_renewed_ends_before_it_passes(store: SqlJobStore) -> None:
    """An attempt whose store is out of reach stops while the job is still its own."""
    create(store)
    since = time.monotonic()
    held = LeaseKeeper(store, 8.0).hold(lease(store, seconds=8.0), since=since)  # nobody renews it
    assert held.check() is State.RUNNING
    time.sleep(5.6)
    with pytest.raises(LostLease, match="out of reach"):
        held.check()
    held.renewed(State.RUNNING, since=time.monotonic())
    with pytest.raises(LostLease):
        held.check()


def test_what_is_dropped_is_not_renewed(store: SqlJobStore) -> None:
    """After its attempt a lease runs out by itself."""
    create(store)
    keeper = LeaseKeeper(store, 60.0)
    keeper.start()
    held = keeper.hold(lease(store, seconds=1.0), since=time.monotonic())
    keeper.drop(held)
    deadline = time.monotonic() + 30
    while not store.expire_leases():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    keeper.stop()
