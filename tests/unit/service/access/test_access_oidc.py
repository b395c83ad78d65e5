"""access/oidc.py: which JSON Web Tokens are taken, and what an attacker's cost."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from credentials import AUDIENCE, ISSUER, Authority, Issuer, Published, publish, write_jwks
from cryptography.hazmat.primitives import serialization

from npn_service.access.identity import Scope
from npn_service.access.oidc import Claims, KeySet, OidcVerifier
from npn_service.errors import Unauthenticated

OWN = Issuer()


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    """The keys of the issuer."""
    return write_jwks(tmp_path / "jwks.json", OWN)


def find(jwks: Path, text: str, **claims: Any) -> Any:
    """Whom a token stands for."""
    verifier = OidcVerifier(KeySet(str(jwks)), Claims(issuer=ISSUER, audience=AUDIENCE, **claims))
    return asyncio.run(verifier.find(text))


def test_a_signed_token_stands_for_its_claims(jwks: Path) -> None:
    """Owner, subject, scopes and prefixes come from the claims that the settings name."""
    text = OWN.sign(sub="repo:x", team="vision", npn_read_prefixes=["s3://data/vision/"])
    identity = find(jwks, text, owner="team")
    assert (identity.owner, identity.subject) == ("vision", "repo:x")
    assert identity.scopes == {Scope.READ, Scope.WRITE}
    assert identity.read_prefixes == ("s3://data/vision/",)
    assert identity.expire_time is not None


def test_scopes_may_be_a_list_or_absent(jwks: Path) -> None:
    """Other words than npn:SCOPE mean nothing; without the claim there are the default ones."""
    assert find(jwks, OWN.sign(scope=["npn:admin", "read"])).scopes == {Scope.ADMIN}
    assert find(jwks, OWN.sign(scope="read write admin")).scopes == frozenset()
    default = frozenset({Scope.READ})
    assert find(jwks, OWN.sign(drop="scope"), default_scopes=default).scopes == default
    assert find(jwks, OWN.sign(scope="x"), default_scopes=default).scopes == frozenset()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": time.time() - 60}, "TOKEN_EXPIRED"),
        ({"nbf": time.time() + 3600}, "TOKEN_INVALID"),
        ({"iss": "https://other.test"}, "TOKEN_INVALID"),
        ({"aud": "other"}, "TOKEN_INVALID"),
        ({"sub": 7}, "TOKEN_INVALID"),
        ({"sub": "../x"}, "CLAIM_INVALID"),
        ({"sub": "a/b"}, "CLAIM_INVALID"),
        ({"scope": 7}, "CLAIM_INVALID"),
        ({"npn_read_prefixes": "s3://"}, "CLAIM_INVALID"),
        *(({"drop": claim}, "TOKEN_INVALID") for claim in ("exp", "iss", "aud", "sub")),
    ],
)
def test_tokens_for_others_are_refused(jwks: Path, claims: dict[str, Any], reason: str) -> None:
    """Expired, not yet valid, of another issuer, for another audience, or with claims that are none."""
    with pytest.raises(Unauthenticated) as caught:
        find(jwks, OWN.sign(**claims))
    assert caught.value.reason == reason


def forged() -> dict[str, str]:
    """Tokens that nobody signed, by attack."""
    good = OWN.sign()
    header, body, signature = good.split(".")
    public = OWN.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    confused = f"{part({'alg': 'HS256', 'kid': OWN.kid})}.{body}"
    mac = hmac.new(public, confused.encode(), hashlib.sha256).digest()
    return {
        "no signature": f"{header}.{body}.",
        "algorithm none": f"{part({'alg': 'none', 'kid': OWN.kid})}.{body}.",
        "public key as HMAC secret": f"{confused}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
        "another's key under this kid": Issuer(OWN.kid).sign(),
        "another body": f"{header}.{part({'sub': 'admin'})}.{signature}",
        "no kid": jwt.encode({"sub": "x"}, OWN.key, algorithm="ES256"),
        "no token": "hello",
        "empty parts": "..",
    }


@pytest.mark.parametrize("attack", forged())
def test_forged_tokens_are_refused(jwks: Path, attack: str) -> None:
    """Only the issuer's own signature, by the key's own algorithm, counts."""
    with pytest.raises(Unauthenticated) as caught:
        find(jwks, forged()[attack])
    assert caught.value.reason == "TOKEN_INVALID"


def test_keys_are_rotated_without_a_restart(jwks: Path) -> None:
    """A new key counts once the file is read again; a broken file changes nothing."""
    second = Issuer("second")
    keys = KeySet(str(jwks))
    assert asyncio.run(keys.find("second")) is None
    write_jwks(jwks, second)
    keys.refresh()
    assert asyncio.run(keys.find("second")) is not None
    assert asyncio.run(keys.find(OWN.kid)) is None
    jwks.write_text("{")
    keys.refresh()
    assert asyncio.run(keys.find("second")) is not None


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    """An https server with the issuer's keys, whose authority this process trusts."""
    authority = Authority.make()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path / "ca.crt")))
    with publish(authority, tmp_path) as published:
        yield published


def test_unknown_keys_cause_no_storm_of_requests(published: Published) -> None:
    """However many tokens name unknown keys at once, the issuer is asked once in the cooldown."""
    published.issuers = [OWN]
    keys = KeySet(published.url, cooldown_seconds=2.0)
    assert published.asked == 1

    async def storm() -> None:
        await asyncio.gather(*(keys.find(f"unknown-{number}") for number in range(500)))

    new = Issuer("new")
    published.issuers = [new]
    time.sleep(2.1)
    asyncio.run(storm())
    assert published.asked == 2
    assert asyncio.run(keys.find("new")) is not None


def test_keys_outlive_an_issuer_that_is_away(published: Published) -> None:
    """What was read last counts while the issuer answers nonsense."""
    published.issuers = [OWN]
    keys = KeySet(published.url, refresh_seconds=0.0)
    published.issuers = []
    keys.refresh()
    assert published.asked == 2
    assert asyncio.run(keys.find(OWN.kid)) is not None


def test_an_issuer_that_is_away_stops_no_server() -> None:
    """Its tokens are refused until it answers; the others are not its business."""
    keys = KeySet("https://127.0.0.1:1/jwks")
    assert asyncio.run(keys.find("first")) is None
