"""A network of the user's own through SDK and server, as a module, a program, a file and an object."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from server_process import ServerProcess
from torch import nn

from npn_client import AsyncClient, Budget, Client, InvalidArgument, ModelArchive, Plan, Training
from npn_client.cli import main

BUDGET = Budget(max_params=60)


def network() -> nn.Sequential:
    """6 -> 16 -> 2."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


EXAMPLE = torch.zeros(2, 6)


DENSE = 6 * 16 + 16 + 16 * 2 + 2
TRAINING = Training(epochs=4, batch_size=16, seed=1)


def test_every_kind_of_model_is_planned(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    """A module, a program, a file and an object are the same network; the module stays as it was."""
    net = network()
    program = torch.export.export(net, (EXAMPLE,))
    program.example_inputs = None
    torch.export.save(program, tmp_path / "net.pt2")
    net.eval()
    with Client(server.address) as client:

        def planned(model: Any, **more: Any) -> Plan:
            return client.plan(model, dataset=dataset, budget=BUDGET, **more)

        plans = [
            planned(net, example_inputs=EXAMPLE),
            planned(program),
            planned(str(tmp_path / "net.pt2")),
            planned(ModelArchive(tmp_path / "net.pt2")),
        ]
    assert [plan.dense.params for plan in plans] == [DENSE] * 4
    assert all(group.size in (6, 16) for plan in plans for group in plan.groups)
    assert 0 < plans[0].prunable <= 1
    assert not net.training


def test_a_module_comes_back_smaller(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    """From the user's module to a compact network whose parameters have the user's names; found again as an
    object by another job.
    """
    net = network()
    with Client(server.address) as client:
        job = client.compress(net, example_inputs=EXAMPLE, dataset=dataset, budget=BUDGET, training=TRAINING)
        result = job.result(timeout=120)
        assert result.compact.params <= 60 < result.dense.params == DENSE
        result.download(tmp_path)
        model = job.snapshot.model
        assert isinstance(model, ModelArchive)
        again = client.plan(str(model.source), dataset=dataset, budget=BUDGET)
        assert again.dense == result.dense
    with safe_open(tmp_path / "model.safetensors", framework="pt") as weights:
        assert set(weights.keys()) == set(net.state_dict())


def test_async_client(server: ServerProcess, dataset: Path) -> None:
    """The asyncio client exports and sends likewise."""

    async def run() -> Plan:
        async with AsyncClient(server.address) as client:
            return await client.plan(network(), example_inputs=EXAMPLE, dataset=dataset, budget=BUDGET)

    assert asyncio.run(run()).dense.params == DENSE


def test_the_command_takes_a_file(
    server: ServerProcess, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`npn compress net.pt2` ends with 0 and a job that SUCCEEDED."""
    program = torch.export.export(network(), (EXAMPLE,))
    program.example_inputs = None
    torch.export.save(program, tmp_path / "net.pt2")
    arguments = f"compress {tmp_path / 'net.pt2'} --dataset {dataset} --max-params 0.06k --epochs 4 --json"
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--server", server.address])
    assert ended.value.code == 0
    *_, job = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert job["state"] == "SUCCEEDED"
    assert job["model"]["source"].startswith("objects/")


def test_nothing_of_an_export_is_left_behind(
    server: ServerProcess, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary archive goes when it is sent, refused or not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Client(server.address) as client:
        client.plan(network(), example_inputs=EXAMPLE, dataset=dataset, budget=BUDGET)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_shards_arrives(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    """A folder becomes one object, whose reader names the dataset where it is none."""
    (tmp_path / "shards/train").mkdir(parents=True)
    for path in ("train/0.parquet", "test.parquet"):
        (tmp_path / "shards" / path).write_bytes(path.encode())
    with Client(server.address) as client, pytest.raises(InvalidArgument) as raised:
        client.plan("mlp", dataset=tmp_path / "shards", budget=BUDGET)
    assert raised.value.violations[0].field == "job.dataset.uri"
    stored = {path.name for path in (server.data_dir / "objects/keys/objects").rglob("*.parquet")}
    assert stored == {"0.parquet", "test.parquet"}
