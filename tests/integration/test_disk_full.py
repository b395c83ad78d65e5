"""A full disk, on a small one of its own: clear errors, nothing corrupt, and work resumes when there is room."""

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from server_process import ServerProcess
from wire import SECONDS, Refusal, Stub, connect, job_on, npz, refusal_of, refused, upload, write
from wire import announce as announced

from npn.v1 import compression_pb2 as pb

MIB = 1 << 20
DISK = 24 * MIB
RESERVE = 4 * MIB

SMALL_DISK = ("unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size={DISK} small "$0" && exec "$@"')


@pytest.fixture
def start_small(start_server: Callable[..., ServerProcess], tmp_path: Path) -> Iterator["StartSmall"]:
    """Start a server, without workers by default, whose data folder is a disk of 24 MiB of its own."""
    allowed = subprocess.run(
        [*SMALL_DISK, str(tmp_path), "true"], capture_output=True, text=True, check=False
    )
    if allowed.returncode:
        pytest.skip(f"no small disk can be mounted here: {allowed.stderr.strip()}")
    data = tmp_path / "data"
    data.mkdir()
    with ExitStack() as stack:

        def start(reserve: int = RESERVE, **settings: str) -> SmallServer:
            own = {"workers": "0", "min_free_bytes": str(reserve)} | settings
            server = start_server(data_dir=data, through=(*SMALL_DISK, str(data)), **own)
            return SmallServer(server, stack.enter_context(connect(server.address)))

        yield start


class SmallServer:
    """The server, its interface, and its disk as it sees it."""

    def __init__(self, server: ServerProcess, stub: Stub) -> None:
        self.server, self.stub = server, stub
        self._ballast = Path(f"/proc/{server.process.pid}/root{server.data_dir}/ballast")

    def fill(self) -> None:
        """Take all that is left of the disk."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def take(self, size: int) -> None:
        """Take so many bytes."""
        with self._ballast.open("ab") as file:
            file.write(bytes(size))

    def leave(self, size: int) -> None:
        """Take what is left but so many bytes."""
        self.take(shutil.disk_usage(self._ballast.parent).free - size)

    def wait_for(self, event: str, *, after: int = 0, meanwhile: Callable[[], object] = str) -> int:
        """How many lines the log had when it told of this event, beyond its first `after` lines."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for number, line in enumerate(self.server.log_lines()[after:], after + 1):
                if line.get("event") == event:
                    return number
            meanwhile()
            time.sleep(0.02)
        raise AssertionError(f"no {event} in time:\n{self.server.log.read_text()[-4000:]}")

    def job(self, epochs: int) -> pb.Job:
        """A job of so many epochs, queued."""
        asked = job_on(upload(self.stub, npz()), training=pb.Training(epochs=epochs, batch_size=32))
        return self.stub.CreateJob(pb.CreateJobRequest(job=asked), timeout=SECONDS)

    def succeeded_at_once(self, job: pb.Job) -> bool:
        """Whether the job ends well, in its first attempt, with an artifact of the right bytes."""
        *_, last = self.stub.WatchJob(pb.WatchJobRequest(name=job.name), timeout=180)
        assert last.job.state == pb.JOB_STATE_SUCCEEDED, last.job.error
        for file in last.job.result.files:
            read = pb.ReadObjectRequest(name=f"{job.name}/artifact/{file.path}")
            data = b"".join(answer.data for answer in self.stub.ReadObject(read, timeout=SECONDS))
            assert hashlib.sha256(data).hexdigest() == file.sha256
        return bool(last.job.attempt == 1)

    def make_room(self) -> None:
        """Give back what was taken."""
        self._ballast.unlink()


StartSmall = Callable[..., SmallServer]


def test_an_upload_that_does_not_fit_is_refused_before_it_begins(start_small: StartSmall) -> None:
    """The announced size counts, and the reserve stays free for the database."""
    small = start_small()
    answer = refused(small.stub.CreateUpload, announced(bytes(DISK - RESERVE)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DISK_FULL")
    assert answer.retry_seconds > 0
    assert small.stub.ListUploads(pb.ListUploadsRequest(), timeout=SECONDS).uploads == []


def test_an_upload_goes_on_when_there_is_room_again(start_small: StartSmall) -> None:
    """What was committed when the disk ran full stays, nothing is there twice, and the object is right."""
    small = start_small()
    data = npz() + bytes(range(256)) * 8192
    opened = small.stub.CreateUpload(announced(data), timeout=SECONDS)
    half = write(small.stub, opened.name, "data.npz", data[: MIB + 17])
    small.take(DISK - RESERVE - 2 * MIB)
    with pytest.raises(grpc.RpcError) as caught:
        write(small.stub, opened.name, "data.npz", data[half:], offset=half)
    assert refusal_of(caught.value).reason == "DISK_FULL"
    committed = (
        small.stub.GetUpload(pb.GetUploadRequest(name=opened.name), timeout=SECONDS).files[0].committed
    )
    assert half <= committed < len(data)
    small.make_room()
    write(small.stub, opened.name, "data.npz", data[committed:], offset=committed)
    done = small.stub.CompleteUpload(pb.CompleteUploadRequest(name=opened.name), timeout=SECONDS)
    assert done.state == pb.UPLOAD_STATE_COMPLETE


def test_a_database_without_room_loses_nothing(start_small: StartSmall) -> None:
    """With not a byte left writes are refused with the reason, reads go on; afterwards all is as it was."""
    small = start_small(reserve=0)
    uri = upload(small.stub, npz())
    small.fill()
    begun, answer = begin_until_refused(small.stub)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DISK_FULL")
    listed = small.stub.ListUploads(pb.ListUploadsRequest(page_size=1000), timeout=SECONDS).uploads
    assert listed[-1].object == uri
    assert len(listed) == 1 + begun  # those that were answered with OK are there, the refused one is not
    small.make_room()
    assert upload(small.stub, b"new bytes", "b").startswith("objects/")
    assert small.server.stop() == 0
    assert not [line for line in small.server.log_lines() if line.get("level") == "error"]


def test_a_checkpoint_that_finds_no_room_is_made_later(start_small: StartSmall) -> None:
    """Without a byte left the job trains on, and the next checkpoint after there is room is stored."""
    small = start_small(reserve=0, workers="1", checkpoint_seconds="0.2", lease_seconds="100")
    job = small.job(epochs=800)
    small.wait_for("checkpoint.recorded")
    # Whatever the server lets go meanwhile is taken, too.
    full = small.wait_for("checkpoint.not_written", meanwhile=small.fill)
    small.make_room()
    small.wait_for("checkpoint.recorded", after=full)
    assert small.succeeded_at_once(job)
    assert small.server.stop() == 0
    assert not [line for line in small.server.log_lines() if line.get("level") == "error"]


def test_an_artifact_waits_for_room(start_small: StartSmall) -> None:
    """Nothing goes below the reserve; what was trained is stored when there is room, and no attempt is spent."""
    small = start_small(reserve=12 * MIB, workers="1", checkpoint_seconds="0.2")
    job = small.job(epochs=300)
    small.wait_for("checkpoint.recorded")
    small.leave(10 * MIB)
    uploading = small.wait_for("attempt.uploading")
    small.wait_for("storage.away", after=uploading)
    now = small.stub.GetJob(pb.GetJobRequest(name=job.name), timeout=SECONDS)
    assert now.state == pb.JOB_STATE_RUNNING
    small.make_room()
    assert small.succeeded_at_once(job)
    assert small.server.stop() == 0
    assert not [line for line in small.server.log_lines() if line.get("level") == "error"]


def begin_until_refused(stub: Stub) -> tuple[int, Refusal]:
    """How many uploads began, and why the next one did not: the first may find room that the database has."""
    for number in range(1000):
        try:
            stub.CreateUpload(announced(number.to_bytes(2)), timeout=SECONDS)
        except grpc.RpcError as error:
            return number, refusal_of(error)
    raise AssertionError("a thousand uploads began on a full disk")
