"""The README's examples, run as they stand against a real server."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from server_process import ServerProcess

from npn_client.cli.commands import npn

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVER = "localhost:50051"  # what the SDK example says
SECONDS = 120.0
ARTIFACT = {
    "SHA256SUMS",
    "architecture.json",
    "metrics.jsonl",
    "model.onnx",
    "model.pt2",
    "model.safetensors",
    "report.json",
}


def blocks(language: str) -> list[str]:
    """The README's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `npn` command that the README shows."""
    return [
        line
        for block in blocks("sh")
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("npn ")
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands after `make demo`."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from demo import DATASET, write_digits

    write_digits(tmp_path / DATASET)
    return tmp_path


def run(arguments: list[str], folder: Path, **environment: str) -> str:
    """What a command prints; fails with its errors."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    """Names of the files in a folder."""
    return {path.name for path in folder.iterdir()}


def test_the_sdk_example_and_the_loading_of_its_artifact(server: ServerProcess, folder: Path) -> None:
    """The job succeeds within the budget, and plain torch runs what was downloaded."""
    example, _, loading = blocks("python")
    assert example.count(SERVER) == 1
    said = run([sys.executable, "-c", example.replace(SERVER, server.address)], folder)
    dense, compact = re.search(r"^([\d,]+) -> ([\d,]+) parameters$", said, re.MULTILINE).groups()
    assert int(compact.replace(",", "")) <= 1_000 < int(dense.replace(",", ""))
    assert files(folder / "out/sdk") == ARTIFACT
    assert run([sys.executable, "-c", loading], folder).strip() == "torch.Size([5, 10])"


def test_the_example_of_an_own_network(server: ServerProcess, folder: Path) -> None:
    """A module goes out and a smaller one within the budget comes back."""
    _, example, _ = blocks("python")
    assert example.count(SERVER) == 1
    said = run([sys.executable, "-c", example.replace(SERVER, server.address)], folder)
    assert 0 < int(said) <= 1_000


def test_the_command_line_example(server: ServerProcess, folder: Path) -> None:
    """It ends with exit code 0 and the artifact where it was asked for."""
    (example,) = [command for command in commands() if "digits" in command]
    program, *arguments = shlex.split(example)
    said = run([str(Path(sys.executable).with_name(program)), *arguments], folder, NPN_SERVER=server.address)
    assert "parameters" in said
    assert files(folder / "out/cli") == ARTIFACT


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood(command: str) -> None:
    """Also those that take too long to be run here: their options exist."""
    _, name, *arguments = shlex.split(command)
    context = npn.commands[name].make_context(name, arguments, parent=click.Context(npn))
    assert context.params["dataset"]


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    """Every file that a page links to is there."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
