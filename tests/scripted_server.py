"""A small gRPC server that misbehaves as a test wrote down beforehand."""

# ruff: noqa: N802 - methods are called as in the proto

import hashlib
import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent import futures
from typing import Any, Self

import grpc
from google.protobuf.empty_pb2 import Empty

from npn.v1 import compression_pb2 as pb
from npn.v1 import compression_pb2_grpc as pb_grpc

TERMINAL = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)
SILENCE = object()
# What one stream of WatchJob does: messages, then a status, silence, or (nothing more) a silent end.
Step = Any


def job(state: int, sequence: int, **fields: Any) -> pb.Job:
    """A job in a state."""
    return pb.Job(name="jobs/1", state=state, done=state in TERMINAL, sequence=sequence, **fields)


def changed(state: int, sequence: int, **fields: Any) -> pb.WatchJobResponse:
    """The event of a state change."""
    return pb.WatchJobResponse(sequence=sequence, job=job(state, sequence, **fields))


def progressed(sequence: int, **fields: Any) -> pb.WatchJobResponse:
    """The event of a progress report."""
    return pb.WatchJobResponse(sequence=sequence, progress=pb.Progress(**fields))


class ScriptedServer(pb_grpc.CompressionServiceServicer):
    """Answers from what the test put into its attributes, and records every request.

    `faults` are statuses to answer a method with first; `streams` the scripts of consecutive watches; `job`
    what GetJob and CreateJob answer, `logs` what GetJobLogs does; `files` what ReadObject serves; `cuts` after
    how many bytes consecutive transfers break.
    """

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.faults: dict[str, deque[grpc.StatusCode]] = defaultdict(deque)
        self.streams: deque[list[Step]] = deque()
        self.job = job(pb.JOB_STATE_QUEUED, 1)
        self.logs = pb.JobLogs()
        self.files: dict[str, bytes] = {}
        self.cuts: deque[int] = deque()
        self.uploads: dict[str, pb.Upload] = {}
        self.stored: dict[str, bytes] = defaultdict(bytes)
        self.stopping = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        pb_grpc.add_CompressionServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopping.set()
        self._server.stop(0).wait()

    def _note(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.requests[method].append(request)
        if self.faults[method]:
            context.abort(self.faults[method].popleft(), f"scripted fault of {method}")

    def _key(self, name: str, path: str) -> str:
        """Where the bytes of an upload's file are: under its name alone where it has one file."""
        return name if len(self.uploads[name].files) == 1 else f"{name}/{path}"

    def GetJobLogs(self, request: Any, context: grpc.ServicerContext) -> pb.JobLogs:
        """The logs of the test."""
        self._note("GetJobLogs", request, context)
        return self.logs

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> pb.ServerInfo:
        """The version tells nothing but that the call went through."""
        self._note("GetServerInfo", request, context)
        return pb.ServerInfo(version="scripted")

    def CreateJob(self, request: Any, context: grpc.ServicerContext) -> pb.Job:
        """The scripted job."""
        self._note("CreateJob", request, context)
        return self.job

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> pb.Job:
        """The scripted job."""
        self._note("GetJob", request, context)
        return self.job

    def CancelJob(self, request: Any, context: grpc.ServicerContext) -> pb.Job:
        """The scripted job, cancelling."""
        self._note("CancelJob", request, context)
        self.job = job(pb.JOB_STATE_CANCELLING, self.job.sequence + 1)
        return self.job

    def DeleteJob(self, request: Any, context: grpc.ServicerContext) -> Empty:
        """Gone."""
        self._note("DeleteJob", request, context)
        return Empty()

    def ListJobs(self, request: Any, context: grpc.ServicerContext) -> pb.ListJobsResponse:
        """Three pages of one job each."""
        self._note("ListJobs", request, context)
        page = int(request.page_token or 1)
        token = str(page + 1) if page < 3 else ""
        return pb.ListJobsResponse(jobs=[pb.Job(name=f"jobs/{page}")], next_page_token=token)

    def WatchJob(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.WatchJobResponse]:
        """The next script."""
        self._note("WatchJob", request, context)
        for step in self.streams.popleft() if self.streams else []:
            if step is SILENCE:
                while context.is_active() and not self.stopping.wait(0.02):
                    pass
            elif isinstance(step, grpc.StatusCode):
                context.abort(step, "scripted end")
            else:
                yield step

    def CreateUpload(self, request: Any, context: grpc.ServicerContext) -> pb.Upload:
        """A new upload, complete at once where the bytes are known."""
        self._note("CreateUpload", request, context)
        upload = pb.Upload(name=f"uploads/{len(self.uploads) + 1}", files=request.files)
        upload.state = pb.UPLOAD_STATE_OPEN
        for file in upload.files:
            file.write_object.max_chunk_bytes = 1000
        known = (done for done in self.uploads.values() if done.object)
        for done in known:
            if [file.sha256 for file in done.files] == [file.sha256 for file in request.files]:
                return done
        self.uploads[upload.name] = upload
        return upload

    def GetUpload(self, request: Any, context: grpc.ServicerContext) -> pb.Upload:
        """What is committed."""
        self._note("GetUpload", request, context)
        upload = self.uploads[request.name]
        for file in upload.files:
            file.committed = len(self.stored[self._key(upload.name, file.path)])
        return upload

    def ListUploads(self, request: Any, context: grpc.ServicerContext) -> pb.ListUploadsResponse:
        """All uploads."""
        self._note("ListUploads", request, context)
        return pb.ListUploadsResponse(uploads=self.uploads.values())

    def WriteObject(self, request_iterator: Any, context: grpc.ServicerContext) -> pb.WriteObjectResponse:
        """Append; break where `cuts` says."""
        first = next(request_iterator)
        self._note("WriteObject", first, context)
        name, room = self._key(first.upload, first.path), self.cuts.popleft() if self.cuts else None
        assert first.offset == len(self.stored[name])
        for request in itertools.chain([first], request_iterator):
            assert len(request.data) <= 1000
            if room is not None and room < len(request.data):
                context.abort(grpc.StatusCode.UNAVAILABLE, "scripted cut")
            self.stored[name] += request.data
            room = None if room is None else room - len(request.data)
        return pb.WriteObjectResponse(committed=len(self.stored[name]))

    def CompleteUpload(self, request: Any, context: grpc.ServicerContext) -> pb.Upload:
        """Checks the hashes."""
        self._note("CompleteUpload", request, context)
        upload = self.uploads[request.name]
        for file in upload.files:
            data = self.stored[self._key(upload.name, file.path)]
            assert hashlib.sha256(data).hexdigest() == file.sha256
        upload.state, upload.object = pb.UPLOAD_STATE_COMPLETE, upload.name.replace("uploads", "objects")
        return upload

    def GetDownload(self, request: Any, context: grpc.ServicerContext) -> pb.Download:
        """Through ReadObject."""
        self._note("GetDownload", request, context)
        return pb.Download(read_object=request.name)

    def ReadObject(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.ReadObjectResponse]:
        """The bytes from an offset; break where `cuts` says."""
        self._note("ReadObject", request, context)
        data = self.files[request.name][request.offset :]
        room = self.cuts.popleft() if self.cuts else len(data)
        for start in range(0, min(room, len(data)), 100):
            yield pb.ReadObjectResponse(data=data[start : min(start + 100, room)])
        if room < len(data):
            context.abort(grpc.StatusCode.UNAVAILABLE, "scripted cut")
