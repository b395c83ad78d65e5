"""What the interface does with jobs, over the store and the objects.  Synchronous; knows no transport.

Creating a job goes: `earlier` (a repeated request gets its job back, whatever became of the dataset),
`JobInputs.find` and `hold`, the inspector, `submit`.
"""

import hashlib
from collections.abc import Mapping, Sequence

from npn_service.errors import NotFound, WrongState
from npn_service.storage.sources import Source
from npn_service.storage.store import ObjectStore

from .garbage import sweep
from .model import ArtifactFile, Job, JobPlan, JobSpec, State
from .store import JobStore


class JobManager:
    """The use cases on jobs; an `owner` of None stands for every owner.

    Thread-safe; every method may block on the database or the disk.
    """

    def __init__(self, store: JobStore, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def earlier(self, *, owner: str, request_id: str, request: bytes) -> Job | None:
        """The job that an earlier call with this `request_id` made, or None.

        `request` is the request as it was sent, in one canonical form, before defaults are filled in: a
        repeated request stays the same request when a later version has other defaults.  Raises
        AlreadyExists when the id belongs to another request, WrongState (JOB_DELETED) when its job is gone.
        """
        return self._store.find_request(owner=owner, request_id=request_id, request_hash=_digest(request))

    def submit(
        self,
        *,
        owner: str,
        creator: str,
        spec: JobSpec,
        sources: Mapping[str, Sequence[Source]],
        plan: JobPlan | None,
        request_id: str,
        request: bytes,
    ) -> Job:
        """Queue a job, or return the one that this `request_id` made already.

        `sources` are what `JobInputs.find` found.  `plan` is None where it could not be learned in time.  An empty
        `request_id` makes a new job each time.
        Raises as `earlier` does, and InvalidRequest when the dataset or the model is not there any more.
        """
        return self._store.create_job(
            owner=owner,
            creator=creator,
            spec=spec,
            sources=sources,
            plan=plan,
            request_id=request_id,
            request_hash=_digest(request),
        )

    def delete(self, *, owner: str | None, job_id: str) -> None:
        """Remove a finished job with everything under `jobs/{id}/`.  Raises NotFound, WrongState."""
        self._store.delete_job(owner=owner, job_id=job_id)
        sweep(self._store, self._objects, below=f"jobs/{job_id}/")

    def artifact_file(self, *, owner: str | None, job_id: str, path: str) -> tuple[str, ArtifactFile]:
        """The key and the description of one file of a job's artifact.

        Raises NotFound for a job or a path that does not exist, WrongState before the job SUCCEEDED.
        """
        job = self._store.get_job(owner=owner, job_id=job_id)
        if job.state is not State.SUCCEEDED or job.result is None:
            raise WrongState(f"{job.name} is {job.state.name}; only a job that SUCCEEDED has an artifact")
        for file in job.result.files:
            if file.path == path:
                return job.attempt_prefix + path, file
        raise NotFound(f"{job.name} has no artifact file {path!r}")


def _digest(request: bytes) -> str:
    return hashlib.sha256(request).hexdigest()
