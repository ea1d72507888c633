"""The errors a call can end with: one table, from reason to gRPC status.

The services raise ServiceError wherever something goes wrong; `svckit.interceptor` turns it into a `google.rpc.Status`.
Callers branch on the reason, never on the message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from grpc import StatusCode


class Reason(StrEnum):
    """Why a call failed; sent as `google.rpc.ErrorInfo.reason`."""

    # photos
    INVALID_IMAGE_COUNT = "INVALID_IMAGE_COUNT"
    INVALID_IMAGE = "INVALID_IMAGE"
    INVALID_SUBJECT = "INVALID_SUBJECT"
    NO_DETECTOR = "NO_DETECTOR"
    # tensors
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    INVALID_TENSOR = "INVALID_TENSOR"
    # queries
    INVALID_QUERY_COUNT = "INVALID_QUERY_COUNT"
    MALFORMED_EMBEDDINGS = "MALFORMED_EMBEDDINGS"
    DIMENSION_MISMATCH = "DIMENSION_MISMATCH"
    MODEL_MISMATCH = "MODEL_MISMATCH"
    INVALID_K = "INVALID_K"
    INVALID_FILTER = "INVALID_FILTER"
    UNKNOWN_FILTER_VALUE = "UNKNOWN_FILTER_VALUE"
    INVALID_SEARCH_PARAMETER = "INVALID_SEARCH_PARAMETER"
    INVALID_MIN_CONFIDENCE = "INVALID_MIN_CONFIDENCE"
    INVALID_CUTS = "INVALID_CUTS"
    INVALID_PAGE = "INVALID_PAGE"
    SEQUENCE_NOT_REACHED = "SEQUENCE_NOT_REACHED"
    # the gallery
    INVALID_ITEM = "INVALID_ITEM"
    ITEM_NOT_FOUND = "ITEM_NOT_FOUND"
    JOURNAL_FULL = "JOURNAL_FULL"
    JOURNAL_UNWRITABLE = "JOURNAL_UNWRITABLE"
    COMPACTION_RUNNING = "COMPACTION_RUNNING"
    COMPACTION_FAILED = "COMPACTION_FAILED"
    GALLERY_DAMAGED = "GALLERY_DAMAGED"
    # any call
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    ROLE_REQUIRED = "ROLE_REQUIRED"
    LABEL_NOT_ALLOWED = "LABEL_NOT_ALLOWED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    SHARD_TIMEOUT = "SHARD_TIMEOUT"
    NOT_READY = "NOT_READY"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"


STATUS: Mapping[Reason, StatusCode] = MappingProxyType(
    {
        Reason.NO_DETECTOR: StatusCode.FAILED_PRECONDITION,
        Reason.UNKNOWN_MODEL: StatusCode.NOT_FOUND,
        Reason.MODEL_MISMATCH: StatusCode.FAILED_PRECONDITION,
        Reason.ITEM_NOT_FOUND: StatusCode.NOT_FOUND,
        Reason.JOURNAL_FULL: StatusCode.RESOURCE_EXHAUSTED,
        Reason.JOURNAL_UNWRITABLE: StatusCode.UNAVAILABLE,
        Reason.COMPACTION_RUNNING: StatusCode.FAILED_PRECONDITION,
        Reason.COMPACTION_FAILED: StatusCode.FAILED_PRECONDITION,
        Reason.GALLERY_DAMAGED: StatusCode.DATA_LOSS,
        Reason.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
        Reason.ROLE_REQUIRED: StatusCode.PERMISSION_DENIED,
        Reason.LABEL_NOT_ALLOWED: StatusCode.PERMISSION_DENIED,
        Reason.QUOTA_EXCEEDED: StatusCode.RESOURCE_EXHAUSTED,
        Reason.QUEUE_FULL: StatusCode.RESOURCE_EXHAUSTED,
        Reason.TOO_MANY_STREAMS: StatusCode.RESOURCE_EXHAUSTED,
        Reason.DEADLINE_EXCEEDED: StatusCode.DEADLINE_EXCEEDED,
        Reason.SEQUENCE_NOT_REACHED: StatusCode.DEADLINE_EXCEEDED,
        Reason.SHARD_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
        Reason.NOT_READY: StatusCode.UNAVAILABLE,
        Reason.SHUTTING_DOWN: StatusCode.UNAVAILABLE,
        Reason.INTERNAL: StatusCode.INTERNAL,
    }
)
"""The status of each reason; reasons that are missing here have INVALID_ARGUMENT."""


@dataclass(frozen=True)
class Violation:
    """One thing wrong with a request; sent as `google.rpc.BadRequest.FieldViolation`."""

    field: str
    """Path of the field in the request, for example `images[3].content`."""
    reason: str
    """Machine-readable, upper snake case, for example `IMAGE_TRUNCATED`."""
    description: str
    """For people: what is wrong, and what would be right."""


class ServiceError(Exception):
    """A call failed for a reason that its caller should hear of.

    `violations` name all bad fields of the request; `retry_after_s` is the time, in seconds, after which it makes sense to
    try again; `metadata` holds details for programs, for example the fingerprint that was expected.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata)

    @property
    def status(self) -> StatusCode:
        return STATUS.get(self.reason, StatusCode.INVALID_ARGUMENT)


def rejected(violations: Sequence[Violation]) -> ServiceError:
    """Return one error that names all of these faults of a request; its reason is that of the first fault."""
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return ServiceError(Reason(violations[0].reason), message, violations=violations)
