"""The settings of a gRPC channel: keepalive, message sizes, credentials."""

import json
import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from vmmr._rereading import Reread
from vmmr._targets import check_target, is_local
from vmmr._tokens import is_sendable
from vmmr._version import __version__

_log = logging.getLogger("vmmr")

_SERVICE_CONFIG: dict[str, Any] = {
    # Use all addresses of a name that has several, such as a headless Kubernetes service.
    "loadBalancingConfig": [{"round_robin": {}}],
}


@dataclass(frozen=True)
class TLS:
    """How to connect securely. All files are PEM."""

    ca: str | os.PathLike[str] | None = None
    """Certificates to trust. None: those that gRPC ships with, or `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` names."""
    cert: str | os.PathLike[str] | None = None
    """The client's certificate chain, for services that ask for one."""
    key: str | os.PathLike[str] | None = None
    """The private key of `cert`."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate and its key go together: give both cert and key, or neither")


def options(
    target: str, *, max_message_bytes: int, keepalive_s: float, shared: bool, reconnect_s: float | None = None
) -> list[tuple[str, Any]]:
    """Return the options of a channel to `target`.

    `shared`: the channel may use a connection that another channel of this process has to the same target.
    """
    sign_of_life_ms = int(min(keepalive_s, 20) * 1000)
    return [
        ("grpc.primary_user_agent", f"vmmr/{__version__}"),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", sign_of_life_ms),
        # Without it gRPC waits 60 s for the answer to any ping, whatever the time-out for keepalive is.
        ("grpc.http2.ping_timeout_ms", sign_of_life_ms),
        # Calls to a server that is gone fail at once until gRPC connects anew: it is to try about as often as calls are retried.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # So is it to ask for the name's addresses, which change when servers are replaced. By default it waits half a minute after it last did.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # Also how long gRPC waits for a server that takes a connection and says nothing, or a host that does not answer.
        *([] if reconnect_s is None else [("grpc.min_reconnect_backoff_ms", int(reconnect_s * 1000))]),
        *([] if shared else [("grpc.use_local_subchannel_pool", 1)]),
        # By default gRPC sends even what is meant for this machine, tokens included, to a proxy of the environment.
        *([("grpc.enable_http_proxy", 0)] if is_local(target) else []),
    ]


def credentials(tls: TLS) -> Reread[grpc.ChannelCredentials]:
    """Return the credentials of secure channels, which change with the files.

    Raise OSError if a file can't be read, ValueError if what is in it can't be used; both name the file.
    """
    files = [file for file in (tls.ca, tls.cert, tls.key) if file is not None]
    return Reread(files, lambda: _credentials(tls), lambda error: _log.warning("TLS files can't be used: %s", error))


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    ca, cert, key = (None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.cert, tls.key))
    _check_files(tls)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _check_files(tls: TLS) -> None:
    """Raise ValueError if the files can't be used: gRPC would only say of each call that it found no connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise ValueError(f"TLS ca {tls.ca} has no certificates that can be used: {error}") from error
    try:
        if tls.cert is not None:
            # A password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"TLS cert {tls.cert} with key {tls.key}: {error}") from error


def check_targets(targets: Sequence[str], tls: TLS | None, token: str | None) -> None:
    """Raise ValueError if a target can't be called with these settings, TypeError if `tls` is none."""
    for target in targets:
        check_target(target)
    if tls is not None and not isinstance(tls, TLS):
        raise TypeError(f"tls must be a vmmr.TLS, such as vmmr.TLS(), got {tls!r}")
    if token is not None and not is_sendable(token):
        raise ValueError("the token has characters that can't be sent, such as a line break")
    for target in targets:
        if token is not None and tls is None and not is_local(target):
            raise ValueError(
                f"the token would be sent to {target} in the clear: give tls, or connect to a local address"
            )
