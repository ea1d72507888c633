"""Servers that are replaced one after the other, as Kubernetes does it, behind a name that has an address for each."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from dnslib import QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from svckit.probe import health
from tests.conftest import Process

ROOT = Path(__file__).parents[2]
_hosts = (f"127.0.1.{number}" for number in count(1))
"""Each server that is started gets an address of this machine of its own, as each pod does."""


class Names(BaseResolver):
    """What a headless Service is: a name for each fleet, which has the addresses of the servers that are ready."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.port = 0

    def resolve(self, request: DNSRecord, _handler: Any) -> DNSRecord:
        reply = request.reply()
        if request.q.qtype == QTYPE.A:
            for address in self.addresses.get(str(request.q.qname).rstrip("."), []):
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=1))
        return reply

    @contextmanager
    def served(self) -> Iterator["Names"]:
        server = DNSServer(self, address="127.0.0.1", port=0, logger=DNSLogger("-request,-reply"))
        self.port = server.server.server_address[1]
        server.start_thread()
        try:
            yield self
        finally:
            server.stop()
            server.server.server_close()


@dataclass
class Fleet:
    """The servers of one service."""

    name: str
    command: tuple[Any, ...]
    """The arguments of Python that serve, without address and port."""
    names: Names
    port: int
    stack: ExitStack
    serving: list[tuple[str, Process]] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"dns://127.0.0.1:{self.names.port}/{self.name}:{self.port}"

    def start(self) -> None:
        """Start one server more, and give the name its address when it is ready."""
        host = next(_hosts)
        arguments = ("--host", host, "--port", self.port, "--log-level", "warning")
        server = self.stack.enter_context(Process(*self.command, *arguments, cwd=ROOT))
        self._wait_until_it_serves(host, server)
        self.serving.append((host, server))
        self._publish()

    def replace(self, pre_stop_s: float) -> list[int]:
        """Replace each server: one more first (maxUnavailable 0), then the oldest ends. Return their exit codes."""
        return [self._replace_one(pre_stop_s) for _ in range(len(self.serving))]

    def _replace_one(self, pre_stop_s: float) -> int:
        self.start()
        _, old = self.serving.pop(0)
        self._publish()
        # The kubelet waits so long before it sends SIGTERM: until then those who have not heard of the new addresses call the old.
        time.sleep(pre_stop_s)
        old.popen.send_signal(signal.SIGTERM)
        return old.wait()

    def _publish(self) -> None:
        self.names.addresses[self.name] = [host for host, _ in self.serving]

    def _wait_until_it_serves(self, host: str, server: Process) -> None:
        while health(f"{host}:{self.port}") != "SERVING":
            assert server.popen.poll() is None, server.lines
            time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
