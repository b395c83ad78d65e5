"""Who may do what: every method, asked by everybody who must not, on a real server with TLS, tokens and OIDC."""

import hashlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from credentials import Issuer
from guarded_server import DATA, FILE, METHODS, Answer, Guarded, ask, refusal
from wire import create, job_on, upload

from npn.v1 import compression_pb2 as pb
from npn_service.access.identity import Scope
from npn_service.rpc.access import SCOPES

ABSENT = "0" * 16  # as long as an id


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
        "GetJobLogs": (pb.GetJobLogsRequest(name=job), pb.GetJobLogsRequest(name=job, attempt=1)),
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
