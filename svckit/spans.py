"""Spans of calls and of their stages, exported by OTLP. Imports OpenTelemetry: `tracing` imports this where calls are traced.

OpenTelemetry's own variables (OTEL_*) say where to, how many, and under which name.
"""

import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import vmmr
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.exporter import InvalidCompressionValueException
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from vmmr._channel import TLS, credentials

from svckit import logs, stages
from svckit.config import ConfigError
from svckit.stages import Stage, Stages

Attributes = Mapping[str, str | int]

_ONLY = {
    "OTEL_TRACES_EXPORTER": ("otlp",),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("grpc",),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("grpc",),
}
"""Variables that choose between ways to export, of which there is one."""
_SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_HEADER = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*")
_LAST_EXPORT_S = 5.0
"""OpenTelemetry itself tries for half a minute, when the process is to end."""


class Tracing:
    """Traces the calls that this process serves, and exports them in a thread of its own, from its making until `stop`."""

    def __init__(self, service: str, env: Mapping[str, str] = os.environ) -> None:
        """`service` is the name under which a backend shows the process, unless a variable has another.

        Raise ConfigError if a variable is wrong.
        """
        for variable, values in _ONLY.items():
            if env.get(variable, values[0]) not in ("", *values):
                raise ConfigError(f"{variable} must be {' or '.join(values)}, got {env[variable]!r}")
        _check_sampler(env)
        _check_headers(env)
        for kind in ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"):
            _check_files(kind, env)
        try:
            self._provider = TracerProvider(resource=_resource(service))
            self._exporter = OTLPSpanExporter()
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except (ValueError, OSError, RuntimeError, InvalidCompressionValueException) as error:
            raise ConfigError(f"a variable of OpenTelemetry (OTEL_*) is wrong: {error}") from error
        trace.set_tracer_provider(self._provider)  # for the calls that this process makes
        self._tracer = self._provider.get_tracer("vmmr", vmmr.__version__)

    def call(self, name: str, headers: Iterable[tuple[str, str | bytes]], attributes: Attributes) -> "TracedCall":
        """Begin the span of a call that came with these headers, which may name the span that it was made in."""
        carrier = {key: value for key, value in headers if isinstance(value, str)}
        parent = propagate.extract(carrier)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        return TracedCall(self._tracer, span)

    def stop(self) -> None:
        """Export what waits, and end the thread. Spans that no collector takes in time are dropped."""
        late = threading.Timer(_LAST_EXPORT_S, self._exporter.shutdown)
        late.daemon = True
        late.start()
        self._provider.shutdown()
        late.cancel()


class TracedCall:
    """A call that is being served, as a span. Its stages are spans below it, made when it has ended.

    The lines that are logged meanwhile carry its ids, also if the trace is not sampled, for it may be followed by them all the same.
    """

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        # Stages are timed by the monotonic clock, by which a jump of the other one cannot turn them around.
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._stages: Stages = []
        ids = span.get_span_context()
        self._ids = {"trace_id": trace.format_trace_id(ids.trace_id), "span_id": trace.format_span_id(ids.span_id)}
        logs.trace_ids.set(self._ids)
        if span.is_recording():
            stages.collect(self._stages)

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The labels of an exemplar, which leads from a metric to the trace; None if the trace is not exported."""
        return self._ids if self._span.is_recording() else None

    def as_current(self) -> AbstractContextManager[object]:
        """Make it the span that calls are made in within a block."""
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def end(self, attributes: Attributes, *, failed: bool, name: str = "") -> None:
        """End the span, and export it with its stages; `name` is its name, if that was not known before."""
        if self._span.is_recording():
            self._export(self._stages, self._span)
            self._span.set_attributes(attributes)
            if name:
                self._span.update_name(name)
            if failed:
                self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _export(self, inner: Sequence[Stage], parent: trace.Span) -> None:
        if not inner:
            return
        context = trace.set_span_in_context(parent)
        for stage in tuple(inner):
            span = self._tracer.start_span(
                stage.name, context, attributes=stage.attributes, start_time=self._ns(stage.began)
            )
            self._export(stage.inner, span)
            span.end(self._ns(stage.ended))

    def _ns(self, monotonic_s: float) -> int:
        return self._offset_ns + round(1e9 * monotonic_s)


def _check_sampler(env: Mapping[str, str]) -> None:
    """Raise ConfigError if the sampler is not one that there is: OpenTelemetry itself would export every trace, and only warn."""
    sampler = env.get("OTEL_TRACES_SAMPLER", "").lower()
    if sampler not in ("", *_SAMPLERS):
        raise ConfigError(f"OTEL_TRACES_SAMPLER must be one of {', '.join(_SAMPLERS)}, got {sampler!r}")
    share = env.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if sampler.endswith("traceidratio") and share and not _is_share(share):
        raise ConfigError(f"OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, got {share!r}")


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _check_headers(env: Mapping[str, str]) -> None:
    """Raise ConfigError if one is not as it should be: OpenTelemetry itself would log it, and it may be a secret."""
    for variable in _HEADERS:
        for number, header in enumerate(env.get(variable, "").split(","), 1):
            if header.strip() and not _HEADER.fullmatch(header.strip()):
                raise ConfigError(
                    f"{variable} must be NAME=VALUE, or several with commas between; number {number} is not"
                )


def _check_files(kind: str, env: Mapping[str, str]) -> None:
    """Raise ConfigError if a file for TLS to the collector is not as it should be: OpenTelemetry itself would log it at most, and lose every span."""
    names = [f"{kind}_{name}" for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")]
    given = {name: path for name in names if (path := env.get(name))}
    for name, path in given.items():
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{name} must name a file that can be read, {path}: {error.strerror}") from error
    if given and names[0] not in given:
        raise ConfigError(f"{next(iter(given))} means nothing without {names[0]}, which is not given")
    try:
        credentials(TLS(*(given.get(name) for name in names)))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{', '.join(given)}: {error}") from error


def _resource(service: str) -> Resource:
    named = SERVICE_NAME in OTELResourceDetector().detect().attributes
    return Resource.create({SERVICE_VERSION: vmmr.__version__} | ({} if named else {SERVICE_NAME: service}))
