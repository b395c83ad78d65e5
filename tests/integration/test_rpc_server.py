"""The running server over the wire: what does not need a job."""

import hashlib
import json
import urllib.request
import uuid
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_process import ServerProcess
from wire import SECONDS, Stub, connect, npz, refused, upload, write

from npn.v1 import compression_pb2 as pb

METHODS = list(pb.DESCRIPTOR.services_by_name["CompressionService"].methods)


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    """A connection to the shared server."""
    with connect(server.address) as connected:
        yield connected


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_undecodable_bytes_are_an_invalid_argument(server: ServerProcess, method) -> None:  # type: ignore[no-untyped-def]
    """Every RPC answers bytes that are no message by naming what it expected, not with a traceback."""
    with grpc.insecure_channel(server.address) as channel:
        path = f"/npn.v1.CompressionService/{method.name}"
        if method.client_streaming:
            answer = refused(channel.stream_unary(path), iter([b"\xff\xff\xff"]))
        elif method.server_streaming:
            answer = refused(channel.unary_stream(path), b"\xff\xff\xff")
        else:
            answer = refused(channel.unary_unary(path), b"\xff\xff\xff")
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.reason == "UNDECODABLE"
    assert method.input_type.name in answer.message
    assert "Traceback" not in answer.message


def test_messages_over_the_limit_are_refused(stub: Stub) -> None:
    """More than the limit of GetServerInfo is RESOURCE_EXHAUSTED, for single messages and in streams."""
    limit = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=SECONDS).limits.max_message_bytes
    answer = refused(stub.GetJob, pb.GetJobRequest(name="x" * limit))
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = refused(stub.WriteObject, iter([pb.WriteObjectRequest(data=b"x" * limit)]))
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_methods_are_unimplemented(server: ServerProcess) -> None:
    """A newer client hears that the method is not there."""
    with grpc.insecure_channel(server.address) as channel:
        answer = refused(channel.unary_unary("/npn.v1.CompressionService/Dream"), b"")
    assert answer.code is grpc.StatusCode.UNIMPLEMENTED


def test_health_and_reflection_answer(server: ServerProcess) -> None:
    """Probes see SERVING, and tools find the service without its proto file."""
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "npn.v1.CompressionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        (services,) = reflection.ServerReflectionInfo(iter([question]), timeout=SECONDS)
        names = {service.name for service in services.list_services_response.service}
    assert "npn.v1.CompressionService" in names


def test_the_server_describes_itself(stub: Stub) -> None:
    """Version, limits and features are there for clients to adapt to."""
    info = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=SECONDS)
    assert info.version
    assert info.limits.max_message_bytes == 4 << 20
    assert "budget.max_params" in info.features
    assert "disarm" in info.estimators


def test_architectures_come_in_pages(stub: Stub) -> None:
    """Every page but the last has a token, and the pages together are the whole."""
    whole = stub.ListArchitectures(pb.ListArchitecturesRequest(), timeout=SECONDS).architectures
    token, paged = "", []
    while True:
        page = stub.ListArchitectures(
            pb.ListArchitecturesRequest(page_size=1, page_token=token), timeout=SECONDS
        )
        paged += page.architectures
        token = page.next_page_token
        if not token:
            break
    assert paged == list(whole)
    lenet = next(info for info in whole if info.name == "lenet5-caffe")
    assert lenet.dense.params == 431_080
    answer = refused(stub.ListArchitectures, pb.ListArchitecturesRequest(page_token="dreams"))
    assert answer.fields == ("page_token",)


def test_an_upload_resumes_where_it_broke_off(stub: Stub) -> None:
    """What is committed is told, the rest is sent from there, and the same bytes are found again later."""
    data = npz() + uuid.uuid4().bytes
    file = pb.UploadFile(path="a/b.npz", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    opened = stub.CreateUpload(pb.CreateUploadRequest(files=[file]), timeout=SECONDS)
    assert opened.files[0].write_object.max_chunk_bytes > 0
    assert write(stub, opened.name, "a/b.npz", data[:1000]) == 1000
    early = refused(stub.CompleteUpload, pb.CompleteUploadRequest(name=opened.name))
    assert (early.code, early.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_INCOMPLETE")
    found = stub.GetUpload(pb.GetUploadRequest(name=opened.name), timeout=SECONDS)
    assert found.files[0].committed == 1000
    wrong = pb.WriteObjectRequest(upload=opened.name, path="a/b.npz", offset=5, data=b"x")
    assert refused(stub.WriteObject, iter([wrong])).reason == "OFFSET_MISMATCH"
    assert write(stub, opened.name, "a/b.npz", data[1000:], offset=1000) == len(data)
    done = stub.CompleteUpload(pb.CompleteUploadRequest(name=opened.name), timeout=SECONDS)
    assert done.state == pb.UPLOAD_STATE_COMPLETE
    again = stub.CreateUpload(pb.CreateUploadRequest(files=[file]), timeout=SECONDS)
    assert (again.state, again.object) == (pb.UPLOAD_STATE_COMPLETE, done.object)


def test_wrong_bytes_do_not_become_an_object(stub: Stub) -> None:
    """The hash is checked, the file can be sent again, and an upload that is given up is gone."""
    file = pb.UploadFile(path="x", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
    opened = stub.CreateUpload(pb.CreateUploadRequest(files=[file]), timeout=SECONDS)
    write(stub, opened.name, "x", b"abd")
    complete = pb.CompleteUploadRequest(name=opened.name)
    assert refused(stub.CompleteUpload, complete).reason == "HASH_MISMATCH"
    listed = stub.ListUploads(pb.ListUploadsRequest(), timeout=SECONDS).uploads
    assert opened.name in {entry.name for entry in listed}
    stub.DeleteUpload(pb.DeleteUploadRequest(name=opened.name), timeout=SECONDS)
    assert refused(stub.GetUpload, pb.GetUploadRequest(name=opened.name)).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("file", "field"),
    [
        (pb.UploadFile(path="../x", size=1, sha256="0" * 64), "files[0].path"),
        (pb.UploadFile(path="/x", size=1, sha256="0" * 64), "files[0].path"),
        (pb.UploadFile(path="", size=1, sha256="0" * 64), "files[0].path"),
        (pb.UploadFile(path="x", size=-1, sha256="0" * 64), "files[0].size"),
        (pb.UploadFile(path="x", size=1, sha256="0"), "files[0].sha256"),
    ],
)
def test_wrong_files_are_refused_by_field(stub: Stub, file: pb.UploadFile, field: str) -> None:
    """Paths stay inside, sizes and hashes are what they claim."""
    assert refused(stub.CreateUpload, pb.CreateUploadRequest(files=[file])).fields == (field,)


def test_uploads_over_the_limit_are_refused(stub: Stub) -> None:
    """More bytes than the server takes are refused before any is sent."""
    file = pb.UploadFile(path="x", size=1 << 50, sha256="0" * 64)
    answer = refused(stub.CreateUpload, pb.CreateUploadRequest(files=[file]))
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_first_message_of_a_stream_says_where_it_goes(stub: Stub) -> None:
    """An empty stream, a negative offset and a change of mind are refused."""
    data = uuid.uuid4().bytes
    file = pb.UploadFile(path="x", size=16, sha256=hashlib.sha256(data).hexdigest())
    name = stub.CreateUpload(pb.CreateUploadRequest(files=[file]), timeout=SECONDS).name
    assert refused(stub.WriteObject, iter([])).fields == ("upload",)
    negative = pb.WriteObjectRequest(upload=name, path="x", offset=-1)
    assert refused(stub.WriteObject, iter([negative])).fields == ("offset",)
    first = pb.WriteObjectRequest(upload=name, path="x", data=data[:4])
    second = pb.WriteObjectRequest(upload=name, path="y", data=data[4:])
    assert refused(stub.WriteObject, iter([first, second])).fields == ("upload",)


def test_metrics_are_exported(stub: Stub, server: ServerProcess) -> None:
    """Prometheus finds jobs by state, waits, durations, speed, RPC latencies and the process itself."""
    upload(stub, npz())
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    for name in (
        'npn_jobs{state="QUEUED"}',
        "npn_queue_wait_seconds_bucket",
        "npn_job_duration_seconds",
        "npn_training_samples_per_second",
        'npn_rpc_duration_seconds_count{code="OK",method="CompleteUpload"}',
        "process_resident_memory_bytes",
    ):
        assert name in text


def test_logs_are_json_with_the_method(stub: Stub, server: ServerProcess) -> None:
    """A refused call leaves one line with its method, code and the job that it asked for, beside the audit's."""
    name = f"jobs/{uuid.uuid4().hex}"
    refused(stub.GetJob, pb.GetJobRequest(name=name))
    audit, line = sorted(
        (line for line in server.log_lines() if line.get("job") == name), key=lambda line: str(line["logger"])
    )
    assert (line["event"], line["method"], line["code"]) == ("rpc.refused", "GetJob", "NOT_FOUND")
    assert (audit["logger"], audit["owner"], audit["code"]) == ("npn.audit", "local", "NOT_FOUND")
    assert json.dumps(line)
