"""The metrics of a server, and the HTTP endpoint where Prometheus reads them."""

import time
from collections.abc import Callable, Sequence

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from svckit.batcher import Batcher
from svckit.config import ConfigError
from svckit.errors import Reason
from svckit.submission import In, Out, Run

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of their own.

    The metrics of calls have the names and labels of gRPC's Prometheus middleware, which dashboards know.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        call = ("grpc_service", "grpc_method")
        self._handled = Counter(
            "grpc_server_handled_total", "Calls ended, by status", (*call, "grpc_code"), registry=self.registry
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds", "Duration of calls", call, buckets=_SECONDS, registry=self.registry
        )
        self._call_metrics: dict[tuple[str, StatusCode], tuple[Counter, Histogram]] = {}
        """Both metrics of a method and a status: prometheus_client takes longer to find them by their labels than to count."""
        self._errors = Counter("vmmr_errors_total", "Calls failed, by reason", ("reason",), registry=self.registry)
        self._in_flight = Gauge("vmmr_calls_in_flight", "Calls being served", registry=self.registry)
        self._streams = Gauge(
            "vmmr_streams_open",
            "Streams open, by whether their caller is known",
            ("token",),
            registry=self.registry,
        )
        self._access_problems = Gauge(
            "vmmr_access_problem",
            "1 if what says who may call could not be read anew, and an older one holds",
            ("source",),
            registry=self.registry,
        )
        self._audit_lines_lost = Counter(
            "vmmr_audit_lines_lost_total", "Lines that could not be written to the audit log", registry=self.registry
        )
        self._audit_stuck = Gauge(
            "vmmr_audit_stuck",
            "1 if the audit log cannot be moved aside or made anew, and goes on in the file it has",
            registry=self.registry,
        )
        self._batch_items = Histogram(
            "vmmr_batch_items", "Items in a batch", ("batcher",), buckets=_ITEMS, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "vmmr_batch_seconds", "Duration of batches", ("batcher",), buckets=_SECONDS, registry=self.registry
        )
        self._queue_items = Gauge(
            "vmmr_queue_items", "Items waiting for a place in a batch", ("batcher",), registry=self.registry
        )

        self._queue_age = Gauge(
            "vmmr_queue_age_seconds",
            "How long the oldest of the items that wait for a place in a batch has waited",
            ("batcher",),
            registry=self.registry,
        )

    def call_began(self) -> None:
        self._in_flight.inc()

    def call_ended(
        self,
        method: str,
        code: StatusCode,
        reason: Reason | None,
        seconds: float,
        exemplar: dict[str, str] | None = None,
    ) -> None:
        """Count a call that ended, after so many seconds; `method` is its full name, `/package.Service/Method`.

        `exemplar` are labels that lead from the duration to the call's trace.
        """
        handled, handling = self._call_metrics.get((method, code)) or self._add_call_metrics(method, code)
        self._in_flight.dec()
        handled.inc()
        handling.observe(seconds, exemplar)
        if reason is not None:
            self._errors.labels(reason).inc()

    def streams(self, open_: Callable[[], float], *, token: bool) -> None:
        """Add the gauge of open streams, of callers who are known or of the others; `open_` is asked when it is read."""
        self._streams.labels("yes" if token else "no").set_function(open_)

    def access_problem(self, source: str, problem: Callable[[], float]) -> None:
        """Add the gauge of a file or address that says who may call; `problem` is asked when it is read."""
        self._access_problems.labels(source).set_function(problem)

    def audit_line_lost(self) -> None:
        """Count a line of the audit log that could not be written."""
        self._audit_lines_lost.inc()

    def audit_stuck(self, stuck: Callable[[], float]) -> None:
        """Have the gauge of an audit log that cannot be moved aside ask `stuck` when it is read."""
        self._audit_stuck.set_function(stuck)

    def stream_failed(self, reason: Reason) -> None:
        """Count a stream that ended with an error."""
        self._errors.labels(reason).inc()

    def _add_call_metrics(self, method: str, code: StatusCode) -> tuple[Counter, Histogram]:
        _, service, name = method.split("/")
        found = self._handled.labels(service, name, code.name), self._handling.labels(service, name)
        return self._call_metrics.setdefault((method, code), found)

    def counter(self, name: str, text: str) -> Callable[[], None]:
        """Add a counter of the service's own, and return the function that counts one more."""
        return Counter(name, text, registry=self.registry).inc

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge of the service's own; `value` is asked when it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def batcher(
        self,
        name: str,
        run: Run[In, Out],
        *,
        max_batch: int,
        max_queue: int,
        lanes: int = 1,
        alone: Run[In, Out] | None = None,
        longest_s: Callable[[], float] | None = None,
        stage: str = "",
    ) -> Batcher[In, Out]:
        """Return a Batcher whose queue, batch sizes and durations are measured under `name`, with its `stage` in traces."""
        batcher = Batcher(
            self._measured(name, run),
            max_batch=max_batch,
            max_queue=max_queue,
            lanes=lanes,
            alone=alone and self._measured(name, alone),
            longest_s=longest_s,
            stage=stage,
        )
        self._queue_items.labels(name).set_function(lambda: batcher.waiting)
        self._queue_age.labels(name).set_function(lambda: batcher.oldest_s)
        return batcher

    def _measured(self, name: str, run: Run[In, Out]) -> Run[In, Out]:
        items, seconds = self._batch_items.labels(name), self._batch_seconds.labels(name)

        def measured(batch: list[In]) -> Sequence[Out | Exception]:
            items.observe(len(batch))
            started = time.perf_counter()
            try:
                return run(batch)
            finally:
                seconds.observe(time.perf_counter() - started)

        return measured


class Endpoint:
    """An HTTP server that answers `/metrics` with a registry's metrics, from its making until `stop`."""

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
        self.port = self._server.server_port

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
