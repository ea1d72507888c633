"""Tell why a call failed, as a key to count it by."""

from dataclasses import dataclass
from typing import Any

from vmmr import _failures

REFUSED = "RESOURCE_EXHAUSTED"
TOO_LARGE = "MESSAGE_TOO_LARGE"
MALFORMED = ("MALFORMED_REPLY", "")
"""The code and the reason of a malformed reply."""


@dataclass(frozen=True)
class Failure:
    code: str
    """The gRPC status's name."""
    reason: str
    """The service's own word; empty if it gave none, or gRPC itself failed."""
    message: str
    """The message of the first such failure."""

    @property
    def is_refusal(self) -> bool:
        """Whether the service said at once that it has too much to do."""
        return self.code == REFUSED and self.reason != TOO_LARGE


def failure(error: Any) -> Failure:
    """Return why a call failed that raised this `grpc.aio.AioRpcError`."""
    reason = TOO_LARGE if _failures.says_too_large(error) else _failures.reason(error)
    return Failure(error.code().name, reason, error.details() or "")
