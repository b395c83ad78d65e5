"""Files on this side of a transfer: what is sent, and what is received.  Transport-free."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ._pb import pb
from .errors import InvalidArgument, TransferFailed
from .model import ArtifactFile
from .urls import Part

CHUNK_BYTES = 1 << 20
TIMEOUT = 600.0  # seconds for one call; a longer transfer resumes
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A file to send, as it was when it was hashed; `path` is what the server calls it."""

    source: Path
    path: str
    size: int
    sha256: str

    @classmethod
    def read(cls, source: Path, path: str) -> LocalFile:
        """Hash a file."""
        with source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(source=source, path=path, size=source.stat().st_size, sha256=digest)

    def committed(self, upload: pb.Upload) -> int:
        """Bytes of this file that the server has stored."""
        return int(self._announced(upload).committed)

    def write_requests(self, upload: pb.Upload, offset: int) -> Iterator[pb.WriteObjectRequest]:
        """What is missing of the file from `offset` on, in chunks."""
        chunk_bytes = min(CHUNK_BYTES, self._announced(upload).write_object.max_chunk_bytes or CHUNK_BYTES)
        with self.source.open("rb") as stream:
            stream.seek(offset)
            first = pb.WriteObjectRequest(upload=upload.name, path=self.path, offset=offset)
            while data := stream.read(chunk_bytes):
                first.data = data
                yield first
                first = pb.WriteObjectRequest()

    def check_unchanged(self) -> None:
        """Raises TransferFailed where the file is gone, or not as long any more as when it was hashed."""
        try:
            unchanged = self.source.stat().st_size == self.size
        except OSError:
            unchanged = False
        if not unchanged:
            raise TransferFailed(f"{self.source} changed while it was sent") from None

    def missing_parts(self, upload: pb.Upload) -> Iterator[Part]:
        """What is missing of the file, where it goes in parts by URL."""
        transfer = self._announced(upload).parts
        for part in transfer.urls:
            offset = (part.number - 1) * transfer.part_bytes
            yield Part(
                source=self.source,
                offset=offset,
                size=min(transfer.part_bytes, self.size - offset),
                url=part.url,
            )

    def _announced(self, upload: pb.Upload) -> pb.UploadFile:
        return next(file for file in upload.files if file.path == self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalObject:
    """What becomes one object: a file, or all files of a folder but hidden ones, by relative path."""

    files: tuple[LocalFile, ...]

    @classmethod
    def read(cls, source: Path, field: str, *, folders: bool = True) -> LocalObject:
        """Hash a file, or with `folders` a folder.  Raises InvalidArgument for `field` where there is none."""
        if source.is_file():
            return cls(files=_hashed([source], source.parent, field))
        if not source.exists():
            raise InvalidArgument.of(field, f"there is no file {source}; give a file or an s3:// URI")
        if not source.is_dir() or not folders:
            raise InvalidArgument.of(field, f"{source} is not a file")
        found = sorted(path for path in source.rglob("*") if path.is_file())
        paths = [path.relative_to(source) for path in found]
        shown = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
        if not shown:
            raise InvalidArgument.of(field, f"the folder {source} holds no files")
        return cls(files=_hashed([source / path for path in shown], source, field))

    def create_request(self, request_id: str) -> pb.CreateUploadRequest:
        """Starts an upload."""
        files = [pb.UploadFile(path=file.path, size=file.size, sha256=file.sha256) for file in self.files]
        return pb.CreateUploadRequest(files=files, request_id=request_id)

    def committed(self, upload: pb.Upload) -> int:
        """Bytes of all files that the server has stored."""
        return sum(file.committed(upload) for file in self.files)

    def missing_parts(self, upload: pb.Upload) -> list[Part]:
        """What is missing of every file that goes in parts by URL."""
        return [part for file in self.files for part in file.missing_parts(upload)]

    def unfinished(self, uploads: Sequence[pb.Upload]) -> pb.Upload | None:
        """The open upload of these very bytes, if an earlier run left one."""
        own = {(file.path, file.sha256) for file in self.files}
        for upload in uploads:
            same = {(file.path, file.sha256) for file in upload.files} == own
            if same and upload.state == pb.UPLOAD_STATE_OPEN:
                return upload
        return None


def _hashed(sources: Sequence[Path], folder: Path, field: str) -> tuple[LocalFile, ...]:
    """Files by their paths within `folder`.  Raises InvalidArgument for a name that is no text."""
    files = []
    for source in sources:
        path = source.relative_to(folder).as_posix()
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InvalidArgument.of(field, f"the name of {path!a} is not UTF-8; rename the file") from None
        files.append(LocalFile.read(source, path))
    return tuple(files)


def target(folder: Path, path: str) -> Path:
    """Where a file of an artifact goes.  Raises TransferFailed for a path that would leave the folder."""
    parts = path.split("/")
    unsafe = any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts)
    place = folder.joinpath(*parts)
    if unsafe or _DRIVE.match(path) or not place.resolve().is_relative_to(folder.resolve()):
        raise TransferFailed(f"the server sent the unsafe path {path!r}; nothing was written there")
    return place


class IncomingFile:
    """A file on its way into `folder`.

    Bytes gather in a temporary file beside the target, named after their hash, so that a later run resumes;
    the target appears whole and verified, or not at all.
    """

    def __init__(self, file: ArtifactFile, folder: Path) -> None:
        self.file = file
        self.target = target(folder, file.path)
        self._part = self.target.with_name(f".{self.target.name}.{file.sha256[:16]}.part")
        self.target.parent.mkdir(parents=True, exist_ok=True)

    @property
    def is_there(self) -> bool:
        """Whether the target already holds these bytes."""
        return self.target.is_file() and _sha256(self.target) == self.file.sha256

    @property
    def position(self) -> int:
        """Bytes received so far."""
        return self._part.stat().st_size if self._part.exists() else 0

    @property
    def is_complete(self) -> bool:
        """Whether every byte has come."""
        return self.position >= self.file.size

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with self._part.open("ab") as stream:
            stream.write(data)

    def finish(self) -> Path:
        """Verify size and SHA-256 and move the file to its place.  Raises TransferFailed."""
        self._part.touch()
        if self.position != self.file.size or _sha256(self._part) != self.file.sha256:
            self._part.unlink()
            raise TransferFailed(f"{self.file.path} arrived damaged and was dropped; download it again")
        return self._part.replace(self.target)


def goes_by_url(upload: pb.Upload) -> bool:
    """Whether the files go in parts by URL; otherwise they go through WriteObject."""
    return any(file.WhichOneof("transfer") == "parts" for file in upload.files)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
