"""What tests need to speak to a running server without the SDK."""

import hashlib
import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from npn.v1 import compression_pb2 as pb
from npn.v1 import compression_pb2_grpc

SECONDS = 120.0  # of a call: the machine may be busy, and an inspector imports torch first

Stub = compression_pb2_grpc.CompressionServiceStub


@contextmanager
def connect(address: str) -> Iterator[Stub]:
    """A stub on a channel of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield Stub(channel)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """What a refused call says; `retry_seconds` is 0 where it gives no RetryInfo."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: tuple[str, ...]
    retry_seconds: float
    numbers: dict[str, str]


def refusal_of(error: grpc.RpcError) -> Refusal:
    """The status with its details; empty ones where the transport itself refused."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        assert any(detail.Unpack(known) for known in (info, bad, retry, quota))
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        fields=tuple(violation.field for violation in bad.field_violations),
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds(),
        numbers=dict(info.metadata),
    )


def refused(call: Callable[..., Any], request: Any) -> Refusal:
    """How a call that must be refused is refused; reads a stream to its end."""

    def ask() -> None:
        answer = call(request, timeout=SECONDS)
        if isinstance(answer, grpc.Call):  # a stream
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return refusal_of(caught.value)


def npz(**arrays: np.ndarray) -> bytes:
    """A small dataset of 8x8 images in 4 classes; given arrays replace its own, None drops one."""
    random = np.random.default_rng(0)
    own: dict[str, Any] = {}
    for split, size in (("train", 120), ("test", 40)):
        own[f"x_{split}"] = random.integers(0, 256, (size, 8, 8), dtype=np.uint8)
        own[f"y_{split}"] = np.arange(size) % 4
    own |= arrays
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in own.items() if array is not None})
    return file.getvalue()


def announce(data: bytes, path: str = "data.npz") -> pb.CreateUploadRequest:
    """The begin of an upload of one file."""
    file = pb.UploadFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return pb.CreateUploadRequest(files=[file])


def upload(stub: Stub, data: bytes, path: str = "data.npz") -> str:
    """Store bytes and give their URI."""
    opened = stub.CreateUpload(announce(data, path), timeout=SECONDS)
    if opened.state == pb.UPLOAD_STATE_COMPLETE:
        return opened.object
    write(stub, opened.name, path, data)
    return stub.CompleteUpload(pb.CompleteUploadRequest(name=opened.name), timeout=SECONDS).object


def write(stub: Stub, name: str, path: str, data: bytes, offset: int = 0, chunk: int = 1 << 16) -> int:
    """Send bytes of one file; returns what is committed then."""

    def messages() -> Iterator[pb.WriteObjectRequest]:
        yield pb.WriteObjectRequest(upload=name, path=path, offset=offset, data=data[:chunk])
        for start in range(chunk, len(data), chunk):
            yield pb.WriteObjectRequest(data=data[start : start + chunk])

    return stub.WriteObject(messages(), timeout=SECONDS).committed


def job_on(uri: str, **changes: Any) -> pb.Job:
    """A small job that trains for seconds; `changes` replace whole fields."""
    fields: dict[str, Any] = {
        "compress": pb.CompressTask(),
        "model": pb.Model(architecture=pb.Architecture(name="mlp", params={"hidden": "16,8"})),
        "dataset": pb.Dataset(uri=uri),
        "budget": pb.Budget(max_params=800),
        "training": pb.Training(epochs=2, batch_size=32),
    }
    return pb.Job(**fields | changes)


def create(stub: Stub, job: pb.Job, **request: Any) -> pb.Job:
    """CreateJob under a request id of its own."""
    request.setdefault("request_id", str(uuid.uuid4()))
    return stub.CreateJob(pb.CreateJobRequest(job=job, **request), timeout=SECONDS)
