"""Ask a server whether it speaks TLS, and whether it wants a certificate of its clients, or another one.

gRPC does not tell: where a server hangs up on a client for one of these, its error is that the connection was closed.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike

_HUNG_UP = 2
"""How often a server must hang up for this to be the certificate's fault: one that ends may do so, too, but not again."""


@dataclass(frozen=True)
class Certificate:
    """The files of a client's certificate, and of its key."""

    cert: str | PathLike[str]
    key: str | PathLike[str]


def speaks_tls(target: str, timeout_s: float) -> bool:
    """Return whether a server at `host:port` answers as TLS servers do. False if nobody answers, or the target is of another kind."""
    try:
        with _shaken_hands(target, timeout_s):
            return True
    except ssl.SSLError as error:
        # An alert is TLS, too: the server refuses this handshake, and no other would help a client without TLS.
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False


def wants_certificate(target: str, timeout_s: float) -> bool:
    """Return whether a server at `host:port` hangs up on a client that shows no certificate, once their handshake has ended."""
    return all(_hangs_up(target, timeout_s, None, ("CERTIFICATE_REQUIRED",)) for _ in range(_HUNG_UP))


def refuses_certificate(target: str, timeout_s: float, certificate: Certificate) -> bool:
    """Return whether a server at `host:port` hangs up on a client that shows this certificate, once their handshake has ended."""
    said = ("UNKNOWN_CA", "CERTIFICATE")
    return all(_hangs_up(target, timeout_s, certificate, said) for _ in range(_HUNG_UP))


def _hangs_up(target: str, timeout_s: float, certificate: Certificate | None, said: tuple[str, ...]) -> bool:
    """Return whether the server ends the connection after the handshake, without a word or with an alert that has one of these in its name.

    Servers that let a client in speak first then. gRPC's own ends the connection without a word, others say why.
    """
    try:
        with _shaken_hands(target, timeout_s, certificate) as secure:
            # In TLS 1.3 the client's handshake has ended before the server looks at its certificate.
            return not secure.recv(1)
    except ssl.SSLError as error:
        reason = error.reason or ""
        return "ALERT" in reason and any(name in reason for name in said)
    except (OSError, ValueError):
        return False


@contextmanager
def _shaken_hands(target: str, timeout_s: float, certificate: Certificate | None = None) -> Iterator[ssl.SSLSocket]:
    """Yield a connection with this certificate of the client, or none, once its handshake has ended. Raise OSError, or ValueError if the target is no `host:port`."""
    host, _, port = target.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent over this connection: who the server is does not matter.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if certificate:
        context.load_cert_chain(certificate.cert, certificate.key, password="")
    address = (host.rpartition("/")[2].strip("[]"), int(port))
    with socket.create_connection(address, timeout_s) as plain, context.wrap_socket(plain) as secure:
        yield secure
