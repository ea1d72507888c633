"""The end of the wire of OTLP: a collector, in this process or as a program, and the spans that arrive."""

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc

_WAIT_S = 60.0


@dataclass(frozen=True)
class Span:
    """A span as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty if it is a root."""
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Any]

    @property
    def ms(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e6


class Received(service_grpc.TraceServiceServicer):
    """The spans that have arrived so far."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._more = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 (the protocol's name)
        with self._more:
            self.spans += _spans(request)
            self._more.notify_all()
        return service.ExportTraceServiceResponse()

    def wait(self, until: Callable[[Sequence[Span]], bool]) -> list[Span]:
        """Return all spans once `until` says of them that they are enough. Raise AssertionError after a minute."""
        with self._more:
            assert self._more.wait_for(lambda: until(self.spans), _WAIT_S), [span.name for span in self.spans]
            return list(self.spans)


@contextmanager
def receiving() -> Iterator[tuple[Received, str]]:
    """Yield what arrives, and where it is to be sent: the endpoint of OTLP over gRPC, in this process, while the block lasts."""
    received = Received()
    server = grpc.server(ThreadPoolExecutor(1))
    service_grpc.add_TraceServiceServicer_to_server(received, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield received, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def collector() -> Path | None:
    """Return the program of the collector `rotel`, or None where it is not installed, or cannot run: it needs Python as a shared library."""
    spec = find_spec("rotel")
    if not (spec and spec.origin):
        return None
    program = Path(spec.origin).with_name("rotel-agent")
    return program if subprocess.run([program, "--version"], check=False, capture_output=True).returncode == 0 else None


@contextmanager
def collecting(program: Path, endpoint: str) -> Iterator[str]:
    """Run the collector `rotel`, which passes on what it gets to `endpoint`. Yield where it listens once it does."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = _free_ports(2)
        flags = {
            "pid-file": folder / "pid",
            "otlp-grpc-endpoint": f"127.0.0.1:{ports[0]}",
            "otlp-http-endpoint": f"127.0.0.1:{ports[1]}",
            "exporter": "otlp",
            "otlp-exporter-endpoint": endpoint,
        }
        command = [program, "start"]
        command += [part for name, value in flags.items() for part in (f"--{name}", value)]
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"})
        try:
            with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
                grpc.channel_ready_future(channel).result(_WAIT_S)
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            process.terminate()
            process.wait(_WAIT_S)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _spans(request: Any) -> Iterator[Span]:
    for resource in request.resource_spans:
        name = _plain(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    _plain(span.attributes),
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
