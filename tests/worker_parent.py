"""A parent of one idle worker, one that sleeps, one stuck in C code, one stopped in the middle of its checkpoints.

Prints their ids and waits to die.
"""

import json
import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from job_samples import SPEC

from npn_service.worker.child import Child
from npn_service.worker.messages import Assignment


def main() -> None:
    """Start them and wait until they are busy."""
    children = [Child("worker_scripts:run") for _ in range(4)]
    for child in children:
        assert child.ready(30.0)
    with tempfile.TemporaryDirectory() as folder:
        for child, script in zip(children, ("sleep", "hold", "count-stop"), strict=False):
            spec = replace(SPEC, labels={"script": script})
            child.send(
                Assignment(
                    job="jobs/1",
                    attempt=1,
                    planned=True,
                    spec=spec,
                    dataset=Path(folder),
                    output=Path(folder),
                    checkpoints=Path(folder) / "kept",
                    checkpoint_seconds=0.1,
                )
            )
            assert child.receive(30.0) is not None
    time.sleep(0.5)
    os.kill(children[2].pid, signal.SIGSTOP)
    print(json.dumps([child.pid for child in children]), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
