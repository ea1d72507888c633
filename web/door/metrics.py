"""The metrics of this program."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class WebMetrics:
    """Counts requests, in a registry of its own.

    Strangers can't make up new series: a route is the pattern of a path, and a method that HTTP does not have is `other`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "http_requests_total", "Requests ended, by status", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "http_request_seconds",
            "Duration of requests",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._errors = Counter("vmmr_errors_total", "Requests failed, by reason", ("reason",), registry=self.registry)
        self._in_flight = Gauge("vmmr_calls_in_flight", "Requests being served", registry=self.registry)

    def began(self) -> None:
        self._in_flight.inc()

    def ended(
        self, method: str, route: str, status: int, seconds: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count a request; `exemplar` are labels that lead from its duration to its trace."""
        method = method if method in _METHODS else "other"
        self._in_flight.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds, exemplar)

    def failed(self, reason: str) -> None:
        self._errors.labels(reason).inc()
