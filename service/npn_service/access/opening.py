"""The settings on access, put together: who is let in, and over what."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from npn_service.errors import StartupError
from npn_service.settings import Settings

from .authenticator import Authenticator
from .certificates import Certificates
from .files import Refreshed
from .identity import Scope
from .oidc import Claims, KeySet, OidcVerifier
from .tokens import TokenTable

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Who may call.  `certificates` is None for plain text; `refreshed` is read again while the server runs."""

    authenticator: Authenticator
    certificates: Certificates | None
    refreshed: Sequence[Refreshed]


def open_access(settings: Settings) -> Access:
    """Read tokens, keys and certificates.  May block; raises StartupError where they cannot be used.

    A server without tokens is for the users of its machine: it listens on loopback alone, unless its operator
    says that everybody who reaches it may use it.
    """
    tokens = None if settings.tokens_file is None else TokenTable(settings.tokens_file)
    keys = _open_keys(settings)
    certificates = _open_certificates(settings)
    guarded = tokens is not None or keys is not None
    _check_address(settings, guarded=guarded, encrypted=certificates is not None)
    return Access(
        authenticator=Authenticator(
            tokens=tokens, oidc=None if keys is None else OidcVerifier(keys, _claims(settings))
        ),
        certificates=certificates,
        refreshed=[each for each in (tokens, keys, certificates) if each is not None],
    )


def _check_address(settings: Settings, *, guarded: bool, encrypted: bool) -> None:
    if guarded and settings.allow_anonymous:
        raise StartupError(
            "NPN_ALLOW_ANONYMOUS lets everybody in; unset it, or NPN_TOKENS_FILE and NPN_OIDC_*"
        )
    if _is_loopback(settings.listen):
        return
    if not guarded and not settings.allow_anonymous:
        raise StartupError(
            f"anybody who reaches {settings.listen} could use this server: set NPN_TOKENS_FILE (see npn-server "
            "token add) or NPN_OIDC_ISSUER, listen on 127.0.0.1, or set NPN_ALLOW_ANONYMOUS=1 to allow that"
        )
    if guarded and not encrypted:
        _log.warning(
            "tokens_in_plain_text", listen=settings.listen, fix="set NPN_TLS_CERT_FILE, or a TLS proxy"
        )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _open_certificates(settings: Settings) -> Certificates | None:
    cert, key, client_ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        missing = "NPN_TLS_CERT_FILE" if cert is None else "NPN_TLS_KEY_FILE"
        raise StartupError(f"{missing} is not set; TLS needs a certificate and its key")
    return Certificates(cert_file=cert, key_file=key, client_ca_file=client_ca)


def _open_keys(settings: Settings) -> KeySet | None:
    parts = {
        "NPN_OIDC_ISSUER": settings.oidc_issuer,
        "NPN_OIDC_AUDIENCE": settings.oidc_audience,
        "NPN_OIDC_JWKS": settings.oidc_jwks,
    }
    missing = [name for name, value in parts.items() if not value]
    if len(missing) == len(parts):
        return None
    if missing:
        raise StartupError(f"{' and '.join(missing)} must be set too: issuer, audience and keys go together")
    return KeySet(settings.oidc_jwks)


def _claims(settings: Settings) -> Claims:
    return Claims(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        owner=settings.oidc_owner_claim,
        scopes=settings.oidc_scopes_claim,
        prefixes=settings.oidc_prefixes_claim,
        default_scopes=frozenset(Scope(word) for word in settings.oidc_default_scopes.split()),
    )
