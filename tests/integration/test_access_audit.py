"""What a guarded server writes down, what it never does, and who is let in beside the service."""

import io
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import grpc
import pytest
from credentials import make_token
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from guarded_server import Guarded, ask
from wire import SECONDS, create, job_on, refusal_of

from npn.v1 import compression_pb2 as pb
from npn_service.access.tokens import TokenFile

ROOT = Path(__file__).parents[2]
ABSENT = "0" * 16


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
    own = guarded.tokens["vision"]
    for token in (own, own[:-4] + "AAAA", guarded.issuer.sign(), guarded.issuer.sign(aud="other")):
        ask(guarded.stub(token), "GetJob", pb.GetJobRequest(name=guarded.job))
    secrets = [token.split("_", 2)[2] for token in guarded.tokens.values()]
    secrets += [part for token in guarded.issuer.signed for part in token.split(".")[1:]]
    with urllib.request.urlopen(
        f"http://{guarded.server.metrics_address}/metrics", timeout=SECONDS
    ) as answer:
        places = {"metrics": answer.read()}
    folder = guarded.server.log.parent
    places |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert str(guarded.server.log) in places
    for name, content in places.items():
        assert not [secret for secret in secrets if secret.encode() in content], name
