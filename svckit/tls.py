"""TLS credentials and the bearer token of a server, from files."""

import ssl
from pathlib import Path

import grpc

from svckit.config import ConfigError


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Return credentials read from PEM files; with `client_ca`, only clients with a certificate that it signed are let in.

    Raise ConfigError naming the file if one is not as it should be: gRPC itself would only say later that it could not bind.
    """
    _check(certificate, key, client_ca)
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )


def read_token(path: Path) -> str:
    """Return the token in a file, without the white space around it. Raise ConfigError if there is none."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path}: {error}") from error
    if not token:
        raise ConfigError(f"token file {path}: is empty")
    return token


def _check(certificate: Path, key: Path, client_ca: Path | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS certificate {certificate} with key {key}: {error}") from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise ConfigError(f"TLS client CA {client_ca}: {error}") from error
