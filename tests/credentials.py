"""Real certificates and signed tokens for tests of access."""

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from npn_service.access.identity import Scope
from npn_service.access.tokens import TokenFile

ISSUER = "https://issuer.test"
AUDIENCE = "npn"


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority that signs for 127.0.0.1 and localhost."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str = "authority") -> "Authority":
        """A new one, which signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(name, name, key.public_key())
        usage = x509.BasicConstraints(ca=True, path_length=0)
        return cls(
            key=key, certificate=builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        )

    def write(self, path: Path) -> Path:
        """Its certificate as a PEM file."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, folder: Path, name: str = "server") -> tuple[Path, Path]:
        """Certificate and key files, new or in place of what was there."""
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        builder = _certificate(name, "authority", key.public_key()).add_extension(hosts, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths


def _certificate(name: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )


class Issuer:
    """An OpenID Connect issuer with one key; remembers what it `signed`."""

    def __init__(self, kid: str = "first") -> None:
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.signed: list[str] = []

    def jwk(self) -> dict[str, Any]:
        """Its public key."""
        document: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return document | {"kid": self.kid, "use": "sig", "alg": "ES256"}

    def sign(self, *, drop: str = "", **claims: Any) -> str:
        """A token of a reader and writer of the owner "vision"; `claims` replace its own, `drop` leaves one out."""
        now = int(time.time())
        own = {"iss": ISSUER, "aud": AUDIENCE, "sub": "vision", "exp": now + 600, "nbf": now - 5}
        body = own | {"scope": "openid npn:read npn:write"} | claims
        body.pop(drop, None)
        self.signed.append(jwt.encode(body, self.key, algorithm="ES256", headers={"kid": self.kid}))
        return self.signed[-1]


def write_jwks(path: Path, *issuers: Issuer) -> Path:
    """The keys as an issuer publishes them."""
    path.write_text(json.dumps({"keys": [issuer.jwk() for issuer in issuers]}))
    return path


@dataclass(kw_only=True)
class Published:
    """What an issuer serves at `url`, and how often it was asked."""

    url: str
    issuers: list[Issuer]
    asked: int = 0


@contextmanager
def publish(authority: Authority, folder: Path) -> Iterator[Published]:
    """Serve keys over https on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            published.asked += 1
            body = json.dumps({"keys": [issuer.jwk() for issuer in published.issuers]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(folder, "issuer"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    published = Published(url=f"https://127.0.0.1:{server.server_port}/jwks", issuers=[])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield published
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_token(
    file: Path,
    *,
    owner: str = "vision",
    scopes: str = "read write",
    days: float = 1,
    reads: tuple[str, ...] = (),
) -> str:
    """A token in the file; negative `days` make one that has expired."""
    text, _ = TokenFile(file).add(
        owner=owner,
        subject=f"{owner}-ci",
        scopes=[Scope(scope) for scope in scopes.split()],
        read_prefixes=reads,
        expire_time=datetime.now(UTC) + timedelta(days=days),
    )
    return text
