"""A hundred thousand bad requests: does the server answer as documented, and stay as it was?

    python benchmarks/bad_requests.py --out bad_requests.json
    python benchmarks/bad_requests.py --requests 2000 --seed 7

A third are raw bytes, a third messages with one field changed, a third sequences of calls that hypothesis makes up
(tests/abuse).  Exit code 1 when a code or a reason is not documented, a reason in reach was not seen, fewer than a
fifth of the calls were OK, the log has a traceback, or the server's memory grew.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from _machine import ROOT, machine

sys.path.append(str(ROOT / "tests"))
from abuse import Tally, abuse, faults, launch_victim
from server_process import ServerProcess, launch_server

GROWTH = 0.10  # of the memory after the first tenth


def main() -> int:
    """Send, tell, save; 1 when the server did anything that it must not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rss: list[int] = []
    with tempfile.TemporaryDirectory(prefix="npn-abuse-") as name:
        folder = Path(name)

        def start(*, data_dir: Path, **settings: Any) -> ServerProcess:
            return launch_server(data_dir, folder / "server", **settings)

        victim = launch_victim(start, folder)
        process = psutil.Process(victim.server.process.pid)

        def look(tally: Tally) -> None:
            rss.append(process.memory_info().rss)
            print(f"{tally.requests} requests, {rss[-1] / 1e6:.0f} MB", flush=True)

        try:
            tally = abuse(victim, arguments.requests, arguments.seed, look)
            wrong = faults(victim, tally)
        finally:
            victim.server.stop()
    growth = rss[-1] / rss[len(rss) // 10] - 1
    if growth > GROWTH:
        wrong.append(f"memory grew by {growth:.1%}; limit {GROWTH:.0%}")
    print(tally.tell())
    if arguments.out:
        answers = [[code, reason, count] for (code, reason), count in sorted(tally.answers.items())]
        document = {"machine": machine(), "requests": tally.requests, "raw": tally.raw, "answers": answers}
        arguments.out.write_text(json.dumps(document | {"rss": rss, "wrong": wrong}, indent=2))
    for fault in wrong:
        print(f"WRONG: {fault}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
