"""What the interface does with jobs, over the store and the objects.  Synchronous; knows no transport.

Creating a job goes: `earlier` (a repeated request gets its job back, whatever became of the dataset),
`inputs`, the inspector, `submit`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from npn_service.errors import InvalidRequest, NotFound, WrongState
from npn_service.storage.copies import LocalCopies
from npn_service.storage.store import ObjectStore

from .garbage import sweep
from .model import (
    ArtifactFile,
    DatasetRef,
    Job,
    JobPlan,
    JobSpec,
    ModelRef,
    State,
    object_id_of,
    object_prefix,
)
from .store import JobStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a job reads, on this host: `dataset` is a file or a folder, `model` a file, or None for a network
    of the catalogue.
    """

    dataset: Path
    model: Path | None


class JobManager:
    """The use cases on jobs; an `owner` of None stands for every owner.

    Thread-safe; every method may block on the database or the disk.
    """

    def __init__(self, store: JobStore, objects: ObjectStore, copies: LocalCopies) -> None:
        self._store = store
        self._objects = objects
        self._copies = copies

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
        plan: JobPlan | None,
        request_id: str,
        request: bytes,
    ) -> Job:
        """Queue a job, or return the one that this `request_id` made already.

        `plan` is None where it could not be learned in time.  An empty `request_id` makes a new job each time.
        Raises as `earlier` does, and InvalidRequest when the dataset or the model is not there any more.
        """
        return self._store.create_job(
            owner=owner,
            creator=creator,
            spec=spec,
            plan=plan,
            request_id=request_id,
            request_hash=_digest(request),
        )

    def delete(self, *, owner: str | None, job_id: str) -> None:
        """Remove a finished job with everything under `jobs/{id}/`.  Raises NotFound, WrongState."""
        self._store.delete_job(owner=owner, job_id=job_id)
        sweep(self._store, self._objects)

    def inputs(self, *, owner: str, spec: JobSpec) -> Inputs:
        """Where the job's dataset and model lie on this host.

        A URI is "objects/{id}", an object of `owner`; a dataset of several files is a folder, a model is one
        file.  Raises InvalidRequest naming job.dataset.uri or job.model.uri for everything else.
        """
        return Inputs(
            dataset=self._dataset(owner, spec.dataset),
            model=self._model(owner, spec.model) if isinstance(spec.model, ModelRef) else None,
        )

    def _dataset(self, owner: str, dataset: DatasetRef) -> Path:
        prefix, paths = self._files(owner, "job.dataset.uri", dataset.uri, "a dataset")
        if len(paths) == 1 and "/" not in paths[0]:
            return self._copies.file(prefix + paths[0])
        return self._copies.folder(prefix, paths)

    def _model(self, owner: str, model: ModelRef) -> Path:
        field = "job.model.uri"
        prefix, paths = self._files(owner, field, model.uri, "a model")
        if len(paths) != 1:
            raise InvalidRequest(field, f"{model.uri} has {len(paths)} files; a model is one .pt2 file")
        return self._copies.file(prefix + paths[0])

    def _files(self, owner: str, field: str, uri: str, kind: str) -> tuple[str, list[str]]:
        """Key prefix and paths of the object that a URI names."""
        object_id = object_id_of(uri)
        if uri.startswith("s3://"):
            raise InvalidRequest(field, "this server has no S3 store; upload the file and give objects/{id}")
        if object_id is None:
            raise InvalidRequest(field, f"{uri!r} is no URI of {kind}; it must look like objects/{{id}}")
        try:
            files = self._store.get_object(owner=owner, object_id=object_id)
        except NotFound as error:
            raise InvalidRequest(field, f"{uri} does not exist; upload the file again") from error
        return object_prefix(owner, object_id), [file.path for file in files]

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
