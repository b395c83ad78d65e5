"""SDK and command against a real `npn-server` with real workers."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from server_process import ServerProcess

from npn_client import (
    AlreadyExists,
    Architecture,
    AsyncClient,
    Budget,
    Client,
    Expansion,
    InvalidArgument,
    JobState,
    NotFound,
    Progressed,
    StateChanged,
    Training,
)
from npn_client.cli import main

MODEL = Architecture("mlp", {"hidden": [16]})
BUDGET = Budget(max_params=60)
TRAINING = Training(epochs=4, batch_size=16, seed=1)


def test_from_a_local_file_to_an_artifact(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    """The whole way of a user: submit, watch, result, download."""
    with Client(server.address) as client:
        plan = client.plan(MODEL, dataset=dataset, budget=BUDGET)
        job = client.compress(MODEL, dataset=dataset, budget=BUDGET, training=TRAINING, labels={"a": "b"})
        events = list(job.watch(timeout=120))
        assert job.state is JobState.SUCCEEDED, job.error
        states = [event.job.state for event in events if isinstance(event, StateChanged)]
        assert states[-2:] == [JobState.RUNNING, JobState.SUCCEEDED]
        assert any(isinstance(event, Progressed) for event in events)
        result = job.result()
        assert result.dense == plan.dense
        assert plan.smallest.params <= result.compact.params <= 60
        assert 0 <= result.metrics["compact_test_accuracy"].value <= 1
        paths = result.download(tmp_path)
        assert {path.name for path in paths} >= {"model.pt2", "model.safetensors", "report.json"}
        assert job.id in [listed.id for listed in client.list_jobs(state="succeeded", labels={"a": "b"})]
        job.delete()
        with pytest.raises(NotFound):
            client.get_job(job.id)


def test_a_network_that_grows(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    """`expand` begins with what is awake, ends within the budget, and refuses groups that are not there."""
    with Client(server.address) as client:
        with pytest.raises(InvalidArgument) as raised:
            client.expand(MODEL, dataset=dataset, budget=BUDGET, awake={"conv1": 3})
        assert raised.value.violations[0].field == "job.expand.awake"
        assert "it has" in raised.value.violations[0].description
        job = client.expand(MODEL, dataset=dataset, budget=BUDGET, awake={"fc1": 2}, training=TRAINING)
        assert job.wait(timeout=120).state is JobState.SUCCEEDED, job.error
        assert job.snapshot.expansion == Expansion(awake={"fc1": 2})
        result = job.result()
        assert result.dense.params < client.plan(MODEL, dataset=dataset, budget=BUDGET).dense.params
        assert result.compact.params <= 60
        assert {path.name for path in result.download(tmp_path)} >= {"model.pt2", "report.json"}


def test_request_id(server: ServerProcess, dataset: Path) -> None:
    """The same request gives the same job, another one with the same id is refused."""
    request_id = "6f1c2c7e-9f0e-4a58-9d3b-0d6f2f0e7a11"
    with Client(server.address) as client:
        job = client.compress(MODEL, dataset=dataset, budget=BUDGET, training=TRAINING, request_id=request_id)
        again = client.compress(
            MODEL, dataset=dataset, budget=BUDGET, training=TRAINING, request_id=request_id
        )
        assert job.name == again.name
        with pytest.raises(AlreadyExists):
            client.compress(MODEL, dataset=dataset, budget=Budget(max_params=61), request_id=request_id)
        job.cancel()
        assert job.wait(timeout=30).state is JobState.CANCELLED


def test_a_budget_that_cannot_be_met(server: ServerProcess, dataset: Path) -> None:
    """The error names the field and the feasible range."""
    with Client(server.address) as client, pytest.raises(InvalidArgument) as raised:
        client.compress(MODEL, dataset=dataset, budget=Budget(max_params=1))
    assert raised.value.violations[0].field == "job.budget.max_params"


def test_command(
    server: ServerProcess, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`npn compress --json` ends with 0, a job that SUCCEEDED and its files."""
    arguments = ["compress", "mlp", "--param", "hidden=16", "--dataset", str(dataset), "--max-params", "60"]
    arguments += [
        "--epochs",
        "4",
        "--seed",
        "1",
        "--out",
        str(tmp_path),
        "--json",
        "--server",
        server.address,
    ]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    *_, job, artifact = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (job["type"], job["state"]) == ("job", "SUCCEEDED")
    assert str(tmp_path / "model.pt2") in artifact["paths"]


def test_async_client(server: ServerProcess, dataset: Path) -> None:
    """The asyncio client submits and waits likewise."""

    async def run() -> None:
        async with AsyncClient(server.address) as client:
            job = await client.compress(MODEL, dataset=dataset, budget=BUDGET, training=TRAINING)
            assert (await job.result(timeout=120)).compact.params <= 60

    asyncio.run(run())


def test_a_watch_survives_the_server(start_server: Callable[..., ServerProcess], dataset: Path) -> None:
    """A server that is killed and started again costs the watcher nothing: every state change arrives."""
    first = start_server(lease_seconds="5")
    with Client(first.address, timeout=120) as client:  # its inspector is cold
        training = Training(epochs=40, batch_size=4, seed=1)
        job = client.compress(MODEL, dataset=dataset, budget=BUDGET, training=training)
        running = threading.Event()
        states: list[JobState] = []

        def watch() -> None:
            for event in job.watch(timeout=120):
                if isinstance(event, StateChanged):
                    states.append(event.job.state)
                    if event.job.state is JobState.RUNNING:
                        running.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert running.wait(60)
        first.kill()
        start_server(data_dir=first.data_dir, listen=first.address, lease_seconds="5")
        watcher.join(120)
        assert not watcher.is_alive()
    shown = [state for state in states if state is not JobState.QUEUED]
    assert shown[0] is JobState.RUNNING
    assert states[-1] is JobState.SUCCEEDED


def test_expand_command(
    server: ServerProcess, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`npn expand` ends with 0 and a table of how large the network was and is; a wrong --awake is told before."""
    asked = ["expand", "mlp", "--param", "hidden=16", "--dataset", str(dataset), "--max-params", "60"]
    asked += ["--epochs", "4", "--server", server.address]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--awake", "fc1=few"])
    assert ended.value.code == 2
    assert "fc1=few is not KEY=NUMBER" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--awake", "fc1=2", "--out", str(tmp_path)])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "grow mlp" in said
    assert "larger" in said
