"""The settings of a gRPC channel: keepalive, message sizes, credentials."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from vmmr._targets import check_target, is_local
from vmmr._version import __version__

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


def options(target: str, *, max_message_bytes: int, keepalive_s: float, shared: bool) -> list[tuple[str, Any]]:
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
        *([] if shared else [("grpc.use_local_subchannel_pool", 1)]),
        # By default gRPC sends even what is meant for this machine, tokens included, to a proxy of the environment.
        *([("grpc.enable_http_proxy", 0)] if is_local(target) else []),
    ]


def credentials(tls: TLS) -> grpc.ChannelCredentials:
    """Return the credentials of a secure channel. Raise OSError, naming the file, if one can't be read."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca), private_key=_read(tls.key), certificate_chain=_read(tls.cert)
    )


def check_targets(targets: Sequence[str], tls: TLS | None, token: str | None) -> None:
    """Raise ValueError if a target can't be called with these settings, TypeError if `tls` is none."""
    for target in targets:
        check_target(target)
    if tls is not None and not isinstance(tls, TLS):
        raise TypeError(f"tls must be a vmmr.TLS, such as vmmr.TLS(), got {tls!r}")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ValueError("the token has characters that can't be sent, such as a line break")
    for target in targets:
        if token is not None and tls is None and not is_local(target):
            raise ValueError(
                f"the token would be sent to {target} in the clear: give tls, or connect to a local address"
            )


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
