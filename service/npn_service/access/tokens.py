"""Bearer tokens and the file that knows them.

A token is `npn_{id}_{secret}` with 256 random bits of secret.  The file holds SHA-256 of the secret alone.  A
slow hash (bcrypt, argon2) makes guessing expensive where secrets are guessable; nobody guesses 256 random
bits, and a slow hash would let a stranger keep the server busy with wrong tokens.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from npn_core.strict_json import from_json, to_json
from npn_service.errors import StartupError, Unauthenticated

from .files import stamp
from .identity import Identity, Scope

FORMAT_VERSION = 1
PREFIX = "npn_"
_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_READ_PREFIX = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?:[^\x00-\x1f\x7f]*/)?")
# Others may not write the file, and strangers not read it.  A group may: Kubernetes mounts Secrets that way.
_FORBIDDEN_MODE = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
# What the secret of an unknown id is compared with, so that it takes as long as that of a known one.
_NO_HASH = hashlib.sha256(secrets.token_bytes(32)).hexdigest()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One entry of the file: whom a token stands for, and the hash of its secret.  Raises ValueError."""

    id: str
    sha256: str
    owner: str
    subject: str
    scopes: tuple[Scope, ...]
    read_prefixes: tuple[str, ...]
    create_time: datetime
    expire_time: datetime

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{12}", self.id) or not _SHA256.fullmatch(self.sha256):
            raise ValueError("a token has an id of 12 and a sha256 of 64 lower-case hexadecimal digits")
        if not self.scopes:
            raise ValueError(f"token {self.id} has no scope; give {', '.join(s.value for s in Scope)}")
        if self.create_time.tzinfo is None or self.expire_time.tzinfo is None:
            raise ValueError(f"the times of token {self.id} need a zone, like 2026-01-31T00:00:00+00:00")
        for prefix in self.read_prefixes:
            if not _READ_PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
                raise ValueError(
                    f"{prefix!r} is no prefix to read; write s3://BUCKET/ or s3://BUCKET/FOLDER/"
                )
        _ = self.identity  # checks owner and subject

    @property
    def identity(self) -> Identity:
        """Whom the token stands for."""
        return Identity(
            owner=self.owner,
            subject=self.subject,
            scopes=frozenset(self.scopes),
            read_prefixes=self.read_prefixes,
            expire_time=self.expire_time,
            token_id=self.id,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Document:
    format_version: int
    tokens: tuple[Token, ...]


class TokenFile:
    """The file as its administrator changes it: whole and atomically, one change at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Mapping[str, Token]:
        """The tokens by id.  Raises OSError, and ValueError saying what is wrong with the file."""
        with self.path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _FORBIDDEN_MODE:
                found = f"{stat.S_IMODE(mode):04o}"
                raise ValueError(f"others may write it, or strangers read it (mode {found}); chmod 600 it")
            document = from_json(_Document, json.load(file))
        if document.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version is {document.format_version}; known is {FORMAT_VERSION}")
        tokens = {token.id: token for token in document.tokens}
        if len(tokens) < len(document.tokens):
            raise ValueError("two tokens have the same id")
        return tokens

    def add(
        self,
        *,
        owner: str,
        subject: str,
        scopes: Sequence[Scope],
        read_prefixes: Sequence[str],
        expire_time: datetime,
    ) -> tuple[str, Token]:
        """Make a token; returns its text, which nothing keeps, and its entry.  Makes the file when absent.

        Raises ValueError.
        """
        secret = secrets.token_urlsafe(32)
        token = Token(
            id=secrets.token_hex(6),
            sha256=_hash(secret),
            owner=owner,
            subject=subject,
            scopes=tuple(dict.fromkeys(scopes)),
            read_prefixes=tuple(read_prefixes),
            create_time=datetime.now(UTC).replace(microsecond=0),
            expire_time=expire_time,
        )
        with self._changing() as tokens:
            tokens[token.id] = token
        return f"{PREFIX}{token.id}_{secret}", token

    def revoke(self, token_id: str) -> Token:
        """Remove a token.  Raises KeyError where there is none of this id."""
        with self._changing() as tokens:
            return tokens.pop(token_id)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """The tokens to change; written when the block ends without an error."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed
            tokens = dict(self.read()) if self.path.exists() else {}
            yield tokens
            document = _Document(format_version=FORMAT_VERSION, tokens=tuple(tokens.values()))
            self._write(json.dumps(to_json(document), indent=2) + "\n")
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, text: str) -> None:
        """Replace the file; it keeps its mode and, where this process may say so, its owner."""
        number, unfinished = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # mode 0600
        try:
            with os.fdopen(number, "w") as file:
                file.write(text)
                if self.path.exists():
                    old = self.path.stat()
                    os.fchmod(number, stat.S_IMODE(old.st_mode))
                    with suppress(PermissionError):
                        os.fchown(number, old.st_uid, old.st_gid)
                file.flush()
                os.fsync(number)
            Path(unfinished).replace(self.path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise


class TokenTable:
    """The tokens that a running server takes; follows the file."""

    def __init__(self, path: Path) -> None:
        self._file = TokenFile(path)
        self._stamp = stamp([path])
        try:
            self._tokens = self._file.read()
        except (OSError, ValueError) as error:
            raise StartupError(
                f"NPN_TOKENS_FILE: {path} cannot be used: {error}; npn-server token add makes such a file"
            ) from error

    def refresh(self) -> None:
        """Read the file again once it has changed; a broken one changes nothing."""
        found = stamp([self._file.path])
        if found == self._stamp:
            return
        self._stamp = found
        try:
            self._tokens = self._file.read()
        except (OSError, ValueError) as error:
            _log.error("tokens.broken", path=str(self._file.path), error=str(error))
        else:
            _log.info("tokens.read", count=len(self._tokens))

    def find(self, text: str) -> Identity:
        """Whom a token stands for.  Raises Unauthenticated, which never says how close it came."""
        match = _TOKEN.fullmatch(text)
        token = self._tokens.get(match[1]) if match else None
        digest = _hash(match[2] if match else "")
        if not hmac.compare_digest(digest, token.sha256 if token else _NO_HASH) or token is None:
            raise Unauthenticated("the token is not valid here", reason="TOKEN_INVALID")
        return token.identity

    def knows(self, identity: Identity) -> bool:
        """Whether the file still has the token as it was when it was shown."""
        token = self._tokens.get(identity.token_id)
        return token is not None and token.identity == identity


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
