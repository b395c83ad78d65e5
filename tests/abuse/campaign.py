"""The whole campaign: a server with tight limits, everything that is sent to it, and what is documented."""

import random
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from job_samples import RESULT, create, lease
from server_process import ServerProcess
from wire import SECONDS, Stub, announce, connect, job_on, npz, upload

from npn.v1 import compression_pb2 as pb
from npn_service.jobs.migrations import migrate
from npn_service.jobs.sql_store import SqlJobStore
from npn_service.storage.local import LocalObjectStore

from .mutations import broken, mutated
from .raw import Attacker
from .sequences import World, run_sequences, tour
from .tally import Tally

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {
    "max_queued_jobs_per_owner": 3,
    "max_watches": 8,
    "max_bytes_per_owner": 4 << 20,
    "max_files_per_upload": 10,
}

# What gRPC itself refuses carries no reason.
TRANSPORT = {("UNIMPLEMENTED", ""), ("RESOURCE_EXHAUSTED", "")}

# Reasons of the error table that these callers cannot reach, and where they are seen.
ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(
        ("UNAVAILABLE", "DRAINING", "DISK_FULL", "LOST_LEASE", "INSPECTION_TIMEOUT", "INTERNAL"),
        "the server's own trouble, which no request causes",
    ),
    **dict.fromkeys(
        (
            "TRAINING_DIVERGED",
            "ACCURACY_NOT_MET",
            "OUT_OF_MEMORY",
            "MAX_DURATION_EXCEEDED",
            "DEFECT",
            "ATTEMPTS_EXHAUSTED",
            "DATASET_NOT_FINITE",
        ),
        "of a job that ran: here none does; tests/integration/test_worker_dispatcher.py, test_bad_input.py",
    ),
    **dict.fromkeys(
        (
            "DATASET_NOT_PARQUET",
            "DATASET_IMAGES",
            "DATASET_LAYOUT",
            "DATASET_TOO_LARGE",
            "DATASET_UNREADABLE",
            "INSPECTION_TOO_LARGE",
        ),
        "of files by the hundred: tests/unit/core/test_data_*.py, tests/integration/test_worker_inspector.py",
    ),
    **dict.fromkeys(
        (
            "MODEL_VERSION",
            "MODEL_PICKLED",
            "MODEL_UNSAFE",
            "MODEL_OPERATOR",
            "MODEL_GRAPH",
            "MODEL_INPUT",
            "MODEL_OUTPUT",
            "MODEL_FIXED_BATCH",
            "MODEL_NOT_PRUNABLE",
            "MODEL_TOO_LARGE",
            "MODEL_UNREADABLE",
        ),
        "of archives by the thousand: tests/unit/core/test_exported*.py, benchmarks/fuzz_archive.py",
    ),
    **dict.fromkeys(
        ("TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED", "CLAIM_INVALID", "SCOPE_MISSING"),
        "of a server that wants tokens: tests/integration/test_authorisation.py",
    ),
    **dict.fromkeys(
        (
            "STORAGE_UNAVAILABLE",
            "STORAGE_REFUSED",
            "USE_PART_URLS",
            "DATASET_CHANGED",
            "MODEL_CHANGED",
            "OBJECT_DAMAGED",
            "CACHE_FULL",
        ),
        "of a server on S3: tests/integration/test_s3_*.py",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A server with tight limits, and the artifact of a job that it has."""

    server: ServerProcess
    artifact: str


def launch_victim(start: Callable[..., ServerProcess], folder: Path) -> Victim:
    """Start a server without workers on a database with one job that succeeded."""
    data, content = folder / "data", folder / "model.pt2"
    data.mkdir(parents=True)
    content.write_bytes(b"abc")
    url = f"sqlite:///{data / 'npn.sqlite'}"
    migrate(url)
    store, objects = SqlJobStore(url), LocalObjectStore(data / "objects")
    create(store)
    job = lease(store)
    file = replace(RESULT.files[0], size=3)
    objects.put_file(f"{job.attempt_prefix}{file.path}", content)
    store.finish_job(job_id=job.id, attempt=1, result=replace(RESULT, files=(file,)))
    store.close()
    settings = {name: str(limit) for name, limit in LIMITS.items()}
    server = start(data_dir=data, workers="0", **settings)
    server.warm()
    return Victim(server=server, artifact=f"{job.name}/artifact/{file.path}")


def abuse(
    victim: Victim, requests: int, number: int, each: Callable[[Tally], None] = lambda _: None
) -> Tally:
    """Send so many requests, a third of each kind in turn; the same `number` sends the same.

    `each` is called now and then with what was counted so far.
    """
    by = random.Random(number)
    tally = Tally()
    with (
        closing(Attacker(victim.server.address, by)) as attacker,
        connect(victim.server.address) as stub,
        grpc.insecure_channel(victim.server.address) as channel,
    ):
        uri = upload(stub, npz())
        world = World(
            stub=stub,
            uri=uri,
            tally=tally,
            max_queued=LIMITS["max_queued_jobs_per_owner"],
            max_watches=LIMITS["max_watches"],
            max_stored=LIMITS["max_bytes_per_owner"],
            max_files=LIMITS["max_files_per_upload"],
        )
        tour(world)
        rounds = max(1, requests // 2000)
        for round_ in range(rounds):
            share = (requests - tally.requests) // (rounds - round_)
            _send_raw(attacker, channel, tally, share // 3, by)
            _send_mutated(stub, victim.artifact, uri, tally, share // 3, by)
            run_sequences(world, share - 2 * (share // 3), number + 1000 * round_)
            each(tally)
    return tally


def _send_raw(
    attacker: Attacker, channel: grpc.Channel, tally: Tally, requests: int, by: random.Random
) -> None:
    """Half of them bytes at the socket, half calls whose bytes are no message."""
    for number in range(requests):
        if number % 2:
            tally.requests += 1
            tally.raw += 1
            attacker.send()
            continue
        method = by.choice(["GetJob", "ListJobs", "CreateJob", "CancelJob", "Dream", "CreateUpload"])
        data = broken(pb.CreateJobRequest(job=job_on("objects/none")), by)
        tally.call(channel.unary_unary(f"/npn.v1.CompressionService/{method}"), data)


def _send_mutated(
    stub: Stub, artifact: str, uri: str, tally: Tally, requests: int, by: random.Random
) -> None:
    """Every call, right but for one field of its message."""
    name = stub.CreateJob(pb.CreateJobRequest(job=job_on(uri)), timeout=SECONDS).name
    opened = stub.CreateUpload(announce(by.randbytes(99)), timeout=SECONDS).name
    valid: list[tuple[Callable[..., Any], Any]] = [
        (stub.CreateJob, pb.CreateJobRequest(job=job_on(uri), validate_only=True)),
        (stub.GetJob, pb.GetJobRequest(name=name)),
        (stub.GetJobLogs, pb.GetJobLogsRequest(name=name)),
        (stub.ListJobs, pb.ListJobsRequest(page_size=2, filter="state = QUEUED")),
        (stub.WatchJob, pb.WatchJobRequest(name=name)),
        (stub.CancelJob, pb.CancelJobRequest(name=name)),
        (stub.DeleteJob, pb.DeleteJobRequest(name=name)),
        (stub.ListArchitectures, pb.ListArchitecturesRequest(page_size=2)),
        (stub.GetServerInfo, pb.GetServerInfoRequest()),
        (stub.CreateUpload, announce(b"some bytes")),
        (stub.GetUpload, pb.GetUploadRequest(name=opened)),
        (stub.CompleteUpload, pb.CompleteUploadRequest(name=opened)),
        (stub.ListUploads, pb.ListUploadsRequest(page_size=2)),
        (stub.GetDownload, pb.GetDownloadRequest(name=artifact)),
        (stub.ReadObject, pb.ReadObjectRequest(name=artifact)),
        (_writing(stub), pb.WriteObjectRequest(upload=opened, path="data.npz", data=b"x")),
    ]
    for _ in range(requests):
        method, request = by.choice(valid)
        asked = mutated(request, by) if request.DESCRIPTOR.fields else request
        if isinstance(asked, pb.CreateJobRequest):
            asked.validate_only = True  # so that the queue stays as it is
        if isinstance(asked, pb.WatchJobRequest) and 0 < asked.after_sequence < 1000:
            asked.after_sequence += 1000  # so that nobody waits for an event that does not come
        tally.call(method, asked)
    _tidy(stub)


def _writing(stub: Stub) -> Callable[..., Any]:
    def write(request: pb.WriteObjectRequest, timeout: float) -> Any:
        return stub.WriteObject(iter([request]), timeout=timeout)

    return write


def _tidy(stub: Stub) -> None:
    """Remove the jobs and uploads that were made, so that the limits are as far away as before."""
    jobs = stub.ListJobs(pb.ListJobsRequest(page_size=1000, filter="state = QUEUED"), timeout=SECONDS).jobs
    for job in jobs:
        stub.CancelJob(pb.CancelJobRequest(name=job.name), timeout=SECONDS)
        stub.DeleteJob(pb.DeleteJobRequest(name=job.name), timeout=SECONDS)
    for opened in stub.ListUploads(pb.ListUploadsRequest(page_size=1000), timeout=SECONDS).uploads:
        if opened.state == pb.UPLOAD_STATE_OPEN:
            stub.DeleteUpload(pb.DeleteUploadRequest(name=opened.name), timeout=SECONDS)


def documented() -> Mapping[str, frozenset[str]]:
    """The reasons of each code, as the error table of docs/api.md has them."""
    table = (ROOT / "docs/api.md").read_text().partition("## Errors")[2].partition("\n## ")[0]
    reasons: dict[str, set[str]] = {}
    code = ""
    for line in table.splitlines():
        if match := re.match(r"\| (?:`([A-Z_]+)`)? ?\| (.*) \|$", line):
            code = match[1] or code
            reasons.setdefault(code, set()).update(re.findall(r"`([A-Z_0-9]+)`", match[2]))
    return {code: frozenset(found) for code, found in reasons.items() if code}


def faults(victim: Victim, tally: Tally) -> list[str]:
    """What the server did that it must not, in words."""
    table = documented()
    strange = [
        f"{code} {reason} is not documented"
        for code, reason in tally.answers
        if code != "OK" and (code, reason) not in TRANSPORT and reason not in table.get(code, ())
    ]
    missing = set().union(*table.values()) - set(tally.reasons) - set(ELSEWHERE)
    found = [*strange, *(f"{reason} was not seen" for reason in sorted(missing))]
    if tally.ok_share < 0.2:
        found.append(f"{tally.ok_share:.0%} of the calls were OK; at least 20 %")
    # Where a caller whose path is no UTF-8 hangs up, gRPC itself prints that it could not say so.
    if "npn_service" in "".join(re.findall(r'^ *File ".*$', victim.server.log.read_text(), re.M)):
        found.append("a traceback is in the log")
    loud = [line for line in victim.server.log_lines() if {"error", "critical", "exception"} & _marks(line)]
    return found + [f"the log has an error: {line}" for line in loud]


def _marks(line: Mapping[str, object]) -> set[object]:
    return {line.get("level"), *line}
