"""From a call's `authorization` header to its identity."""

from collections.abc import Iterable
from datetime import UTC, datetime

from npn_service.errors import Unauthenticated

from .identity import ANONYMOUS, Identity
from .oidc import OidcVerifier
from .tokens import PREFIX, TokenTable


class Authenticator:
    """Knows the tokens of the file, those of the issuer, or, without either, nobody: then all are ANONYMOUS."""

    def __init__(self, *, tokens: TokenTable | None, oidc: OidcVerifier | None) -> None:
        self._tokens = tokens
        self._oidc = oidc

    @property
    def wants_token(self) -> bool:
        """Whether callers must show a token."""
        return self._tokens is not None or self._oidc is not None

    async def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Who calls.  Raises Unauthenticated (TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, CLAIM_INVALID)."""
        if not self.wants_token:
            return ANONYMOUS
        identity = await self._find(_bearer(metadata))
        self.check(identity)
        return identity

    def check(self, identity: Identity) -> None:
        """Whether an identity still holds, as a stream goes on.  Raises Unauthenticated."""
        if identity.expire_time is not None and identity.expire_time <= datetime.now(UTC):
            raise Unauthenticated("the token has expired; get a new one", reason="TOKEN_EXPIRED")
        if identity.token_id and not (self._tokens is not None and self._tokens.knows(identity)):
            raise Unauthenticated("the token was revoked or changed", reason="TOKEN_INVALID")

    async def _find(self, text: str) -> Identity:
        if self._tokens is not None and text.startswith(PREFIX):
            return self._tokens.find(text)
        if self._oidc is not None:
            return await self._oidc.find(text)
        raise Unauthenticated("the token is not valid here", reason="TOKEN_INVALID")


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    headers = [value for key, value in metadata if key == "authorization"]
    if not headers:
        raise Unauthenticated(
            "this server wants a token: send the header authorization: Bearer TOKEN", reason="TOKEN_MISSING"
        )
    scheme, _, text = str(headers[0]).partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not text:
        raise Unauthenticated(
            "the header authorization must be sent once, as Bearer TOKEN", reason="TOKEN_INVALID"
        )
    return text
