"""Tokens, keys and certificates that change while the server runs, and the SDK over TLS."""

import asyncio
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from credentials import AUDIENCE, ISSUER, Authority, Issuer, make_token, write_jwks
from cryptography import x509
from server_process import ServerProcess
from wire import SECONDS, Stub, refusal_of

from npn.v1 import compression_pb2 as pb
from npn_client import AsyncClient, Budget, Client, PermissionDenied, Tls, Unauthenticated, Unavailable
from npn_service.access.tokens import TokenFile

StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority of the server's and the clients' certificates."""
    return Authority.make()


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    """Its PEM file."""
    return authority.write(tmp_path / "ca.crt")


def encrypted(authority: Authority, folder: Path) -> dict[str, str]:
    """The settings of a server with TLS."""
    cert, key = authority.issue(folder)
    return {"tls_cert_file": str(cert), "tls_key_file": str(key), "workers": "0"}


def eventually(found: Callable[[], bool]) -> None:
    """Wait until something is so; fails after many times what it may take."""
    deadline = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def serial(server: ServerProcess) -> int:
    """Number of the certificate that a new connection gets."""
    host, _, port = server.address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_certificates_are_rotated_without_a_restart(
    authority: Authority, ca: Path, tmp_path: Path, start_server: StartServer
) -> None:
    """New connections get the new certificate, open ones go on, and a broken pair changes nothing."""
    server = start_server(**encrypted(authority, tmp_path))
    with Client(server.address, tls=ca) as open_before:
        open_before.server_info()
        first = serial(server)
        authority.issue(tmp_path)
        eventually(lambda: serial(server) != first)
        second = serial(server)
        (tmp_path / "server.key").write_text("no key")
        eventually(lambda: "certificates.broken" in server.log.read_text())
        assert serial(server) == second
        open_before.server_info()
        with Client(server.address, tls=ca) as new:
            new.server_info()
        assert server.log.read_text().count("certificates.broken") == 1


def test_other_authorities_are_not_trusted(
    authority: Authority, tmp_path: Path, start_server: StartServer
) -> None:
    """A client talks to the server that it means, or not at all."""
    server = start_server(**encrypted(authority, tmp_path))
    other = Authority.make().write(tmp_path / "other.crt")
    for client in (Client(server.address, tls=other), Client(server.address, tls=True)):
        with client, pytest.raises(Unavailable):
            client.server_info()


def test_mutual_tls_wants_a_certificate_of_the_client(
    authority: Authority, ca: Path, tmp_path: Path, start_server: StartServer
) -> None:
    """Without one of the authority's there is no connection; with one there is."""
    server = start_server(**encrypted(authority, tmp_path), tls_client_ca_file=str(ca))
    cert, key = authority.issue(tmp_path, "client")
    with Client(server.address, tls=Tls(ca_file=ca, cert_file=cert, key_file=key)) as client:
        assert client.server_info().version
    stranger, stranger_key = Authority.make().issue(tmp_path, "stranger")
    for tls in (Tls(ca_file=ca), Tls(ca_file=ca, cert_file=stranger, key_file=stranger_key)):
        with Client(server.address, tls=tls) as client, pytest.raises(Unavailable):
            client.server_info()


def test_an_upload_ends_with_its_token(tmp_path: Path, start_server: StartServer) -> None:
    """A stream that was begun with a token goes no further once that is revoked, and a broken file lets it be."""
    file = tmp_path / "tokens.json"
    text, other = make_token(file), make_token(file)
    server = start_server(tokens_file=str(file), workers="0")
    announced = pb.UploadFile(path="x", size=9, sha256="0" * 64)
    with grpc.insecure_channel(server.address) as channel:
        stub = Stub(channel)

        def ask(token: str, method: str, request: Any) -> Any:
            metadata = [("authorization", f"Bearer {token}")]
            return getattr(stub, method)(request, metadata=metadata, timeout=SECONDS)

        name = ask(text, "CreateUpload", pb.CreateUploadRequest(files=[announced])).name

        def slowly() -> Iterator[pb.WriteObjectRequest]:
            yield pb.WriteObjectRequest(upload=name, path="x", data=b"abc")
            TokenFile(file).revoke(text.split("_")[1])
            eventually(lambda: "tokens.read" in server.log.read_text())
            yield pb.WriteObjectRequest(data=b"def")

        for method, request in (("WriteObject", slowly()), ("GetUpload", pb.GetUploadRequest(name=name))):
            with pytest.raises(grpc.RpcError) as caught:
                ask(text, method, request)
            assert refusal_of(caught.value).reason == "TOKEN_INVALID"
        file.write_text("{")
        eventually(lambda: "tokens.broken" in server.log.read_text())
        assert ask(other, "GetUpload", pb.GetUploadRequest(name=name)).files[0].committed == 3


def test_keys_of_the_issuer_are_rotated(tmp_path: Path, start_server: StartServer) -> None:
    """Tokens of a new key count once it is published, those of the old one do not any more."""
    old, new = Issuer("old"), Issuer("new")
    jwks = write_jwks(tmp_path / "jwks.json", old)
    server = start_server(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks=str(jwks), workers="0")

    def taken(issuer: Issuer) -> bool:
        with Client(server.address, token=issuer.sign()) as client:
            try:
                return bool(client.server_info().version)
            except Unauthenticated:
                return False

    assert taken(old)
    assert not taken(new)
    write_jwks(jwks, new)
    eventually(lambda: taken(new))
    assert not taken(old)


def test_the_sdk_and_the_command_bring_their_token(
    authority: Authority, ca: Path, tmp_path: Path, start_server: StartServer
) -> None:
    """Both clients and `npn` reach a guarded server; what is missing is named, the token is not shown."""
    tokens = tmp_path / "tokens.json"
    text, reader = make_token(tokens), make_token(tokens, scopes="read")
    server = start_server(**encrypted(authority, tmp_path), tokens_file=str(tokens))
    held = tmp_path / "token"
    held.write_text(text)
    with Client(server.address, token=held, tls=ca) as client:
        assert list(client.list_jobs()) == []
    with Client(server.address, tls=ca) as client, pytest.raises(Unauthenticated, match="Bearer TOKEN"):
        client.server_info()
    small = tmp_path / "small.npz"
    small.write_bytes(b"x")
    with (
        Client(server.address, token=reader, tls=ca) as client,
        pytest.raises(PermissionDenied, match="write"),
    ):
        client.compress("mlp", dataset=small, budget=Budget(max_params=1))

    async def version() -> str:
        async with AsyncClient(server.address, token=text, tls=ca) as client:
            return (await client.server_info()).version

    assert asyncio.run(version())

    def npn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "npn_client.cli", "jobs", "--server", server.address, *arguments]
        found = {name: value for name, value in os.environ.items() if not name.startswith("NPN_")}
        return subprocess.run(command, env=found | environment, capture_output=True, text=True, check=False)

    assert npn(NPN_TOKEN=text, NPN_TLS_CA=str(ca)).stdout == "no jobs\n"
    assert npn("--token-file", str(held), "--tls-ca", str(ca)).returncode == 0
    refused = npn("--token", text[:-1] + "_", "--tls-ca", str(ca))
    assert (refused.returncode, refused.stderr) == (5, "error: the token is not valid here\n")
    plain = npn("--token", text, "--server", "example.org:50051")
    assert plain.returncode == 2
    assert "--tls-ca" in plain.stderr
    assert text not in plain.stderr
