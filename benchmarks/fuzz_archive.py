"""Fuzz the reader of model archives: changed files give refusals or correct models; no crash, no hang, no execution.

    python benchmarks/fuzz_archive.py --files 10000 --seed 1 --out fuzz.json

Half of the files are changed inside of entries (JSON fields, dtypes, shapes, offsets, names; zipped again with valid
checksums), half in raw bytes.  Each is read in a process of limited memory and time, which also runs the program
where one was read.  Execution is watched in two ways: payloads in the files would make marker folders, and Python's
audit hooks report code compiled, run or imported, processes, sockets and files written beyond those of good archives.

Exits with 1 if anything but refusals and correct models came out.
"""

import argparse
import json
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from _archive_mutations import Entries, mutate_inside, mutate_raw
from _archive_seeds import save_seeds
from _machine import machine

READER = Path(__file__).with_name("_archive_reader.py")
START_SECONDS = 300.0
GOOD = ("refused", "correct")


class Reader:
    """The reading process, started again where it ended."""

    def __init__(self, seeds: Path, seconds: float) -> None:
        self._seeds, self._seconds = seeds, seconds
        self._process: subprocess.Popen[str] | None = None

    def read(self, name: str, path: Path) -> dict[str, Any]:
        """The outcome for one file."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(READER), str(self._seeds)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
            )  # fmt: skip
            if self._answer(START_SECONDS) != "ready":
                raise RuntimeError("the reading process did not start; run it by hand to see why")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {path}\n")
        self._process.stdin.flush()
        answer = self._answer(self._seconds)
        if isinstance(answer, dict):
            return answer
        if self._process.poll() is None:
            outcome = {"kind": "hang", "detail": f"more than {self._seconds:g} s", "events": []}
        else:
            outcome = {"kind": "crash", "detail": f"exit {self._process.returncode}", "events": []}
        self.close()
        return outcome

    def _answer(self, seconds: float) -> Any:
        """The next line; None where none came."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if ready and not line:
            self._process.wait(10)
        return json.loads(line) if line else None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def entries_of(path: Path) -> Entries:
    """Entries below the top folder, in order."""
    with zipfile.ZipFile(path) as archive:
        return [(entry.filename.partition("/")[2], archive.read(entry)) for entry in archive.infolist()]


def fuzz(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Read all files; counts, and what was bad."""
    seeds_folder, markers = folder / "seeds", folder / "markers"
    seeds_folder.mkdir()
    markers.mkdir()
    seeds = save_seeds(seeds_folder)
    entries = {name: entries_of(path) for name, path in seeds.items()}
    names, path = sorted(seeds), folder / "file.pt2"
    counts: dict[str, Counter[str]] = {"inside": Counter(), "raw": Counter()}
    details: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    not_finite: list[int] = []
    slowest, reader = 0.0, Reader(seeds_folder, arguments.timeout)
    for index in range(arguments.first, arguments.files):
        rng = random.Random(f"{arguments.seed}:{index}")
        half, name = ("inside", "raw")[index % 2], names[index // 2 % len(names)]
        if half == "inside":
            data = mutate_inside(list(entries[name]), rng, str(markers / f"{index}"))
        else:
            data = mutate_raw(seeds[name].read_bytes(), rng)
        path.write_bytes(data)
        answer = reader.read(name, path)
        if list(markers.iterdir()) or answer["events"]:
            answer["kind"] = "execution"
            shutil.rmtree(markers)
            markers.mkdir()
        counts[half][answer["kind"]] += 1
        details[f"{answer['kind']}: {answer['detail'] if answer['kind'] in GOOD else ''}"] += 1
        slowest = max(slowest, answer.get("seconds", 0.0))
        if answer["detail"] == "not finite":
            not_finite.append(index)
        if arguments.keep is not None and (answer["kind"] not in GOOD or answer["detail"] == "not finite"):
            arguments.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, arguments.keep / f"{index}-{name}-{answer['kind']}.pt2")
        if (index + 1) % 1000 == 0:
            print(f"{index + 1:,} files", file=sys.stderr, flush=True)
        if answer["kind"] not in GOOD:
            bad.append({"index": index, "half": half, "archive": name, **answer})
            print(
                f"{index} {half} {name}: {answer['kind']} {answer['detail']} {answer['events']}", flush=True
            )
    reader.close()
    totals = sum(counts.values(), Counter[str]())
    return {
        "files": arguments.files - arguments.first,
        "seed": arguments.seed,
        "archives": names,
        "counts": {kind: totals.get(kind, 0)
                   for kind in (*GOOD, "memory", "error", "unrunnable", "crash", "hang", "execution")},
        "inside": dict(counts["inside"]),
        "raw": dict(counts["raw"]),
        "details": dict(details.most_common()),
        "not_finite": not_finite,
        "slowest_seconds": round(slowest, 2),
        "bad": bad,
    }  # fmt: skip


def main() -> int:
    """Fuzz, print the counts, write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument(
        "--first", type=int, default=0, help="index of the first file: to repeat a part of a run"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one file")
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder for files neither refused nor correct, and for models that gave NaN or infinity",
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(arguments, Path(folder))
    result = {"machine": machine(), **result, "seconds": round(time.perf_counter() - started, 1)}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(
        json.dumps(
            {key: result[key] for key in ("counts", "details", "slowest_seconds", "seconds")}, indent=2
        )
    )
    return 1 if result["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
