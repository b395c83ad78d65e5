"""A real server that wants tokens: TLS, a token file, an issuer, and an owner with something to lose."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from credentials import AUDIENCE, ISSUER, Authority, Issuer, make_token, write_jwks
from grpc_status import rpc_status
from server_process import ServerProcess, launch_server
from wire import SECONDS, Refusal, Stub, job_on, npz, refusal_of, upload

from npn.v1 import compression_pb2 as pb

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["CompressionService"].methods}
START_SECONDS = 240.0
DATA = npz()
FILE = pb.UploadFile(path="data.npz", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


@dataclass(kw_only=True)
class Guarded:
    """A server that wants tokens, and what its owner "vision" keeps there."""

    server: ServerProcess
    authority: Authority
    ca: bytes
    issuer: Issuer
    tokens_file: Path
    tokens: Mapping[str, str]
    job: str = ""  # SUCCEEDED
    upload: str = ""  # open
    object: str = ""

    def channel(self, token: str | None) -> grpc.Channel:
        """A connection as the holder of a token."""
        secure = grpc.ssl_channel_credentials(self.ca)
        if token is not None:
            secure = grpc.composite_channel_credentials(secure, grpc.access_token_call_credentials(token))
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self.server.address, secure, options=options)

    def stub(self, token: str | None) -> Stub:
        """The service, for the holder of a token."""
        return Stub(self.channel(token))

    def wait_for(self, token: str) -> None:
        """Wait until the server has read a new token."""
        deadline = time.monotonic() + SECONDS
        while isinstance(ask(self.stub(token), "GetServerInfo", pb.GetServerInfoRequest()), Answer):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def guard(folder: Path) -> Iterator[Guarded]:
    """The owner "vision" has a job that SUCCEEDED, an open upload and an object there."""
    authority, issuer = Authority.make(), Issuer()
    cert, key = authority.issue(folder)
    file = folder / "tokens.json"
    tokens = {
        "vision": make_token(file),
        "speech": make_token(file, owner="speech"),
        "reader": make_token(file, scopes="read"),
        "writer": make_token(file, scopes="write"),
        "urgent": make_token(file, scopes="read write priority"),
        "admin": make_token(file, owner="platform", scopes="admin"),
        "expired": make_token(file, days=-1),
    }
    server = launch_server(
        folder / "data",
        folder,
        tls_cert_file=str(cert),
        tls_key_file=str(key),
        tokens_file=str(file),
        oidc_issuer=ISSUER,
        oidc_audience=AUDIENCE,
        oidc_jwks=str(write_jwks(folder / "jwks.json", issuer)),
    )
    server.warm()
    ca = authority.write(folder / "ca.crt").read_bytes()
    guarded = Guarded(
        server=server, authority=authority, ca=ca, issuer=issuer, tokens_file=file, tokens=tokens
    )
    try:
        settle(guarded)
        yield guarded
        assert server.stop() == 0, server.log.read_text()
    finally:
        server.kill()


def settle(guarded: Guarded) -> None:
    """Give the owner "vision" its upload, object and job."""
    stub = guarded.stub(guarded.tokens["vision"])
    guarded.object = upload(stub, DATA)
    guarded.upload = stub.CreateUpload(
        pb.CreateUploadRequest(files=[pb.UploadFile(path="x", size=3, sha256="0" * 64)]), timeout=SECONDS
    ).name
    request = pb.CreateJobRequest(job=job_on(guarded.object))
    guarded.job = stub.CreateJob(request, timeout=START_SECONDS).name  # waits for the inspector to be warm
    for event in stub.WatchJob(pb.WatchJobRequest(name=guarded.job), timeout=START_SECONDS):
        last = event.job.state
    assert last == pb.JOB_STATE_SUCCEEDED


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a call ended: its code and the whole status, as bytes."""

    refusal: Refusal
    status: bytes


def ask(stub: Stub, method: str, request: Any) -> Any:
    """The reply, the list of replies of a stream, or an Answer where the call is refused."""
    messages = iter([request]) if METHODS[method].client_streaming else request
    try:
        reply = getattr(stub, method)(messages, timeout=SECONDS)
        return list(reply) if METHODS[method].server_streaming else reply
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        return Answer(refusal=refusal_of(error), status=b"" if status is None else status.SerializeToString())


def refusal(stub: Stub, method: str, request: Any) -> Refusal:
    """How a call that must be refused is refused."""
    answer = ask(stub, method, request)
    assert isinstance(answer, Answer), f"{method} was answered: {answer}"
    return answer.refusal
