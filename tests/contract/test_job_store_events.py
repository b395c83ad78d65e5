"""Events: what watchers read, over every JobStore."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from job_samples import RESULT, create, lease, progress_at

from npn_service.errors import EventsExpired
from npn_service.jobs.store import JobStore


def test_events_tell_the_whole_life_in_order(store: JobStore) -> None:
    """Numbers have no gaps; state changes hold the whole job as it was; progress lies between them."""
    created = create(store)
    leased = lease(store)
    store.record_progress(job_id=created.id, attempt=1, progress=progress_at(1))
    store.record_progress(job_id=created.id, attempt=1, progress=progress_at(2))
    ended = store.finish_job(job_id=created.id, attempt=1, result=RESULT)
    events = store.events_after(owner="local", job_id=created.id, sequence=0)
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert [event.job for event in events] == [created, leased, None, None, ended]
    assert [event.progress for event in events] == [None, None, progress_at(1), progress_at(2), None]
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert ended.progress == progress_at(2)
    assert ended.sequence == 5


def test_a_reader_beside_the_writer_misses_nothing(store: JobStore) -> None:
    """Polled while they are written, events still come in order, each once."""
    job = create(store)

    def write() -> None:
        lease(store)
        for step in range(20):
            store.record_progress(job_id=job.id, attempt=1, progress=progress_at(step))
        store.finish_job(job_id=job.id, attempt=1, result=RESULT)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen: list[int] = []
        done = False
        while not done:
            for event in store.events_after(owner="local", job_id=job.id, sequence=len(seen), limit=3):
                seen.append(event.sequence)
                done = event.job is not None and event.job.state.done
            if writing.done():
                writing.result()
    assert seen == list(range(1, 24))


def test_events_resume_after_a_number(store: JobStore) -> None:
    """A reader gets what is new, in pieces if it likes, and nothing when there is nothing new."""
    job = create(store)
    lease(store)
    store.cancel_job(owner="local", job_id=job.id)

    def numbers(sequence: int, limit: int = 100) -> list[int]:
        events = store.events_after(owner="local", job_id=job.id, sequence=sequence, limit=limit)
        return [event.sequence for event in events]

    assert numbers(1) == [2, 3]
    assert numbers(0, limit=2) == [1, 2]
    assert numbers(3) == []


def test_coalesced_events_leave_out_old_progress(store: JobStore) -> None:
    """Every state change, and progress only where it is the newest of all."""
    job = create(store)
    lease(store)

    def numbers(sequence: int) -> list[int]:
        events = store.events_after(owner="local", job_id=job.id, sequence=sequence, coalesced=True)
        return [event.sequence for event in events]

    for step in range(1, 4):  # events 3 to 5
        store.record_progress(job_id=job.id, attempt=1, progress=progress_at(step))
    assert numbers(0) == [1, 2, 5]
    assert numbers(4) == [5]
    store.cancel_job(owner="local", job_id=job.id)
    assert numbers(0) == [1, 2, 6]


def test_newest_numbers_of_many_jobs(store: JobStore) -> None:
    """One query tells which jobs have news; a job that is not there is left out."""
    first, second = create(store), create(store)
    lease(store)
    assert store.newest_sequences([first.id, second.id, "none"]) == {first.id: 2, second.id: 1}
    assert store.newest_sequences([]) == {}


def test_progress_of_one_second_is_one_event(open_store: Callable[..., JobStore]) -> None:
    """Progress that comes faster shows in the job and in the next state change, without an event."""
    store = open_store(progress_interval=3600.0)
    job = create(store)
    lease(store)
    for step in range(1, 6):
        store.record_progress(job_id=job.id, attempt=1, progress=progress_at(step))
    assert store.get_job(owner="local", job_id=job.id).progress == progress_at(5)
    store.cancel_job(owner="local", job_id=job.id)
    events = store.events_after(owner="local", job_id=job.id, sequence=2)
    assert [event.progress for event in events] == [progress_at(1), None]
    assert events[-1].job is not None
    assert events[-1].job.progress == progress_at(5)


def test_old_events_expire_and_say_so(open_store: Callable[..., JobStore]) -> None:
    """A reader gets every event after its number, or hears that they are gone; never a part."""
    store = open_store(kept_events=4)
    job = create(store)
    lease(store)
    for step in range(8):  # events 3 to 10, of which 7 to 10 are kept
        store.record_progress(job_id=job.id, attempt=1, progress=progress_at(step))
    events = store.events_after(owner="local", job_id=job.id, sequence=6)
    assert [event.sequence for event in events] == [7, 8, 9, 10]
    for gone in (-1, 0, 5):
        with pytest.raises(EventsExpired):
            store.events_after(owner="local", job_id=job.id, sequence=gone)


def test_a_number_that_was_never_given_out_has_expired(store: JobStore) -> None:
    """A number from the future tells of another history: the reader begins anew."""
    job = create(store)
    with pytest.raises(EventsExpired):
        store.events_after(owner="local", job_id=job.id, sequence=2)
