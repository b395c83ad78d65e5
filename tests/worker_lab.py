"""A dispatcher's surroundings: a real database, a real object store, one dataset."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from job_samples import PLAN, SPEC

from npn_core.progress import Progress
from npn_service.errors import ServiceError
from npn_service.jobs.inputs import JobInputs
from npn_service.jobs.manager import JobManager
from npn_service.jobs.migrations import migrate
from npn_service.jobs.model import DatasetRef, FileSpec, Job, JobPlan, State
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.jobs.uploads import UploadLimits, UploadManager
from npn_service.storage.cache import Cache
from npn_service.storage.local import LocalObjectStore
from npn_service.storage.s3_client import S3Settings
from npn_service.storage.sources import S3Sources
from npn_service.worker.dispatcher import Dispatcher

TESTS = Path(__file__).parent
OWNER = "local"


@dataclass
class Observed:
    """Everything that a dispatcher told its observer."""

    queued: list[float] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    progress: int = 0
    checkpoints: list[str] = field(default_factory=list)

    def job_leased(self, job: Job, *, queued_seconds: float) -> None:
        """Remember."""
        self.queued.append(queued_seconds)

    def job_ended(self, *, outcome: str, seconds: float) -> None:
        """Remember."""
        self.outcomes.append(outcome)

    def progress_made(self, job: Job, progress: Progress) -> None:
        """Count."""
        self.progress += 1

    def checkpoint_tried(self, *, outcome: str, seconds: float, size: int) -> None:
        """Remember."""
        self.checkpoints.append(outcome)


class Lab:
    """A store, an object store with one dataset, and dispatchers over them."""

    def __init__(self, folder: Path, *, s3: S3Settings | None = None) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        url = f"sqlite:///{folder / 'npn.sqlite'}"
        migrate(url)
        self.store = SqlJobStore(url)
        self.objects = LocalObjectStore(folder / "objects")
        self.cache = Cache(folder / "cache", max_bytes=1 << 30)
        self.s3 = s3
        self.sources = None if s3 is None else S3Sources(s3)
        self.inputs = JobInputs(self.store, self.objects, self.cache, self.sources)
        self.manager = JobManager(self.store, self.objects)
        self.observed = Observed()
        self.dispatchers: list[Dispatcher] = []
        self.created: list[Job] = []
        self.dataset = self.upload(b"the dataset")

    def upload(self, data: bytes) -> DatasetRef:
        """Store a dataset of these bytes."""
        uploads = UploadManager(self.store, self.objects, UploadLimits())
        file = FileSpec(path="data.npz", size=len(data), sha256=sha256(data).hexdigest())
        upload = uploads.create(owner=OWNER, files=[file], request_id="")
        uploads.append(owner=OWNER, upload_id=upload.id, path=file.path, offset=0, data=data)
        complete = uploads.complete(owner=OWNER, upload_id=upload.id)
        return DatasetRef(uri=f"objects/{complete.object_id}")

    def dispatcher(self, *, workers: int = 1, start: bool = True, **settings: Any) -> Dispatcher:
        """A dispatcher of scripted workers."""
        made = Dispatcher(
            **{
                "store": self.store,
                "objects": self.objects,
                "inputs": self.inputs,
                "observer": self.observed,
                "workers": workers,
                "folder": self.folder / "scratch",
                "host": "here",
                "target": "worker_scripts:run",
                **settings,
            }
        )
        self.dispatchers.append(made)
        if start:
            made.start()
        return made

    def create(self, script: str, *, plan: JobPlan | None = PLAN, **changes: Any) -> Job:
        """Queue a job that runs `script`, and wake the dispatchers."""
        spec = replace(SPEC, **{"labels": {"script": script}, "dataset": self.dataset, **changes})
        job = self.store.create_job(
            owner=OWNER, creator=OWNER, spec=spec, plan=plan, request_id="", request_hash=""
        )
        self.created.append(job)
        self.wake()
        return job

    def wake(self) -> None:
        """Have every dispatcher look at the jobs."""
        for dispatcher in self.dispatchers:
            dispatcher.wake()

    def get(self, job: Job) -> Job:
        """The job now."""
        return self.store.get_job(owner=OWNER, job_id=job.id)

    def wait(
        self, job: Job, until: Callable[[Job], bool] = lambda job: job.state.done, *, seconds: float = 60.0
    ) -> Job:
        """Poll until the job is as wanted."""
        wait_until(lambda: until(self.get(job)), seconds=seconds, why=lambda: str(self.get(job)))
        return self.get(job)

    def wait_reported(self, job: Job) -> Job:
        """The job once its worker has begun with the script."""
        return self.wait(job, lambda job: job.state is State.RUNNING and job.progress is not None)

    def facts(self, job: Job) -> dict[str, Any]:
        """What the worker wrote into the artifact."""
        return dict(json.loads(b"".join(self.objects.read(job.attempt_prefix + "facts.json"))))

    def close(self) -> None:
        """Leave no process; cancelled jobs let go of theirs sooner than a drain waits for a checkpoint."""
        for job in self.created:
            with suppress(ServiceError):
                self.store.cancel_job(owner=OWNER, job_id=job.id)
        self.wake()
        for dispatcher in self.dispatchers:
            dispatcher.drain()
        self.store.close()


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0, why: Callable[[], str] = str) -> None:
    """Poll; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.02)


def worker_pids(parent: int | None = None) -> set[int]:
    """Live processes that `parent` (this one by default) started as workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if state != "Z" and int(ppid) == (parent or os.getpid()) and b"worker.process" in command:
                found.add(int(entry.name))
    return found


def busy_worker() -> int:
    """The process that runs a job: idle ones have one thread."""
    (busy,) = [pid for pid in worker_pids() if len(list(Path(f"/proc/{pid}/task").iterdir())) > 1]
    return busy


def alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
