"""`make demo`: compress a network on scikit-learn's digits, with a server of its own, in about a minute.

Runs what a user would run: `npn-server`, then `npn compress`.  The artifact lies in demo-out/ afterwards.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from npn_client.cli import main as npn

OUT = Path("demo-out")
DATASET = OUT / "digits.npz"
COMPRESS = f"""
    compress mlp --param hidden=300,100 --dataset {DATASET} --max-params 2500
    --epochs 100 --batch-size 32 --seed 1 --out {OUT}/artifact
"""
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def write_digits(path: Path) -> None:
    """Write 1,797 images of 8x8 pixels as an npz; a fifth, drawn with a seed, is the test split."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, np.newaxis]  # N,C,H,W; pixels from 0 to 16
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


@contextmanager
def running_server() -> Iterator[str]:
    """Run `npn-server` on a free port with a folder that vanishes; gives its address."""
    with tempfile.TemporaryDirectory(prefix="npn-demo-") as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "server.log"
        settings = {
            "NPN_LISTEN": "127.0.0.1:0",
            "NPN_METRICS_LISTEN": "127.0.0.1:0",
            "NPN_DATA_DIR": f"{folder}/data",
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NPN_")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "npn_service.main", "--ready-file", str(ready)],
                env=environment | settings,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the command alone
            )
        try:
            yield wait_until_ready(process, ready, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log: Path) -> str:
    """The address that the server listens on."""
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"npn-server did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return str(json.loads(ready.read_text())["address"])


def stop(*_: object) -> NoReturn:
    """End through every `finally`."""
    raise SystemExit(1)


def main() -> int:
    """Run the demo; returns the exit code of `npn compress`."""
    signal.signal(signal.SIGTERM, stop)
    write_digits(DATASET)
    with running_server() as address:
        arguments = shlex.split(COMPRESS)
        print(f"$ npn {shlex.join(arguments)}\n", flush=True)
        try:
            npn([*arguments, "--server", address])
        except SystemExit as ended:
            return int(ended.code or 0)


if __name__ == "__main__":
    sys.exit(main())
