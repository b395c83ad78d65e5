"""access/certificates.py and opening.py: what a server refuses to start with."""

from pathlib import Path
from typing import Any

import pytest
from credentials import AUDIENCE, ISSUER, Authority, Issuer, make_token, write_jwks

from npn_service.access.certificates import Certificates
from npn_service.access.opening import open_access
from npn_service.errors import StartupError
from npn_service.settings import Settings

AUTHORITY = Authority.make()


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """A pair that is none is named before a client finds out."""
    cert, _ = AUTHORITY.issue(tmp_path, "one")
    _, key = AUTHORITY.issue(tmp_path, "two")
    with pytest.raises(StartupError, match=r"two\.key is not the key of"):
        Certificates(cert_file=cert, key_file=key, client_ca_file=None)


@pytest.mark.parametrize("broken", ["cert_file", "key_file", "client_ca_file"])
@pytest.mark.parametrize("content", [b"no PEM", None])
def test_files_that_are_none_are_named(tmp_path: Path, broken: str, content: bytes | None) -> None:
    """Whichever of the files is missing or damaged, the message has its path."""
    cert, key = AUTHORITY.issue(tmp_path)
    files = {"cert_file": cert, "key_file": key, "client_ca_file": AUTHORITY.write(tmp_path / "ca.crt")}
    files[broken].unlink() if content is None else files[broken].write_bytes(content)
    with pytest.raises(StartupError, match=files[broken].name):
        Certificates(**files)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"listen": "0.0.0.0:0"}, "NPN_ALLOW_ANONYMOUS=1"),
        ({"listen": "[::]:0"}, "NPN_ALLOW_ANONYMOUS=1"),
        ({"listen": "example.org:0"}, "NPN_ALLOW_ANONYMOUS=1"),
        ({"tls_cert_file": "x"}, "NPN_TLS_KEY_FILE is not set"),
        ({"tls_client_ca_file": "x"}, "NPN_TLS_CERT_FILE is not set"),
        ({"tokens_file": "nowhere"}, "npn-server token add"),
        ({"oidc_issuer": ISSUER}, "NPN_OIDC_AUDIENCE and NPN_OIDC_JWKS"),
        (
            {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": "nowhere"},
            "NPN_OIDC_JWKS: nowhere",
        ),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    """A server that would let everybody in, or nobody, does not start, and says which setting helps."""
    with pytest.raises(StartupError) as caught:
        open_access(Settings(**given))
    assert message in str(caught.value)


def test_anonymous_callers_and_tokens_exclude_each_other(tmp_path: Path) -> None:
    """A flag that is left over from a trial does not open a guarded server."""
    make_token(tmp_path / "tokens.json")
    with pytest.raises(StartupError, match="NPN_ALLOW_ANONYMOUS"):
        open_access(Settings(tokens_file=tmp_path / "tokens.json", allow_anonymous=True))


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:0"])
def test_loopback_needs_no_token(listen: str) -> None:
    """A server on one's own machine works without any setting."""
    assert not open_access(Settings(listen=listen)).authenticator.wants_token


def test_any_guard_allows_any_address(tmp_path: Path) -> None:
    """Tokens of the file, an issuer, or the operator's word."""
    make_token(tmp_path / "tokens.json")
    jwks = write_jwks(tmp_path / "jwks.json", Issuer())
    oidc = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": str(jwks)}
    for given in ({"tokens_file": tmp_path / "tokens.json"}, oidc):
        assert open_access(Settings(listen="0.0.0.0:0", **given)).authenticator.wants_token  # type: ignore[arg-type]
    assert not open_access(Settings(listen="0.0.0.0:0", allow_anonymous=True)).authenticator.wants_token
