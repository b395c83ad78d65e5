"""The server's certificate, and the authorities of its clients', replaced while it runs."""

from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from npn_service.errors import StartupError

from .files import stamp

_log = structlog.get_logger(__name__)


class Certificates:
    """Certificate chain and private key, PEM files; with `client_ca_file` clients must show one of theirs.

    A connection keeps the certificate that it began with.  Raises StartupError where the files are no pair.
    """

    def __init__(self, *, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        self._paths = [path for path in (cert_file, key_file, client_ca_file) if path is not None]
        self._stamp = stamp(self._paths)
        try:
            self._current = self._served = self._read()
        except (OSError, ValueError) as error:
            raise StartupError(str(error)) from error

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC listens with.  It asks before every handshake whether there is something new."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._served,
            self._take,  # type: ignore[arg-type]  # the stubs do not know that None means no change
            require_client_authentication=self._client_ca_file is not None,
        )
        return credentials

    def refresh(self) -> None:
        """Offer the files to new connections once they have changed; a broken pair changes nothing."""
        found = stamp(self._paths)
        if found == self._stamp:
            return
        self._stamp = found
        try:
            self._current = self._read()
        except (OSError, ValueError) as error:
            # certificate and key are two files: between the two writes they are no pair
            _log.error("certificates.broken", error=str(error))
        else:
            _log.info("certificates.read", cert_file=str(self._cert_file))

    def _take(self) -> grpc.ServerCertificateConfiguration | None:
        if self._served is self._current:
            return None  # no change
        self._served = self._current
        return self._served

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain, key = self._cert_file.read_bytes(), self._key_file.read_bytes()
        roots = None if self._client_ca_file is None else self._client_ca_file.read_bytes()
        certificate = _certificates(chain, f"NPN_TLS_CERT_FILE: {self._cert_file}")[0]
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"NPN_TLS_KEY_FILE: {self._key_file} is no unencrypted PEM private key: {error}"
            ) from error
        if private.public_key() != certificate.public_key():
            raise ValueError(
                f"NPN_TLS_KEY_FILE: {self._key_file} is not the key of the certificate in {self._cert_file}"
            )
        if roots is not None:
            _certificates(roots, f"NPN_TLS_CLIENT_CA_FILE: {self._client_ca_file}")
        configuration: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
            [(key, chain)], root_certificates=roots
        )
        return configuration


def _certificates(pem: bytes, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"{name} holds no PEM certificates: {error}") from error
