"""The `npn` command against a real gRPC server that does as it is told."""

import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from scripted_server import SILENCE, ScriptedServer, changed, job, progressed

from npn.v1 import compression_pb2 as pb
from npn_client.cli import main

MODEL = pb.Model(architecture=pb.Architecture(name="mlp", params={"hidden": "30,10"}))
FILES = {
    "model.pt2": b"abc",
    "architecture.json": b"""{"groups": [{"name": "fc1", "size": 30, "kept": [2, 7]}],
        "sparse": [{"name": "fc2.weight", "shape": [10, 30], "kept": 12}]}""",
}
RESULT = pb.Result(
    dense=pb.Cost(params=1000, macs=900, bytes=4000),
    compact=pb.Cost(params=100, macs=90, bytes=400),
    metrics=[
        pb.Metric(name="dense_test_accuracy", value=0.97, low=0.96, high=0.98),
        pb.Metric(name="compact_test_accuracy", value=0.9612, low=0.95, high=0.97),
    ],
    files=[
        pb.ArtifactFile(name=path, path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in FILES.items()
    ],
)
PROGRESS: dict[str, Any] = {
    "step": 10,
    "steps": 40,
    "epoch": 1,
    "epochs": 4,
    "stage": pb.STAGE_PLASTIC,
    "k": 2.5,
    "loss": 0.25,
    "costs": [pb.CostProgress(kind="params", expected=512.4, hard=500, budget=100)],
    "groups": [pb.GroupProgress(name="fc1", size=30, active=12)],
    "samples_per_second": 1234,
}
COMPRESS = ["compress", "mlp", "--dataset", "objects/1", "--max-params", "100"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A server that NPN_SERVER names, with a job that is about to succeed."""
    with ScriptedServer() as server:
        monkeypatch.setenv("NPN_SERVER", server.address)
        server.job = job(pb.JOB_STATE_QUEUED, 1, model=MODEL, budget=pb.Budget(max_params=100))
        server.files.update(FILES)
        server.streams.append(
            [
                changed(pb.JOB_STATE_QUEUED, 1, model=MODEL, wait_reason="1 job before it"),
                changed(pb.JOB_STATE_RUNNING, 2, model=MODEL),
                progressed(3, **PROGRESS),
                changed(pb.JOB_STATE_SUCCEEDED, 4, model=MODEL, result=RESULT),
            ]
        )
        yield server


def npn(*arguments: str) -> int:
    """Run the command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0)


def documents(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The JSON lines that were printed."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_compress_to_the_end(
    scripted: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Lines of progress, a table, the artifact on disk, exit code 0."""
    assert npn(*COMPRESS, "--param", "hidden=30,10", "--epochs", "4", "--out", str(tmp_path / "out")) == 0
    out = capsys.readouterr().out
    assert "queued: 1 job before it" in out
    assert "plastic, epoch 1 of 4" in out
    assert "512 expected · 500 hardened now · budget 100" in out
    assert "10.0 times" in out
    assert "96.12 %  (95.00 to 97.00)" in out
    assert "fc1 2/30   fc2.weight 12/300" in out
    assert (tmp_path / "out/model.pt2").read_bytes() == b"abc"
    sent = scripted.requests["CreateJob"][0].job
    assert dict(sent.model.architecture.params) == {"hidden": "30,10"}
    assert (sent.budget.max_params, sent.training.epochs) == (100, 4)


def test_json_lines(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Documents of stable types and nothing else; infinity is null."""
    scripted.streams[0].insert(2, progressed(2, **{**PROGRESS, "k": float("inf")}))
    scripted.streams[0][2].sequence = 3
    scripted.streams[0][3].sequence = 4
    scripted.streams[0][4].sequence = 5
    assert npn(*COMPRESS, "--json", "--out", str(tmp_path)) == 0
    lines = documents(capsys)
    assert [line["type"] for line in lines] == ["job", "job", "progress", "progress", "job", "artifact"]
    assert [line["progress"]["k"] for line in lines[2:4]] == [None, 2.5]
    assert lines[4]["state"] == "SUCCEEDED"
    assert lines[4]["result"]["metrics"]["dense_test_accuracy"]["value"] == 0.97
    assert lines[5]["paths"] == [str(tmp_path / path) for path in FILES]


def test_detach_and_dry_run(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One queues and says how to come back, the other queues nothing and shows the range."""
    assert npn(*COMPRESS, "--detach") == 0
    assert "npn watch 1" in capsys.readouterr().out
    scripted.job = pb.Job(
        plan=pb.Plan(dense=pb.Cost(params=1000), smallest=pb.Cost(params=12), warnings=["x_extra is ignored"])
    )
    assert npn(*COMPRESS, "--dry-run", "--label", "team=a", "--priority", "3", "--max-duration", "90") == 0
    sent = scripted.requests["CreateJob"][1].job
    assert (dict(sent.labels), sent.priority, sent.max_duration.seconds) == ({"team": "a"}, 3, 90)
    out = capsys.readouterr().out
    assert "smallest possible" in out
    assert "1,000" in out
    assert "warning: x_extra is ignored" in out
    assert scripted.requests["CreateJob"][1].validate_only
    assert not scripted.requests["WatchJob"]


def test_what_training_is_told(scripted: ScriptedServer) -> None:
    """Suffixes of numbers, loss, output, augmentation, rounding and preprocessing arrive as fields."""
    options = "--max-macs 20M --max-bytes 1.5k --augment crop-flip --loss mse --output 1 --round-to 8"
    options += " --units weights --from-scratch --input-mean 0.5,0.4 --input-std 0.2,0.1"
    assert npn(*COMPRESS[:-1], "10k", *options.split(), "--detach") == 0
    sent = scripted.requests["CreateJob"][0].job
    assert (sent.budget.max_params, sent.budget.max_macs, sent.budget.max_bytes) == (10_000, 20_000_000, 1500)
    training = sent.training
    assert (training.augment, training.loss, training.output) == ("crop-flip", "mse", "1")
    assert (training.round_to, training.from_scratch, training.units) == (8, True, "weights")
    asked = training.preprocessing
    assert (asked.mode, asked.scale, [*asked.mean], [*asked.std]) == ("fixed", 1.0, [0.5, 0.4], [0.2, 0.1])


def test_a_model_of_the_callers_own(scripted: ScriptedServer, tmp_path: Path) -> None:
    """A .pt2 file is uploaded, a URI sent as it is."""
    (tmp_path / "net.pt2").write_bytes(b"weights")
    for model in (str(tmp_path / "net.pt2"), "objects/9"):
        assert npn("compress", model, *COMPRESS[2:], "--detach") == 0
    assert [request.job.model.uri for request in scripted.requests["CreateJob"]] == ["objects/1", "objects/9"]


def test_dry_run_tells_what_stays_whole(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups with their sizes, the prunable share, and each reason once with the names it is true of."""
    plan = pb.Plan(prunable=0.625, groups=[pb.GroupPlan(name="conv1", kind="channel", size=16)])
    for name in ("stem", "head"):
        plan.unpruned.add(name=name, size=64, reason="LayerNorm reads it")
    scripted.job = pb.Job(plan=plan)
    assert npn(*COMPRESS, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "units that can go: conv1 16 channels (62.5% of the parameters)" in out
    assert "stays whole: stem 64, head 64: LayerNorm reads it" in out


@pytest.mark.parametrize(
    ("state", "error", "code", "said"),
    [
        (pb.JOB_STATE_FAILED, {"code": 3, "message": "labels out of range"}, 1, "labels out of range"),
        (pb.JOB_STATE_CANCELLED, None, 3, "was cancelled"),
    ],
)
def test_exit_codes_of_jobs(
    scripted: ScriptedServer, capsys: pytest.CaptureFixture[str], state: int, error: Any, code: int, said: str
) -> None:
    """Each way a job can end has its own exit code and one line."""
    scripted.streams[0] = [changed(state, 4, error=error)]
    assert npn("watch", "1") == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.NOT_FOUND, 2),
        (grpc.StatusCode.INTERNAL, 5),
        (grpc.StatusCode.PERMISSION_DENIED, 5),
    ],
)
def test_exit_codes_of_errors(
    scripted: ScriptedServer, capsys: pytest.CaptureFixture[str], status: grpc.StatusCode, code: int
) -> None:
    """What the server refuses ends the command with a line, or a document, and a code."""
    scripted.faults["GetJob"].extend([status] * 2)
    assert npn("get", "1") == code
    assert capsys.readouterr().err.strip().endswith("scripted fault of GetJob")
    assert npn("get", "1", "--json") == code
    (line,) = documents(capsys)
    assert (line["type"], line["exit_code"]) == ("error", code)


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress", "mlp", "--max-params", "5"],
        ["compress", "mlp", "--dataset", "absent.npz", "--max-params", "5"],
        ["compress", "mlp", "--dataset", "objects/1", "--max-params", "many"],
        ["compress", "mlp", "--dataset", "objects/1", "--param", "hidden"],
        ["compress", "net.pt2", "--dataset", "objects/1", "--max-params", "5"],
        ["compress", "objects/2", "--param", "hidden=3", "--dataset", "objects/1", "--max-params", "5"],
        ["compress", "mlp", "--dataset", "objects/1", "--max-params", "1.0005k"],
        ["compress", "mlp", "--dataset", "objects/1", "--max-params", "5", "--input-mean", "0.5,x"],
        [*COMPRESS, "--preprocessing", "none", "--input-scale", "2"],
        ["squeeze"],
    ],
)
def test_wrong_usage(
    scripted: ScriptedServer, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A command line that cannot work ends with 2 before a job exists."""
    assert npn(*arguments) == 2
    assert capsys.readouterr().err
    assert not scripted.requests["CreateJob"]


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server the command says how to get one."""
    assert npn("jobs", "--server", "127.0.0.1:1") == 4
    assert "no answer from 127.0.0.1:1 (Connection refused); start one with" in capsys.readouterr().err


def test_jobs_get_cancel_delete(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The small commands do what they are called."""
    assert npn("jobs", "--state", "running", "--label", "a=b", "--limit", "2", "--json") == 0
    assert [line["name"] for line in documents(capsys)] == ["jobs/1", "jobs/2"]
    assert npn("jobs") == 0
    assert npn("get", "1") == 0
    assert "at most 100 parameters" in capsys.readouterr().out
    assert npn("cancel", "1") == 0
    assert "jobs/1 is cancelling" in capsys.readouterr().out
    assert npn("delete", "1") == 0
    assert len(scripted.requests["DeleteJob"]) == 1


def start(scripted: ScriptedServer, **streams: Any) -> subprocess.Popen[bytes]:
    """`npn watch` of a job that does not end."""
    scripted.streams[0] = [changed(pb.JOB_STATE_RUNNING, 2, model=MODEL), SILENCE]
    command = [sys.executable, "-m", "npn_client.cli", "watch", "1"]
    return subprocess.Popen(command, start_new_session=True, **streams)


def until(condition: Any) -> None:
    """Wait for a condition, up to some seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_interrupt_in_a_log_detaches(scripted: ScriptedServer) -> None:
    """Without a terminal an interrupt leaves the job running and says how to come back."""
    process = start(scripted, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert b"running" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"npn watch 1" in out
    assert b"Traceback" not in err
    assert not scripted.requests["CancelJob"]


@pytest.mark.parametrize(
    ("answer", "end", "code", "cancelled"),
    [
        (b"y\n", pb.JOB_STATE_CANCELLED, 3, True),
        (b"n\n", pb.JOB_STATE_CANCELLED, 130, False),
        (b"y\n", pb.JOB_STATE_SUCCEEDED, 0, True),
    ],
)
def test_interrupt_on_a_terminal_asks(
    scripted: ScriptedServer, answer: bytes, end: pb.JobState, code: int, cancelled: bool
) -> None:
    """On a terminal the user decides whether the job is cancelled; one that has ended meanwhile has ended so."""
    succeeded = end == pb.JOB_STATE_SUCCEEDED
    scripted.streams.append([changed(end, 5, model=MODEL, result=RESULT if succeeded else None)])
    if succeeded:
        scripted.faults["CancelJob"].append(grpc.StatusCode.FAILED_PRECONDITION)
    controller, terminal = pty.openpty()
    process = start(scripted, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""

    def sees(text: bytes) -> bool:
        nonlocal shown
        if select.select([controller], [], [], 0.05)[0]:
            shown += os.read(controller, 65536)
        return text in shown

    try:
        until(lambda: sees(b"running"))
        process.send_signal(signal.SIGINT)
        until(lambda: sees(b"Cancel jobs/1?"))
        os.write(controller, answer)
        assert process.wait(20) == code
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert bool(scripted.requests["CancelJob"]) is cancelled


def test_logs(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines and curve of an attempt, for people and as one document."""
    point = pb.Progress(step=1000, epoch=2, stage=pb.STAGE_DENSE, loss=0.5)
    point.metrics.add(name="validation_accuracy", value=0.875)
    scripted.logs = pb.JobLogs(attempt=2, cause="it diverged", lines=["stage dense [1]"], curve=[point] * 50)
    scripted.logs.end_time.FromSeconds(1)
    assert npn("logs", "1", "--attempt", "2") == 0
    out = capsys.readouterr().out
    assert "attempt 2 of jobs/1: it diverged" in out
    assert "stage dense [1]" in out
    assert out.count("87.50 %") == 20
    assert scripted.requests["GetJobLogs"][0].attempt == 2
    assert npn("logs", "1", "--json") == 0
    (document,) = documents(capsys)
    assert (document["type"], document["job"], document["lines"]) == ("logs", "jobs/1", ["stage dense [1]"])
    assert len(document["curve"]) == 50
    assert document["curve"][0]["metrics"]["validation_accuracy"]["value"] == 0.875


def test_logs_before_the_first_attempt(scripted: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that waits has none, which is no error."""
    assert npn("logs", "1") == 0
    assert "has had no attempt yet" in capsys.readouterr().out
