"""The main job on real input: LeNet-5-Caffe on MNIST, 10,000 parameters, 20 epochs, through the command line."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from server_process import ServerProcess

MNIST = Path(__file__).resolve().parents[3] / "shared/data/mnist.npz"
NPN = Path(sys.executable).with_name("npn")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not MNIST.exists(), reason="needs ../shared/data/mnist.npz (docs/results.md says whence)")
def test_lenet_on_mnist(start_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Ends in SUCCEEDED within 15 minutes; in plain torch: at most 10,000 parameters, at least 98.9 %."""
    server = start_server()
    out = tmp_path / "out"
    command = [NPN, "compress", "lenet5-caffe", "--dataset", MNIST, "--max-params", "10000"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--epochs", "20", "--out", out, "--server", server.address], capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert seconds < 15 * 60
    measure = [sys.executable, "-I", Path(__file__).with_name("plain_torch.py"), out, MNIST]
    found = json.loads(subprocess.run(measure, capture_output=True, text=True, check=True).stdout)
    print(f"{seconds:.0f} s, {found}")
    assert found["project"] == []
    assert found["params"] <= 10_000
    assert found["accuracy"] >= 0.989
