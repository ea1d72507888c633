"""TLS of a server from files, which are read anew when they change; and its bearer token."""

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Gauge
from vmmr import _tokens
from vmmr._rereading import Reread

from svckit.config import ConfigError

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How often files are looked at for changes, though nobody connects."""


@dataclass(frozen=True)
class _Loaded:
    """What the files held at one moment."""

    grpc: Any
    """The configuration that gRPC takes."""
    context: ssl.SSLContext
    not_after: float
    """When the first certificate of the chain to end does so, in seconds since 1970."""


class ServerCertificate:
    """A server's certificate chain and key, and the CA of its clients, if they must have certificates, from PEM files.

    New connections get what the files hold then. If they can't be used, as when only one of two was written so far, what they
    held before serves on, and the log and a metric say so.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Read the files. Raise ConfigError, naming the file, if one is not as it should be."""
        self._certificate = certificate
        self._mutual = client_ca is not None
        self._looked = time.time()
        self._files = Reread(
            (certificate, key, *([client_ca] if client_ca else [])),
            lambda: _told(certificate, _load(certificate, key, client_ca)),
            lambda error: _log.error("TLS files cannot be used", extra={"error": str(error)}),
        )

    def credentials(self) -> grpc.ServerCredentials:
        """Return gRPC's credentials, for one port."""
        given = self._files.latest()

        def changed() -> Any:
            """Return the configuration if gRPC does not have it yet, which asks before each handshake; None for no change."""
            nonlocal given
            latest = self._files.latest()
            if latest is given:
                return None
            given = latest
            return latest.grpc

        return grpc.dynamic_ssl_server_credentials(given.grpc, changed, self._mutual)

    def renew(self, context: ssl.SSLContext) -> None:
        """Have each new connection of a server that has this context get what the files hold then; not its CA of clients."""

        def at_hello(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._files.latest().context

        context.sni_callback = at_hello

    async def watch(self) -> None:
        """Look at the files and the clock each second, until cancelled: the log tells of a problem before anybody connects."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the files anew if they have changed, and log if the certificate has ended since the last look. It may block."""
        before, self._looked = self._looked, time.time()
        loaded = self._files.latest()
        if before <= loaded.not_after < self._looked:
            _tell_end(self._certificate, loaded)

    def measure(self, registry: CollectorRegistry) -> None:
        """Add the metrics of the certificate. Asked for, they look at the files, too: a problem shows before anybody connects."""
        not_after = Gauge(
            "vmmr_tls_not_after_seconds",
            "When the certificate that is presented ends, in seconds since 1970",
            registry=registry,
        )
        not_after.set_function(lambda: self._files.latest().not_after)
        stale = Gauge(
            "vmmr_tls_stale",
            "1 if the TLS files, as they are now, cannot be used, and what they held before is",
            registry=registry,
        )
        stale.set_function(self._stale)

    def _stale(self) -> float:
        self._files.latest()
        return float(self._files.stale)


def read_token(path: Path) -> str:
    """Return the token in a file, without the white space around it. Raise ConfigError if there is none."""
    try:
        return _tokens.read(path)
    except OSError as error:
        raise ConfigError(f"token file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _told(certificate: Path, loaded: _Loaded) -> _Loaded:
    """Return what was read, and log of which certificate it is and when that ends: nobody is let in by one that has ended."""
    if loaded.not_after < time.time():
        _tell_end(certificate, loaded)
    else:
        _log.info("TLS files read", extra=_about(certificate, loaded))
    return loaded


def _tell_end(certificate: Path, loaded: _Loaded) -> None:
    _log.error("the TLS certificate has expired: clients refuse it", extra=_about(certificate, loaded))


def _about(certificate: Path, loaded: _Loaded) -> dict[str, str]:
    return {"certificate": str(certificate), "ends": datetime.fromtimestamp(loaded.not_after, UTC).isoformat()}


def _load(certificate: Path, key: Path, client_ca: Path | None) -> _Loaded:
    chain, private = _read(certificate), _read(key)
    # The certificate first: of a pair, OpenSSL does not say which one is damaged.
    not_after = _not_after(certificate, chain)
    # gRPC itself would only say that it could not bind.
    context = _checked(certificate, key, client_ca)
    configuration = grpc.ssl_server_certificate_configuration(
        [(private, chain)], root_certificates=client_ca.read_bytes() if client_ca else None
    )
    return _Loaded(configuration, context, not_after)


def _checked(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Return a context that presents the certificate. Raise ConfigError naming the file that is not as it should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS certificate {certificate} with key {key}: {error}") from error
    if client_ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(client_ca)
        except OSError as error:
            raise ConfigError(f"TLS client CA {client_ca}: {error}") from error
    return context


def _read(file: Path) -> bytes:
    """Return what a file holds. Raise ConfigError naming it if it can't be read: of two, OpenSSL does not say which."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"TLS file {file}: {error.strerror}") from error


def _not_after(certificate: Path, chain: bytes) -> float:
    from cryptography import x509  # noqa: PLC0415  # takes a while, and servers without TLS do without

    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise ConfigError(f"TLS certificate {certificate}: is no PEM certificate: {error}") from error
    return min(each.not_valid_after_utc.timestamp() for each in certificates)
