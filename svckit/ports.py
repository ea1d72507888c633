"""Ports: an address as gRPC writes it, one that several processes share, and how a port is told to others."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from svckit.artifact import atomic_write
from svckit.config import ConfigError


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(host: str, port: int) -> ConfigError:
    return ConfigError(f"cannot listen on {address(host, port)}: is the port taken, or the host not this machine's?")


@contextmanager
def shared(host: str, port: int) -> Iterator[int]:
    """Keeps a port for processes of this user that set SO_REUSEPORT, and for nobody else; 0 takes any free one.

    Nothing listens here: the kernel gives connections to those processes alone. Raises ConfigError if anybody has the port,
    be it another server whose processes share theirs.
    """
    try:
        kind, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        held = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise cannot_listen(host, port) from error
    with held:
        _bind_alone(held, where, host, port)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield held.getsockname()[1]


def _bind_alone(held: socket.socket, where: tuple[object, ...], host: str, port: int) -> None:
    """Binds where nobody else is.

    SO_REUSEADDR passes over connections of an earlier server that the kernel still remembers. Kept on a socket that does
    not listen, it would let others pass over this one.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(where)
    except OSError as error:
        raise cannot_listen(host, port) from error
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def write(path: Path | None, *, port: int, metrics_port: int | None) -> None:
    """The file, if one is wanted, that tells the ports of a server that is ready."""
    if path:
        atomic_write(path, json.dumps({"port": port, "metrics_port": metrics_port}).encode())
