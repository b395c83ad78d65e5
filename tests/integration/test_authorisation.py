"""Who may do what: every method, asked by everybody who must not, on a real server with TLS, tokens and OIDC."""

import hashlib
import io
import sys
import tempfile
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from credentials import AUDIENCE, ISSUER, Authority, Issuer, make_token, write_jwks
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from server_process import ServerProcess, launch_server
from wire import SECONDS, Refusal, Stub, create, job_on, npz, refusal_of, upload

from npn.v1 import compression_pb2 as pb
from npn_service.access.identity import Scope
from npn_service.access.tokens import TokenFile
from npn_service.rpc.access import SCOPES

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["CompressionService"].methods}
START_SECONDS = 240.0
ROOT = Path(__file__).parents[2]
ABSENT = "0" * 16  # as long as an id
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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One server for the whole matrix; the owner "vision" has a job that SUCCEEDED, an upload and an object."""
    folder = tmp_path_factory.mktemp("guarded")
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


def requests(guarded: Guarded) -> dict[str, tuple[Any, ...]]:
    """What an owner may ask of its own, by method: everything that names a resource."""
    job, upload, data = guarded.job, guarded.upload, guarded.object
    artifact = f"{job}/artifact/report.json"
    model = pb.Model(uri=data)
    return {
        "CreateJob": (
            pb.CreateJobRequest(job=job_on(data)),
            pb.CreateJobRequest(job=job_on(data), validate_only=True),
            pb.CreateJobRequest(job=job_on(data, model=model)),
        ),
        "GetJob": (pb.GetJobRequest(name=job),),
        "WatchJob": (
            pb.WatchJobRequest(name=job),
            pb.WatchJobRequest(name=job, after_sequence=1),
            pb.WatchJobRequest(name=job, after_sequence=10**6),
        ),
        "CancelJob": (pb.CancelJobRequest(name=job),),
        "DeleteJob": (pb.DeleteJobRequest(name=job),),
        "GetUpload": (pb.GetUploadRequest(name=upload),),
        "CompleteUpload": (pb.CompleteUploadRequest(name=upload),),
        "DeleteUpload": (pb.DeleteUploadRequest(name=upload),),
        "GetDownload": (
            pb.GetDownloadRequest(name=artifact),
            pb.GetDownloadRequest(name=f"{job}/artifact/nothing"),
        ),
        "ReadObject": (
            pb.ReadObjectRequest(name=artifact),
            pb.ReadObjectRequest(name=artifact, offset=1 << 40),
        ),
        "WriteObject": (
            pb.WriteObjectRequest(upload=upload, path="x", data=b"abc"),
            pb.WriteObjectRequest(upload=upload, path="y", offset=7),
        ),
    }


# What names no resource: nothing of another owner's can be asked for, what comes back is tested below.
NAMELESS: Mapping[str, Any] = {
    "ListJobs": pb.ListJobsRequest(),
    "ListArchitectures": pb.ListArchitecturesRequest(),
    "GetServerInfo": pb.GetServerInfoRequest(),
    "CreateUpload": pb.CreateUploadRequest(files=[FILE]),
    "ListUploads": pb.ListUploadsRequest(),
}


def test_the_matrix_has_every_method(guarded: Guarded) -> None:
    """A method that is added to the interface is added here, or this fails."""
    assert set(requests(guarded)) | set(NAMELESS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_good_token_nothing_is_answered(guarded: Guarded, method: str) -> None:
    """No token, a wrong one, one that expired, one of another issuer or audience: UNAUTHENTICATED, with why."""
    good = guarded.tokens["vision"]
    refused = {
        None: "TOKEN_MISSING",
        good[:-4] + "AAAA": "TOKEN_INVALID",
        good[:17] + "A" * 43: "TOKEN_INVALID",
        "npn_": "TOKEN_INVALID",
        "hello": "TOKEN_INVALID",
        guarded.tokens["expired"]: "TOKEN_EXPIRED",
        guarded.issuer.sign(exp=time.time() - 600): "TOKEN_EXPIRED",
        guarded.issuer.sign(aud="other"): "TOKEN_INVALID",
        Issuer().sign(): "TOKEN_INVALID",
        Issuer("other").sign(): "TOKEN_INVALID",
    }
    request = requests(guarded).get(method, (NAMELESS.get(method),))[0]
    for token, reason in refused.items():
        answer = refusal(guarded.stub(token), method, request)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason), token
        assert token is None or token not in answer.message


@pytest.mark.parametrize("method", METHODS)
def test_the_wrong_scope_is_not_enough(guarded: Guarded, method: str) -> None:
    """A reader cannot write, a writer cannot read, and the refusal says what is missing."""
    request = requests(guarded).get(method, (NAMELESS.get(method),))[0]
    needed = SCOPES[method]
    holder = "writer" if needed is Scope.READ else "reader"
    scope = "npn:write" if needed is Scope.READ else "npn:read"
    for token in (guarded.tokens[holder], guarded.issuer.sign(scope=scope)):
        answer = refusal(guarded.stub(token), method, request)
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert f"the scope {needed.value}" in answer.message


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(NAMELESS)))
def test_what_is_not_yours_does_not_exist(guarded: Guarded, method: str) -> None:
    """Another owner's job, upload or object gets the very answer, byte by byte, that no resource gets."""
    own = [guarded.job, guarded.upload, guarded.object]
    for stub in (guarded.stub(guarded.tokens["speech"]), guarded.stub(guarded.issuer.sign(sub="speech"))):
        for request in requests(guarded)[method]:
            data = request.SerializeToString()
            for name in own:
                data = data.replace(name.partition("/")[2].encode(), ABSENT.encode())
            other, absent = ask(stub, method, request), ask(stub, method, type(request).FromString(data))
            assert isinstance(other, Answer), f"{method} was answered: {other}"
            wanted = grpc.StatusCode.INVALID_ARGUMENT if method == "CreateJob" else grpc.StatusCode.NOT_FOUND
            assert other.refusal.code is wanted
            status = other.status
            for name in own:
                status = status.replace(name.partition("/")[2].encode(), ABSENT.encode())
            assert status == absent.status


def test_after_the_attacks_all_is_there(guarded: Guarded) -> None:
    """None of the refused calls did anything: the owner finds its resources as they were."""
    stub = guarded.stub(guarded.tokens["vision"])
    assert ask(stub, "GetJob", pb.GetJobRequest(name=guarded.job)).state == pb.JOB_STATE_SUCCEEDED
    found = ask(stub, "GetUpload", pb.GetUploadRequest(name=guarded.upload))
    assert (found.state, found.files[0].committed) == (pb.UPLOAD_STATE_OPEN, 0)
    assert guarded.job in {job.name for job in ask(stub, "ListJobs", pb.ListJobsRequest()).jobs}


def escapes(name: str) -> list[str]:
    """Other ways to write a name, or a path on the server."""
    kind, _, found = name.partition("/")
    return [
        f"{kind}/../{name}",
        f"{kind}/speech/../{found}",
        f"{kind}/vision/{found}",
        f"{kind}/./{found}",
        f"{kind}//{found}",
        f"/{name}",
        f"../{name}",
        f"{name}/",
        f"{name}/..",
        f"{name}%00",
        f"{name}\x00",
        f"{kind}%2f{found}",
        f"{kind}/%2e%2e/{found}",
        f"{kind}/..%2f{found}",
        f"{kind}\\{found}",
        f"{name}?x",
        f"{name}#x",
        f"file:///{name}",
        f"s3://../{name}",
        f"{kind.upper()}/{found}",
        f"{kind}/{found.upper()}x",
        "/etc/passwd",
        "file:///etc/passwd",
        "..",
    ]


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(NAMELESS)))
def test_no_other_spelling_leads_there(guarded: Guarded, method: str) -> None:
    """`..`, encodings, absolute paths and other schemes are refused for the owner and for others alike."""
    for token in ("vision", "speech"):
        stub = guarded.stub(guarded.tokens[token])
        for name in {"CreateJob": guarded.object}.get(method, guarded.job), guarded.upload:
            for escape in escapes(name):
                request = METHODS[method].input_type._concrete_class()
                match method:
                    case "CreateJob":
                        request.job.CopyFrom(job_on(escape))
                    case "WriteObject":
                        request.upload, request.path = escape, "x"
                    case "GetDownload" | "ReadObject":
                        request.name = f"{escape}/artifact/report.json"
                    case _:
                        request.name = escape
                answer = refusal(stub, method, request)
                assert answer.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), escape


@pytest.mark.parametrize("method", ["GetDownload", "ReadObject"])
def test_paths_of_an_artifact_stay_inside(guarded: Guarded, method: str) -> None:
    """An owner reaches the files of its artifact, under the names that the job tells, and nothing beside them."""
    stub = guarded.stub(guarded.tokens["vision"])
    kind = pb.GetDownloadRequest if method == "GetDownload" else pb.ReadObjectRequest
    paths = [
        "../report.json",
        "../1/report.json",
        "./report.json",
        "/report.json",
        "%2e%2e/report.json",
        "..",
        "x\x00",
    ]
    for path in [*paths, "../../../../npn.sqlite", "report.json/", "REPORT.JSON", "report.json%00"]:
        answer = refusal(stub, method, kind(name=f"{guarded.job}/artifact/{path}"))
        assert answer.code is grpc.StatusCode.NOT_FOUND, path


@pytest.mark.parametrize("method", ["ListJobs", "ListUploads"])
def test_page_tokens_belong_to_their_owner(guarded: Guarded, method: str) -> None:
    """A token of the owner's list is none of another's, who sees nothing of the owner's in its own."""
    own = guarded.stub(guarded.tokens["vision"])
    for letter in "ab":
        create(own, job_on(guarded.object, labels={"page": letter}))
        file = pb.UploadFile(path=letter, size=1, sha256=hashlib.sha256(letter.encode()).hexdigest())
        ask(own, "CreateUpload", pb.CreateUploadRequest(files=[file]))
    kind = {"ListJobs": pb.ListJobsRequest, "ListUploads": pb.ListUploadsRequest}[method]
    page = ask(own, method, kind(page_size=1))
    assert ask(own, method, kind(page_size=1, page_token=page.next_page_token))
    other = guarded.stub(guarded.tokens["speech"])
    answer = refusal(other, method, kind(page_size=1, page_token=page.next_page_token))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))
    assert not ask(guarded.stub(guarded.issuer.sign(sub="nobody")), method, kind()).ListFields()


def test_request_ids_belong_to_their_owner(guarded: Guarded) -> None:
    """The same id of another owner makes a resource of its own, and tells nothing of the first."""
    own, other = guarded.stub(guarded.tokens["vision"]), guarded.stub(guarded.tokens["speech"])
    request_id = str(uuid.uuid4())
    first = create(own, job_on(guarded.object), request_id=request_id)
    assert create(own, job_on(guarded.object), request_id=request_id).name == first.name
    answer = refusal(
        other, "CreateJob", pb.CreateJobRequest(job=job_on(guarded.object), request_id=request_id)
    )
    assert answer.fields == ("job.dataset.uri",)
    second = create(other, job_on(upload(other, DATA)), request_id=request_id)
    assert (second.name != first.name, second.owner) == (True, "speech")
    files = [pb.UploadFile(path="r", size=1, sha256="1" * 64)]
    asked = pb.CreateUploadRequest(files=files, request_id=request_id)
    assert ask(own, "CreateUpload", asked).name != ask(other, "CreateUpload", asked).name


def test_bytes_are_found_again_among_ones_own(guarded: Guarded) -> None:
    """Whoever knows a file's hash, but not its bytes, learns nothing and gets nothing."""
    request = pb.CreateUploadRequest(files=[FILE])
    found = ask(guarded.stub(guarded.tokens["vision"]), "CreateUpload", request)
    assert (found.state, found.object) == (pb.UPLOAD_STATE_COMPLETE, guarded.object)
    stranger = guarded.stub(guarded.issuer.sign(sub="stranger"))
    opened = ask(stranger, "CreateUpload", request)
    assert (opened.state, opened.object) == (pb.UPLOAD_STATE_OPEN, "")


def test_an_admin_sees_and_cancels_all(guarded: Guarded) -> None:
    """Jobs of every owner, or of one; to others the filter shows no more than their own."""
    own, admin = guarded.stub(guarded.tokens["vision"]), guarded.stub(guarded.tokens["admin"])
    job = create(own, job_on(guarded.object, training=pb.Training(epochs=10_000)))
    everybody = {job.owner for job in ask(admin, "ListJobs", pb.ListJobsRequest()).jobs}
    assert {"vision", "speech"} <= everybody
    speech = ask(admin, "ListJobs", pb.ListJobsRequest(filter='owner = "speech"')).jobs
    assert {job.owner for job in speech} == {"speech"}
    assert not ask(own, "ListJobs", pb.ListJobsRequest(filter="owner = speech")).jobs
    assert ask(own, "ListJobs", pb.ListJobsRequest(filter="owner = vision")).jobs
    assert ask(admin, "GetJob", pb.GetJobRequest(name=job.name)).creator == "vision-ci"
    assert ask(admin, "GetDownload", pb.GetDownloadRequest(name=f"{guarded.job}/artifact/report.json")).size
    ask(admin, "CancelJob", pb.CancelJobRequest(name=job.name))
    events = ask(admin, "WatchJob", pb.WatchJobRequest(name=job.name))
    assert events[-1].job.state == pb.JOB_STATE_CANCELLED
    ask(admin, "DeleteJob", pb.DeleteJobRequest(name=job.name))
    assert refusal(own, "GetJob", pb.GetJobRequest(name=job.name)).code is grpc.StatusCode.NOT_FOUND


def test_priority_needs_its_scope(guarded: Guarded) -> None:
    """Jumping the queue is a right of its own; stepping back is anybody's."""
    job = job_on(guarded.object, priority=1)
    answer = refusal(guarded.stub(guarded.tokens["vision"]), "CreateJob", pb.CreateJobRequest(job=job))
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert "the scope priority" in answer.message
    assert create(guarded.stub(guarded.tokens["urgent"]), job).priority == 1
    job.priority = -1
    assert create(guarded.stub(guarded.tokens["vision"]), job).priority == -1


def test_a_watch_ends_with_its_token(guarded: Guarded) -> None:
    """A watch that was begun with a token that is revoked ends at its next event or heartbeat."""
    text = make_token(guarded.tokens_file)
    guarded.wait_for(text)
    job = create(
        guarded.stub(guarded.tokens["vision"]), job_on(guarded.object, training=pb.Training(epochs=10_000))
    )
    watch = guarded.stub(text).WatchJob(pb.WatchJobRequest(name=job.name), timeout=SECONDS)
    assert next(watch).job.name == job.name
    TokenFile(guarded.tokens_file).revoke(text.split("_")[1])
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    answer = refusal_of(caught.value)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
    ask(guarded.stub(guarded.tokens["vision"]), "CancelJob", pb.CancelJobRequest(name=job.name))


def lines(guarded: Guarded) -> list[dict[str, object]]:
    """What the server wrote for the audit."""
    return [line for line in guarded.server.log_lines() if line["logger"] == "npn.audit"]


def test_changes_downloads_and_refusals_are_audited(guarded: Guarded) -> None:
    """One line each, with who, what, how it ended and from where; plain reads leave none."""
    stub, name = guarded.stub(guarded.tokens["urgent"]), f"{guarded.job}/artifact/report.json"
    before = len(lines(guarded))
    ask(stub, "GetJob", pb.GetJobRequest(name=guarded.job))
    ask(stub, "ReadObject", pb.ReadObjectRequest(name=name))
    ask(stub, "GetJob", pb.GetJobRequest(name=f"jobs/{ABSENT}"))
    ask(stub, "WriteObject", pb.WriteObjectRequest(upload=guarded.upload, path="y"))
    created = create(stub, job_on(guarded.object))
    ask(guarded.stub(None), "GetJob", pb.GetJobRequest(name=guarded.job))
    read, missing, written, made, nobody = lines(guarded)[before:]
    token_id = guarded.tokens["urgent"].split("_")[1]
    for line in (read, missing, written, made):
        assert (line["owner"], line["subject"], line["token"]) == ("vision", "vision-ci", token_id)
        assert str(line["peer"]).startswith("ipv4:127.0.0.1:")
        assert line["timestamp"]
    assert (read["method"], read["resource"], read["code"]) == ("ReadObject", name, "OK")
    assert (missing["resource"], missing["code"], missing["reason"]) == (
        f"jobs/{ABSENT}",
        "NOT_FOUND",
        "NOT_FOUND",
    )
    assert (written["resource"], written["code"]) == (guarded.upload, "INVALID_ARGUMENT")
    assert (made["method"], made["resource"], made["code"]) == ("CreateJob", created.name, "OK")
    assert (nobody["owner"], nobody["code"], nobody["reason"]) == ("", "UNAUTHENTICATED", "TOKEN_MISSING")


def test_health_is_for_all_and_reflection_is_not(guarded: Guarded) -> None:
    """A probe needs no token; who wants to know the interface does."""
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    def reflect(token: str | None) -> Any:
        stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel(token))
        return list(stub.ServerReflectionInfo(iter([question]), timeout=SECONDS))

    for token in (None, guarded.tokens["expired"]):
        with pytest.raises(grpc.RpcError) as caught:
            reflect(token)
        assert refusal_of(caught.value).code is grpc.StatusCode.UNAUTHENTICATED
    assert reflect(guarded.tokens["reader"])
    health = health_pb2_grpc.HealthStub(guarded.channel(None))
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_artifact_tells_nothing_of_the_server(guarded: Guarded) -> None:
    """No file of it, unpacked, holds a path of the machine that made it, or who asked for it."""
    stub = guarded.stub(guarded.tokens["vision"])
    files = ask(stub, "GetJob", pb.GetJobRequest(name=guarded.job)).result.files
    paths = [
        str(guarded.server.data_dir),
        sys.prefix,
        sys.base_prefix,
        str(ROOT),
        tempfile.gettempdir() + "/",
    ]
    assert "model.pt2" in {file.path for file in files}
    for file in files:
        data = b"".join(part.data for part in ask(stub, "ReadObject", pb.ReadObjectRequest(name=file.name)))
        contents = {file.path: data}
        if file.path == "model.pt2":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                contents |= {name: archive.read(name) for name in archive.namelist()}
        for name, content in contents.items():
            found = [path for path in (*paths, ".py", "vision-ci") if path.encode() in content]
            assert not found, f"{name} of {file.path} holds {found}"


def test_no_secret_is_left_behind(guarded: Guarded) -> None:
    """No token that was used, good or bad, is in the log, in the metrics or in anything that is stored."""
    secrets = [token.split("_", 2)[2] for token in guarded.tokens.values()]
    secrets += [part for token in guarded.issuer.signed for part in token.split(".")[1:]]
    with urllib.request.urlopen(
        f"http://{guarded.server.metrics_address}/metrics", timeout=SECONDS
    ) as answer:
        places = {"metrics": answer.read()}
    folder = guarded.server.log.parent
    places |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert str(guarded.server.log) in places
    assert len(guarded.issuer.signed) > 50
    for name, content in places.items():
        assert not [secret for secret in secrets if secret.encode() in content], name
