"""Ports: addresses in gRPC's notation, a port that several processes share, and the file that says which port was taken."""

import ipaddress
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from svckit.artifact import atomic_write
from svckit.config import ConfigError

_BESIDES_CONNECTIONS = 512
"""Files that a server has open beside its connections: index, journal, sockets of its own."""


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_room(connections: int) -> int:
    """Let this process have so many connections, each of which is an open file; return how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _BESIDES_CONNECTIONS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(connections, allowed - _BESIDES_CONNECTIONS))


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(host: str, port: int) -> ConfigError:
    if host.startswith(("unix:", "unix-abstract:", "/")):
        return ConfigError(
            f"--host {host}: servers listen on a TCP port, not on a Unix socket; on 127.0.0.1, the default, only this machine's programs reach them"
        )
    return ConfigError(f"cannot listen on {address(host, port)}: is the port taken, or the host not this machine's?")


@contextmanager
def shared(host: str, port: int) -> Iterator[int]:
    """Reserve a port for processes of this user that set SO_REUSEPORT, and yield its number; 0 takes any free one.

    This process does not listen on it: the kernel gives connections to those that do. Raise ConfigError if the port is
    taken, even by another server whose processes share it in the same way.
    """
    with _bound(host, port) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield held.getsockname()[1]


def check_free(host: str, port: int) -> None:
    """Raise ConfigError if this process cannot listen on the port. gRPC, asked first, would write lines of its own into the log."""
    with _bound(host, port):
        pass


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that is bound to the port, and alone on it. Raise ConfigError if that cannot be."""
    try:
        kind, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        held = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise cannot_listen(host, port) from error
    with held:
        _bind_alone(held, where, host, port)
        yield held


def _bind_alone(held: socket.socket, where: tuple[object, ...], host: str, port: int) -> None:
    """Bind the socket, or raise ConfigError if anybody else has the port.

    SO_REUSEADDR lets it bind although the kernel still remembers connections of an earlier server. It is taken off again:
    on a socket that does not listen it would let others bind beside this one.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(where)
    except OSError as error:
        raise cannot_listen(host, port) from error
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def write(path: Path | None, *, port: int, metrics_port: int | None) -> None:
    """Write the ports of a server that is ready to the file, as JSON; do nothing if no file is wanted."""
    if path:
        atomic_write(path, json.dumps({"port": port, "metrics_port": metrics_port}).encode())
