"""A short run of benchmarks/fuzz_archive.py, which the full run of 10,000 files goes through too."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "fuzz_archive.py"


def test_changed_archives_are_refused_or_correct(tmp_path: Path) -> None:
    """200 changed files: refusals and correct models, no crash, no hang, no execution."""
    out = tmp_path / "fuzz.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--files", "200", "--seed", "3", "--out", str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=280,
        check=False,
    )
    assert out.exists(), done.stderr[-2000:]
    counts = json.loads(out.read_text())["counts"]
    assert counts.pop("refused") + counts.pop("correct") == 200, counts
    assert not any(counts.values())
    assert done.returncode == 0
