"""What a job reads from outside of the service, as recorded when it was created."""

import pytest
from job_samples import PLAN, SPEC, lease

from npn_service.errors import LostLease
from npn_service.jobs.model import Job
from npn_service.jobs.store import JobStore
from npn_service.storage.sources import Source

SHARDS = (
    Source(uri="s3://data/train-0.parquet", size=5 << 30, etag="e0"),
    Source(uri="s3://data/train-1.parquet", size=1, etag="e1-2", version_id="v7"),
)
MODEL = (Source(uri="s3://models/net.pt2", size=0, etag="e2"),)
HASH = "a" * 64


def create(store: JobStore) -> Job:
    """A job on two shards and a model of its own."""
    sources = {"job.dataset.uri": SHARDS, "job.model.uri": MODEL}
    return store.create_job(
        owner="local", creator="me", spec=SPEC, plan=PLAN, request_id="", request_hash="", sources=sources
    )


def test_sources_are_kept(store: JobStore) -> None:
    """Every object with its size and version, under the field that names it; other jobs have none of them."""
    job = create(store)
    assert store.get_sources(job_id=job.id) == {"job.dataset.uri": [*SHARDS], "job.model.uri": [*MODEL]}
    other = store.create_job(
        owner="local", creator="me", spec=SPEC, plan=PLAN, request_id="", request_hash=""
    )
    assert store.get_sources(job_id=other.id) == {}


def test_hashes_are_noted_once(store: JobStore) -> None:
    """The first attempt that reads an object notes its hash, and none changes it; a lost one notes nothing."""
    job = create(store)
    with pytest.raises(LostLease):
        store.record_hashes(job_id=job.id, attempt=1, hashes={SHARDS[0].uri: HASH})
    lease(store)
    store.record_hashes(job_id=job.id, attempt=1, hashes={SHARDS[0].uri: HASH})
    store.record_hashes(job_id=job.id, attempt=1, hashes={SHARDS[0].uri: "b" * 64, MODEL[0].uri: HASH})
    found = store.get_sources(job_id=job.id)
    assert [source.sha256 for source in found["job.dataset.uri"]] == [HASH, ""]
    assert [source.sha256 for source in found["job.model.uri"]] == [HASH]


def test_sources_go_with_the_job(store: JobStore) -> None:
    """A deleted job leaves none behind."""
    job = create(store)
    store.cancel_job(owner="local", job_id=job.id)
    store.delete_job(owner="local", job_id=job.id)
    assert store.get_sources(job_id=job.id) == {}
