"""JSON Web Tokens of an OpenID Connect issuer.

Only asymmetric algorithms are taken, each key with its own alone, so that a public key never serves as an
HMAC secret.  Keys come from a file or an https URL; what a caller sends can make the server ask for them at
most every half minute, and never on the event loop.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import structlog

from npn_service.errors import StartupError, Unauthenticated

from .files import stamp
from .identity import Identity, Scope

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
LEEWAY_SECONDS = 30  # how far two clocks may be apart
SCOPE_PREFIX = "npn:"
_REFRESH_SECONDS = 300.0
_COOLDOWN_SECONDS = 30.0
_FETCH_SECONDS = 5.0

_log = structlog.get_logger(__name__)

Keys = Mapping[str, jwt.PyJWK]


class KeySet:
    """The issuer's keys by `kid`.

    They are read again every five minutes, and for a `kid` that is not among them, but then not within half a
    minute of the last time.  Where they cannot be read the last ones stay.
    """

    def __init__(
        self,
        source: str,
        *,
        refresh_seconds: float = _REFRESH_SECONDS,
        cooldown_seconds: float = _COOLDOWN_SECONDS,
    ) -> None:
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._cooldown_seconds = cooldown_seconds
        self._path = None if source.startswith("https://") else Path(source)
        self._stamp = stamp([self._path]) if self._path else None
        self._read: Callable[[], jwt.PyJWKSet] = (
            jwt.PyJWKClient(source, cache_jwk_set=False, timeout=_FETCH_SECONDS).get_jwk_set
            if self._path is None
            else self._read_file
        )
        self._keys: Keys = {}
        self._asking = asyncio.Lock()
        self._asked = 0.0  # when the last answer, or refusal, was there
        error = self._update()
        if error is not None and self._path is not None:
            raise StartupError(f"NPN_OIDC_JWKS: {source} cannot be used: {error}") from error

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key, or None.  Asks for the keys anew where it is not known, if that was not done just before."""
        if kid not in self._keys:
            async with self._asking:
                if kid not in self._keys and time.monotonic() - self._asked > self._cooldown_seconds:
                    await asyncio.to_thread(self._update)
        return self._keys.get(kid)

    def refresh(self) -> None:
        """Read a file that has changed, or ask the URL when its time has come."""
        found = stamp([self._path]) if self._path else None
        if found == self._stamp and (self._path or time.monotonic() - self._asked < self._refresh_seconds):
            return
        self._stamp = found
        self._update()

    def _update(self) -> Exception | None:
        """Take over the keys, or log and return why that is not possible."""
        try:
            found = {key.key_id: key for key in self._read() if _signs(key)}
        except (OSError, ValueError, jwt.PyJWTError) as error:
            _log.error("oidc.keys_unavailable", source=self._source, error=str(error))
            return error
        finally:
            self._asked = time.monotonic()
        self._keys = {kid: key for kid, key in found.items() if kid is not None}
        return None

    def _read_file(self) -> jwt.PyJWKSet:
        document = json.loads(Path(self._source).read_text())
        if not isinstance(document, dict):
            raise ValueError("the file holds no JSON object with keys")
        return jwt.PyJWKSet.from_dict(document)


def _signs(key: jwt.PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What must be in a token, and where owner, scopes and prefixes stand.

    Scopes are those words of `scopes` (a list, or one string with spaces) that begin with "npn:"; a token
    without that claim gets `default_scopes`.  `prefixes` is a list of s3:// prefixes.
    """

    issuer: str
    audience: str
    owner: str = "sub"
    scopes: str = "scope"
    prefixes: str = "npn_read_prefixes"
    default_scopes: frozenset[Scope] = frozenset()

    def identity(self, claims: Mapping[str, Any]) -> Identity:
        """Whom verified claims stand for.  Raises Unauthenticated (CLAIM_INVALID)."""
        owner, subject = claims.get(self.owner), claims["sub"]
        if not isinstance(owner, str):
            raise _refused(f"the claim {self.owner} must be one string; it is the owner", "CLAIM_INVALID")
        try:
            return Identity(
                owner=owner,
                subject=subject,
                scopes=self._scopes(claims),
                read_prefixes=self._prefixes(claims),
                expire_time=datetime.fromtimestamp(claims["exp"] + LEEWAY_SECONDS, UTC),
            )
        except (ValueError, OverflowError) as error:
            raise _refused(str(error), "CLAIM_INVALID") from error

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        if self.scopes not in claims:
            return self.default_scopes
        found = claims[self.scopes]
        words = set(found.split() if isinstance(found, str) else _strings(self.scopes, found))
        return frozenset(scope for scope in Scope if SCOPE_PREFIX + scope.value in words)

    def _prefixes(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(_strings(self.prefixes, claims.get(self.prefixes, [])))


class OidcVerifier:
    """Turns a token that the issuer signed into an identity."""

    def __init__(self, keys: KeySet, claims: Claims) -> None:
        self._keys = keys
        self._claims = claims

    async def find(self, text: str) -> Identity:
        """Whom a token stands for.  Raises Unauthenticated."""
        try:
            kid = jwt.get_unverified_header(text).get("kid")
        except jwt.PyJWTError as error:
            raise _refused("the token is not valid here", "TOKEN_INVALID") from error
        key = await self._keys.find(kid) if isinstance(kid, str) else None
        if key is None:
            raise _refused("the token names no key of the issuer", "TOKEN_INVALID")
        return self._claims.identity(self._verified(text, key))

    def _verified(self, text: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],
                audience=self._claims.audience,
                issuer=self._claims.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError as error:
            raise _refused("the token has expired; get a new one", "TOKEN_EXPIRED") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # which check failed helps its owner, and tells nothing that the token does not say itself
            raise _refused(f"the token is not valid here: {error}", "TOKEN_INVALID") from error
        return claims


def _strings(claim: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"the claim {claim} must be a list of strings")
    return value


def _refused(message: str, reason: str) -> Unauthenticated:
    return Unauthenticated(message, reason=reason)
