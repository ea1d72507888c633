"""Tracing of calls, where it is wanted. Imports OpenTelemetry no sooner than that."""

from typing import TYPE_CHECKING

from svckit.config import ConfigError
from svckit.extras import needing

if TYPE_CHECKING:
    from svckit.spans import Tracing


def start(server: str) -> "Tracing":
    """Return what traces the calls of this process, under the name `vmmr-SERVER` unless a variable has another.

    Raise ConfigError if OpenTelemetry is not installed, or one of its variables is wrong.
    """
    with needing("otel", ConfigError, "--tracing needs OpenTelemetry, and {library} is not installed"):
        from svckit.spans import Tracing  # noqa: PLC0415  # as said
    return Tracing(f"vmmr-{server}")
