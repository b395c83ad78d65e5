"""Files on the client's side of a transfer, and when an interrupted one goes on."""

import hashlib
import os
from pathlib import Path

import pytest

from npn_client import ArtifactFile, InvalidArgument, NotFound, TransferFailed, Unavailable
from npn_client.retry import ATTEMPTS, Resumption
from npn_client.transfer import IncomingFile, LocalObject, target


def artifact_file(data: bytes, path: str = "model.pt2") -> ArtifactFile:
    """A file with a true size and hash."""
    digest = hashlib.sha256(data).hexdigest()
    return ArtifactFile(name=f"jobs/1/artifact/{path}", path=path, size=len(data), sha256=digest)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\\b", "C:evil", "a/\0", "a/\x1b[2J", ".."],
)
def test_unsafe_paths(path: str, tmp_path: Path) -> None:
    """A path that would leave the folder, or hide in a terminal, is refused."""
    with pytest.raises(TransferFailed, match="unsafe path"):
        target(tmp_path, path)


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    """A link inside the folder does not lead a file out of it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path)
    with pytest.raises(TransferFailed, match="unsafe path"):
        target(tmp_path / "out", "link/file")


def test_a_file_appears_whole(tmp_path: Path) -> None:
    """Until everything came and was verified there is no target; then there is nothing else."""
    incoming = IncomingFile(artifact_file(b"abcdef", "sub/x"), tmp_path)
    incoming.write(b"abc")
    assert not incoming.target.exists()
    assert IncomingFile(artifact_file(b"abcdef", "sub/x"), tmp_path).position == 3
    incoming.write(b"def")
    assert incoming.is_complete
    assert incoming.finish().read_bytes() == b"abcdef"
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["x"]
    assert incoming.is_there


@pytest.mark.parametrize("data", [b"abcdeX", b"abcdefg"])
def test_a_damaged_file(data: bytes, tmp_path: Path) -> None:
    """Wrong bytes, or too many, are dropped; what was there before stays."""
    (tmp_path / "model.pt2").write_bytes(b"before")
    incoming = IncomingFile(artifact_file(b"abcdef"), tmp_path)
    incoming.write(data)
    with pytest.raises(TransferFailed, match="damaged"):
        incoming.finish()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_an_empty_file(tmp_path: Path) -> None:
    """A file without bytes arrives, too."""
    assert IncomingFile(artifact_file(b""), tmp_path).finish().read_bytes() == b""


def test_files_that_cannot_be_sent(tmp_path: Path) -> None:
    """A missing file, a folder without files, and one where a file is needed name the field."""
    for path, folders in ((tmp_path / "absent.npz", True), (tmp_path, True), (tmp_path, False)):
        with pytest.raises(InvalidArgument, match=path.name) as raised:
            LocalObject.read(path, "job.dataset.uri", folders=folders)
        assert raised.value.violations[0].field == "job.dataset.uri"


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """The server's names are UTF-8."""
    path = tmp_path / os.fsdecode(b"caf\xe9.npz")
    path.write_bytes(b"")
    for source in (path, tmp_path):
        with pytest.raises(InvalidArgument, match=r"caf.*rename the file"):
            LocalObject.read(source, "job.dataset.uri")


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    """Relative paths in one order, nothing hidden."""
    for path in ("b.parquet", "a/1.parquet", ".cache/x", "a/.DS_Store"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    local = LocalObject.read(tmp_path, "job.dataset.uri")
    assert [(file.path, file.size) for file in local.files] == [("a/1.parquet", 11), ("b.parquet", 9)]
    announced = local.create_request("1").files
    assert announced[0].sha256 == hashlib.sha256(b"a/1.parquet").hexdigest()


def test_a_transfer_goes_on_while_bytes_get_through() -> None:
    """Progress excuses any number of interruptions; without any the last error is raised."""
    resumption = Resumption(0)
    for position in range(1, 50):
        assert resumption.after(position, Unavailable("away")) <= 0.2
    for _ in range(ATTEMPTS - 1):
        resumption.after(49, Unavailable("away"))
    with pytest.raises(Unavailable):
        resumption.after(49, Unavailable("away"))


def test_a_transfer_that_cannot_work_ends_at_once() -> None:
    """An error that does not pass by itself is not waited for, and endless early ends are an error."""
    with pytest.raises(NotFound):
        Resumption(0).after(0, NotFound("gone"))
    resumption = Resumption(0)
    for _ in range(ATTEMPTS):
        resumption.after(0, None)
    with pytest.raises(TransferFailed, match="ended early"):
        resumption.after(0, None)
