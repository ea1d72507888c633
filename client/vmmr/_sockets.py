"""Sockets whose every wait counts against one deadline, which a drip of bytes can't stretch."""

import io
import socket
from collections.abc import Sequence
from typing import Any

from vmmr._addresses import Endpoint
from vmmr._deadlines import Deadline


def connect(endpoints: Sequence[Endpoint], deadline: Deadline) -> socket.socket:
    """Connect to the first endpoint that answers; each gets its share of the time. Raise OSError if none does."""
    for tried, endpoint in enumerate(endpoints[:-1]):
        try:
            return _connect(endpoint, deadline.remaining_s() / (len(endpoints) - tried))
        except OSError:
            continue
    return _connect(endpoints[-1], deadline.remaining_s())


def _connect(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(endpoint.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


class DeadlineSocket:
    """The part of a socket that `http.client` uses. The caller who made the socket closes it."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, content: bytes) -> None:
        self._sock.settimeout(self._deadline.remaining_s())
        self._sock.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._sock, self._deadline))

    def close(self) -> None:
        """Do nothing: http.client closes after the headers, when the body is still to come."""


class _Incoming(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.remaining_s())
        return self._sock.recv_into(buffer)
