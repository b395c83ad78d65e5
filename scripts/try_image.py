"""Start an image with podman as Kubernetes would - not root, read-only, no capabilities - and run a job on it.

    python scripts/try_image.py localhost/npn-server:latest

Ends with exit code 0 when the server became ready, compressed a network and stopped cleanly.  In a sandbox that may
not raise limits, and where cgroups are of the old kind:

    PODMAN="podman --runtime runc" PODMAN_RUN="--cgroupns host --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from demo import write_digits
from start_s3 import free_port

from npn_client import Budget, Client, Training

START_SECONDS, STOP_SECONDS = 120.0, 40
USER = "10001"
CONFINED = [  # as Kubernetes confines it
    *("--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - inside the container; its data are on the image's volume
    *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--network", "host"),
]


def main() -> None:
    """Run it."""
    image = sys.argv[1] if len(sys.argv) > 1 else "localhost/npn-server:latest"
    listen, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = [f"--env=NPN_LISTEN={listen}", f"--env=NPN_METRICS_LISTEN={metrics}"]
    more = shlex.split(os.environ.get("PODMAN_RUN", ""))
    container = podman("run", "--detach", *CONFINED, *more, *settings, image)
    try:
        wait_until_ready(f"http://{metrics}/readyz")
        expect(podman("exec", container, "id", "-u"), USER, "user id")
        compress(listen)
        podman("stop", "--time", str(STOP_SECONDS), container)
        expect(
            podman("inspect", "--format", "{{.State.ExitCode}}", container), "0", "exit code after SIGTERM"
        )
    except BaseException:
        print(podman("logs", container), file=sys.stderr)
        raise
    finally:
        podman("rm", "--force", "--volumes", container)
    print(f"{image}: user {USER}, read-only root: ready, compressed a network, stopped with exit code 0")


def compress(address: str) -> None:
    """A short job with upload and download."""
    with tempfile.TemporaryDirectory() as folder, Client(address) as client:
        dataset = Path(folder) / "digits.npz"
        write_digits(dataset)
        job = client.compress(
            "mlp", dataset=str(dataset), budget=Budget(max_params=2000), training=Training(epochs=3)
        )
        job.result(timeout=600).download(str(Path(folder) / "out"))


def wait_until_ready(url: str) -> None:
    """Ask the readiness probe until it agrees."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - http to this machine
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def expect(found: str, wanted: str, what: str) -> None:
    """End the program where the two differ."""
    if found != wanted:
        sys.exit(f"{what} is {found}, not {wanted}")


def podman(*arguments: str) -> str:
    """Run podman and return what it printed."""
    command = shlex.split(os.environ.get("PODMAN", "podman"))
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"podman {' '.join(arguments)}: {done.stderr}")
    return (done.stdout + (done.stderr if arguments[0] == "logs" else "")).strip()


if __name__ == "__main__":
    main()
