"""Why a call failed, as a key to count it by."""

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"
REFUSED = "RESOURCE_EXHAUSTED"
TOO_LARGE = "MESSAGE_TOO_LARGE"
MALFORMED = ("MALFORMED_REPLY", "")
"""Code and reason of an answer that is none."""


@dataclass(frozen=True)
class Failure:
    code: str
    """The gRPC status's name."""
    reason: str
    """The service's own word; empty where it had none, as where gRPC itself failed."""
    message: str
    """Of the first such failure."""

    @property
    def is_refusal(self) -> bool:
        """The service said at once that it has too much to do."""
        return self.code == REFUSED and self.reason != TOO_LARGE


def failure(error: Any) -> Failure:
    """Of a `grpc.aio.AioRpcError`."""
    code, said = error.code().name, error.details() or ""
    # gRPC itself refuses large messages with the status of an overload, and says which it is in words alone.
    if code == REFUSED and "larger than max" in said:
        return Failure(code, TOO_LARGE, said)
    return Failure(code, _reason(error), said)


def _reason(error: Any) -> str:
    trailers = dict(error.trailing_metadata() or ())
    try:
        status = status_pb2.Status.FromString(trailers.get(_DETAILS, b""))
    except DecodeError:
        return ""
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in status.details) else ""
