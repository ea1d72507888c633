"""A ServiceError as the `google.rpc.Status` that travels in the trailing metadata of a failed call."""

from collections.abc import Sequence

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from svckit.errors import ServiceError, Violation

DOMAIN = "vmmr"

_MESSAGE_BYTES = 500
_VIOLATIONS_BYTES = 3584
"""The room for violations. gRPC implementations refuse trailing metadata from about 8 KB on, base64 included, and with it the error."""


def status_of(error: ServiceError, request_id: str) -> status_pb2.Status:
    """Return the error as a Status with ErrorInfo and RequestInfo, and BadRequest and RetryInfo where it has them.

    Where there are more violations than fit into a call's metadata, the last ones lose their descriptions; those that still
    do not fit are left out, and ErrorInfo's metadata has their number as `violations_omitted`.
    """
    violations = _fitting(error.violations)
    metadata = dict(error.metadata)
    if len(violations) < len(error.violations):
        metadata["violations_omitted"] = str(len(error.violations) - len(violations))
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if violations:
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_s is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_s)))
    return status_pb2.Status(
        code=error.status.value[0], message=_shortened(str(error)), details=[_packed(d) for d in details]
    )


def _fitting(violations: Sequence[Violation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """Return as many violations as fit: the first with descriptions, as long as all later ones still fit without."""
    brief = [_field_violation(v, description="") for v in violations]
    left = _VIOLATIONS_BYTES - sum(_cost(b) for b in brief)
    while left < 0:
        left += _cost(brief.pop())
    for index, violation in enumerate(violations[: len(brief)]):
        full = _field_violation(violation, description=violation.description)
        left -= _cost(full) - _cost(brief[index])
        if left < 0:
            break
        brief[index] = full
    return brief


def _field_violation(violation: Violation, *, description: str) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(
        field=violation.field, reason=violation.reason, description=description
    )


def _shortened(message: str) -> str:
    return message.encode()[:_MESSAGE_BYTES].decode(errors="ignore")


def _cost(message: Message) -> int:
    """Return the bytes that the message takes in a repeated field: its own, and those of a tag and a length."""
    return message.ByteSize() + 4


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(round(1e3 * seconds))
    return duration


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
