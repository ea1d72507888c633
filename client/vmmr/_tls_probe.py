"""Ask a server whether it speaks TLS, and whether it wants a certificate of its clients.

gRPC does not tell: where a server hangs up on a client for want of either, its error is that the connection was closed.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager


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
    """Return whether a server at `host:port` hangs up on a client that shows no certificate, once their handshake has ended.

    Other servers of gRPC speak first then. gRPC's own ends the connection without a word, others say why.
    """
    try:
        with _shaken_hands(target, timeout_s) as secure:
            # In TLS 1.3 the client's handshake has ended before the server looks for a certificate.
            return not secure.recv(1)
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in (error.reason or "")
    except (OSError, ValueError):
        return False


@contextmanager
def _shaken_hands(target: str, timeout_s: float) -> Iterator[ssl.SSLSocket]:
    """Yield a connection without a certificate, once its handshake has ended. Raise OSError, or ValueError if the target is no `host:port`."""
    host, _, port = target.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent over this connection: who the server is does not matter.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    address = (host.rpartition("/")[2].strip("[]"), int(port))
    with socket.create_connection(address, timeout_s) as plain, context.wrap_socket(plain) as secure:
        yield secure
