"""Sequences of calls that hypothesis makes up: create, watch, cancel, delete, upload, in any order and often wrong."""

import contextlib
import hashlib
import io
import math
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test
from wire import SECONDS, Stub, announce, job_on, npz

from npn.v1 import compression_pb2 as pb

from .tally import Tally

STEPS = 25  # of one sequence; each is a call or a few
LABELS = np.arange(120) % 4


def _architecture(name: str, **params: str) -> pb.Model:
    return pb.Model(architecture=pb.Architecture(name=name, params=params))


# Jobs on a good dataset that are refused, each for a reason of its own.
WRONG_JOBS: Mapping[str, Mapping[str, Any]] = {
    "no budget": {"budget": pb.Budget()},
    "expand": {"compress": None, "expand": pb.ExpandTask(awake={"fc9": 3})},
    "infeasible": {"budget": pb.Budget(max_params=1)},
    "unknown": {"model": _architecture("resnet-1000")},
    "unknown parameter": {"model": _architecture("mlp", depth="3")},
    "wrong parameter": {"model": _architecture("mlp", hidden="many")},
    "too large": {"model": _architecture("mlp", hidden="65536,65536,65536")},
    "unfit": {"model": _architecture("lenet5-caffe")},
    "elsewhere": {"dataset": pb.Dataset(uri="s3://bucket/key")},
}


def _archive(member: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", member)
    return file.getvalue()


# Files that are no good, by the reason.
WRONG_DATASETS: Mapping[str, bytes] = {
    "DATASET_NOT_NPZ": _archive("not an array"),
    "DATASET_PICKLED": npz(y_train=np.array([{}] * 120, dtype=object)),
    "DATASET_NAMES": npz(y_test=None),
    "DATASET_SHAPES": npz(y_train=LABELS[:100]),
    "DATASET_DTYPE": npz(y_train=LABELS + 0.5),
    "DATASET_LABELS": npz(y_train=LABELS - 1),
    "DATASET_EMPTY": npz(x_train=np.zeros((0, 8, 8), dtype=np.uint8), y_train=LABELS[:0]),
}
WRONG_MODEL = b"not an archive, whatever its name says"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request that made something, and its name; empty where it was refused."""

    request: Any
    name: str


@dataclass(kw_only=True)
class World:
    """What the sequences act on: the server, a good dataset, the server's limits, and what is counted."""

    stub: Stub
    uri: str
    tally: Tally
    max_queued: int
    max_watches: int
    max_stored: int
    max_files: int


def run_sequences(world: World, requests: int, number: int) -> None:
    """Make up sequences until so many requests are sent; the same `number` gives the same ones."""
    end = world.tally.requests + requests
    while world.tally.requests < end:
        number += 1
        machine = seed(number)(_machine(world, end))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )


def tour(world: World) -> None:
    """One caller who makes every mistake once: short campaigns, too, see every reason."""
    caller = Sequence(world)
    job = caller.make_job(priority=0, named=True)
    caller.make_job_again(job, other=True)
    caller.delete(job)
    caller.watch(job, after=1000)
    caller.watch_too_often(job)
    caller.read_logs(job, attempt=1)
    for kind in WRONG_JOBS:
        caller.make_wrong_job(kind)
    for reason in WRONG_DATASETS:
        caller.use_wrong_dataset(reason)
    caller.use_wrong_model()
    caller.fill_the_queue()
    caller.ask_for_what_was_deleted(job)
    for mistake in ("bytes", "files", "path"):
        caller.begin_wrong_upload(mistake)
    upload = caller.begin_upload(size=100, named=True)
    caller.write(upload, offset=1, size=1)
    caller.complete(upload, fill=False)
    caller.complete(upload, fill=True)
    caller.ask_for_an_upload_that_was_deleted(upload)
    caller.teardown()


def _machine(world: World, end: int) -> Callable[..., "Sequence"]:
    class Bound(Sequence):
        def __init__(self) -> None:
            super().__init__(world, end)

    return Bound


class Sequence(RuleBasedStateMachine):
    """One caller.  Whatever it is answered is counted; what it made is gone at its end."""

    jobs = Bundle("jobs")
    uploads = Bundle("uploads")

    def __init__(self, world: World, end: float = math.inf) -> None:
        super().__init__()
        self.world, self.stub, self._end = world, world.stub, end
        self.made: list[str] = []
        self.begun: list[str] = []

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Count the answer; nothing is sent once there were enough."""
        return None if self.world.tally.requests >= self._end else self.world.tally.call(method, request)

    def create(self, job: pb.Job, *, request_id: str = "", validate_only: bool = False) -> Sent:
        """CreateJob."""
        request = pb.CreateJobRequest(job=job, request_id=request_id, validate_only=validate_only)
        answer = self.call(self.stub.CreateJob, request)
        name = "" if answer is None else answer.name
        if name:
            self.made.append(name)
        return Sent(request=request, name=name)

    def send(self, data: bytes, path: str = "data.npz") -> str:
        """Upload bytes; gives their URI, empty where that was refused."""
        opened = self.call(self.stub.CreateUpload, announce(data, path))
        if opened is None:
            return ""
        if opened.state == pb.UPLOAD_STATE_COMPLETE:
            return str(opened.object)
        self.begun.append(opened.name)
        chunk = pb.WriteObjectRequest(upload=opened.name, path=path, data=data)
        self.call(self._write, chunk)
        done = self.call(self.stub.CompleteUpload, pb.CompleteUploadRequest(name=opened.name))
        return "" if done is None else str(done.object)

    def _write(self, request: pb.WriteObjectRequest, timeout: float) -> Any:
        return self.stub.WriteObject(iter([request]), timeout=timeout)

    @rule(target=jobs, priority=st.integers(-1, 1), named=st.booleans())
    def make_job(self, priority: int, named: bool) -> Sent:
        """A job that is right."""
        return self.create(
            job_on(self.world.uri, priority=priority), request_id=str(uuid.uuid4()) if named else ""
        )

    @rule(job=jobs, other=st.booleans())
    def make_job_again(self, job: Sent, other: bool) -> None:
        """The same request, or another one with its id."""
        again = pb.CreateJobRequest()
        again.CopyFrom(job.request)
        if other:
            again.job.priority += 1
        self.create(again.job, request_id=again.request_id)

    @rule(kind=st.sampled_from(sorted(WRONG_JOBS)))
    def make_wrong_job(self, kind: str) -> None:
        """A job that is refused, checked only."""
        changes = dict(WRONG_JOBS[kind])
        job = job_on(self.world.uri)
        for name, value in changes.items():
            job.ClearField(name)  # type: ignore[arg-type]
            if value is not None:
                job.MergeFrom(pb.Job(**{name: value}))
        self.create(job, validate_only=True)

    @rule(reason=st.sampled_from(sorted(WRONG_DATASETS)))
    def use_wrong_dataset(self, reason: str) -> None:
        """A job on a file that is no dataset."""
        if uri := self.send(WRONG_DATASETS[reason]):
            self.create(job_on(uri), validate_only=True)

    @rule()
    def use_wrong_model(self) -> None:
        """A job on a file that is no network."""
        if uri := self.send(WRONG_MODEL, "net.pt2"):
            plain = pb.Training(preprocessing=pb.Preprocessing(mode="none"))
            job = job_on(self.world.uri, model=pb.Model(uri=uri), training=plain)
            self.create(job, validate_only=True)

    @rule(job=jobs)
    def get_job(self, job: Sent) -> None:
        """GetJob."""
        self.call(self.stub.GetJob, pb.GetJobRequest(name=job.name))

    @rule(job=jobs, attempt=st.sampled_from([0, 1, -1]))
    def read_logs(self, job: Sent, attempt: int) -> None:
        """GetJobLogs."""
        self.call(self.stub.GetJobLogs, pb.GetJobLogsRequest(name=job.name, attempt=attempt))

    @rule(
        size=st.sampled_from([0, 1, 3, -1]), state=st.sampled_from(["", "state = QUEUED", "state = DREAMING"])
    )
    def list_jobs(self, size: int, state: str) -> None:
        """Two pages, the second also by a token that was tampered with."""
        page = self.call(self.stub.ListJobs, pb.ListJobsRequest(page_size=size, filter=state))
        if page is not None and page.next_page_token:
            for token in (page.next_page_token, page.next_page_token[::-1]):
                again = pb.ListJobsRequest(page_size=size, filter=state, page_token=token)
                self.call(self.stub.ListJobs, again)

    @rule(job=jobs, after=st.sampled_from([None, 0, 1, 1000, -1]))
    def watch(self, job: Sent, after: int | None) -> None:
        """The first message of a watch; one that resumes after the newest event would wait for the next."""
        if after != 1 or job.name not in self.made:
            self.call(self.stub.WatchJob, pb.WatchJobRequest(name=job.name, after_sequence=after))

    @rule(job=jobs)
    def watch_too_often(self, job: Sent) -> None:
        """More watches at a time than the server takes."""
        request = pb.WatchJobRequest(name=job.name)
        streams = [self.stub.WatchJob(request, timeout=SECONDS) for _ in range(self.world.max_watches)]
        with contextlib.suppress(grpc.RpcError):  # the job may be gone
            for stream in streams:
                next(stream)
            self.call(self.stub.WatchJob, request)
        for stream in streams:
            stream.cancel()

    @rule(job=jobs)
    def cancel(self, job: Sent) -> None:
        """CancelJob."""
        self.call(self.stub.CancelJob, pb.CancelJobRequest(name=job.name))

    @rule(job=jobs)
    def delete(self, job: Sent) -> None:
        """DeleteJob."""
        self.call(self.stub.DeleteJob, pb.DeleteJobRequest(name=job.name))

    @rule(job=jobs)
    def ask_for_what_was_deleted(self, job: Sent) -> None:
        """A job is stopped and removed; then the request that made it comes again."""
        self.cancel(job)
        self.delete(job)
        self.make_job_again(job, other=False)

    @rule()
    def fill_the_queue(self) -> None:
        """Jobs until the owner may have no more."""
        for _ in range(self.world.max_queued + 1):
            if not self.create(job_on(self.world.uri)).name:
                return

    @rule(target=uploads, size=st.integers(0, 2000), named=st.booleans())
    def begin_upload(self, size: int, named: bool) -> Sent:
        """An upload of one small file of new bytes."""
        request = announce(uuid.uuid4().bytes + bytes(size), "a")
        request.request_id = str(uuid.uuid4()) if named else ""
        answer = self.call(self.stub.CreateUpload, request)
        if answer is not None:
            self.begun.append(answer.name)
        return Sent(request=request, name="" if answer is None else answer.name)

    @rule(upload=uploads)
    def begin_upload_again(self, upload: Sent) -> None:
        """The same request."""
        answer = self.call(self.stub.CreateUpload, upload.request)
        if answer is not None:
            self.begun.append(answer.name)

    @rule(kind=st.sampled_from(["bytes", "files", "path"]))
    def begin_wrong_upload(self, kind: str) -> None:
        """More than the owner, or an upload, may have; a path that leaves its folder."""
        file = pb.UploadFile(path="a", size=self.world.max_stored + 1, sha256=hashlib.sha256().hexdigest())
        if kind == "path":
            file.path, file.size = "../../etc/passwd", 1
        count = self.world.max_files + 1 if kind == "files" else 1
        self.call(self.stub.CreateUpload, pb.CreateUploadRequest(files=[file] * count))

    @rule(upload=uploads, offset=st.sampled_from([0, 1, -1, 1 << 62]), size=st.integers(0, 3000))
    def write(self, upload: Sent, offset: int, size: int) -> None:
        """Bytes at an offset."""
        chunk = pb.WriteObjectRequest(upload=upload.name, path="a", offset=offset, data=bytes(size))
        self.call(self._write, chunk)

    @rule(upload=uploads, fill=st.booleans())
    def complete(self, upload: Sent, fill: bool) -> None:
        """CompleteUpload, of bytes that are not those that were announced."""
        known = self.call(self.stub.GetUpload, pb.GetUploadRequest(name=upload.name))
        if fill and known is not None and known.state == pb.UPLOAD_STATE_OPEN:
            left, at = known.files[0].size - known.files[0].committed, known.files[0].committed
            self.call(
                self._write,
                pb.WriteObjectRequest(upload=upload.name, path="a", offset=at, data=b"\xff" * left),
            )
        self.call(self.stub.CompleteUpload, pb.CompleteUploadRequest(name=upload.name))

    @rule(upload=uploads)
    def delete_upload(self, upload: Sent) -> None:
        """DeleteUpload."""
        self.call(self.stub.DeleteUpload, pb.DeleteUploadRequest(name=upload.name))

    @rule(upload=uploads)
    def ask_for_an_upload_that_was_deleted(self, upload: Sent) -> None:
        """An upload is dropped; then the request that began it comes again."""
        self.delete_upload(upload)
        self.begin_upload_again(upload)

    def teardown(self) -> None:
        """Leave nothing, so that the next caller finds room."""
        for name in dict.fromkeys(self.made):
            with contextlib.suppress(grpc.RpcError):
                self.stub.CancelJob(pb.CancelJobRequest(name=name), timeout=SECONDS)
                self.stub.DeleteJob(pb.DeleteJobRequest(name=name), timeout=SECONDS)
        for name in dict.fromkeys(self.begun):
            with contextlib.suppress(grpc.RpcError):
                self.stub.DeleteUpload(pb.DeleteUploadRequest(name=name), timeout=SECONDS)
