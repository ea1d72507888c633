"""Errors as RFC 9457 problem details: one table, from what went wrong to the status and the body of the answer.

What a service said keeps its reason (`docs/errors.md`); what this program refuses itself has a `Reason` of its own. Callers branch
on the reason, never on the text.
"""

import http
import re
from dataclasses import dataclass, field
from enum import StrEnum

import vmmr


class Reason(StrEnum):
    """Why this program refused a request, before or without asking a service."""

    INVALID_REQUEST = "INVALID_REQUEST"
    UNREADABLE_PHOTO = "UNREADABLE_PHOTO"
    URL_NOT_FETCHED = "URL_NOT_FETCHED"
    TOKEN_WANTED = "TOKEN_WANTED"  # noqa: S105 (a word for programs, no secret)
    WRITES_OFF = "WRITES_OFF"
    CROSS_SITE = "CROSS_SITE"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    UPLOAD_TOO_SLOW = "UPLOAD_TOO_SLOW"
    UPLOAD_TOO_LARGE = "UPLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    BUSY = "BUSY"
    BAD_REPLY = "BAD_REPLY"
    INTERNAL = "INTERNAL"


STATUS: dict[Reason, int] = {
    Reason.INVALID_REQUEST: 400,
    Reason.UNREADABLE_PHOTO: 400,
    Reason.URL_NOT_FETCHED: 400,
    Reason.TOKEN_WANTED: 401,
    Reason.WRITES_OFF: 403,
    Reason.CROSS_SITE: 403,
    Reason.NOT_FOUND: 404,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.UPLOAD_TOO_SLOW: 408,
    Reason.UPLOAD_TOO_LARGE: 413,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
    Reason.TOO_MANY_CALLS: 429,
    Reason.BUSY: 503,
    Reason.BAD_REPLY: 502,
    Reason.INTERNAL: 500,
}

_STATUS_OF_GRPC = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 409,
    "NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "CANCELLED": 503,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Of the services' errors. Any other is 502: the fault is neither the caller's nor this program's, such as a wrong token of ours."""


_ADDRESS = re.compile(r" at \S+:\d+")
"""Where a service is, in the messages of the SDK: none of a stranger's business."""


_ADVICE = ": allow_private=True"
"""Where the SDK's advice for programmers begins."""


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a request."""

    field: str
    reason: str
    description: str


@dataclass(frozen=True)
class Problem:
    """The body of an error's answer, `application/problem+json`, as RFC 9457 has it."""

    title: str
    """What the status means."""
    status: int
    detail: str
    """What is wrong, for people."""
    reason: str
    """What is wrong, for programs: the service's word, or this program's."""
    type: str = "about:blank"
    grpc_status: str | None = None
    """The gRPC status of the service's answer. Null if no service failed."""
    violations: list[Violation] = field(default_factory=list)
    """Everything that is wrong with the request, one by one."""
    retry_after_s: float | None = None
    """Seconds after which it makes sense to try again."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Details for programs, for example the fingerprint that was expected."""
    request_id: str | None = None
    """The id of the request in the logs of this program and of both services."""


class DoorError(Exception):
    """Raised where this program refuses a request itself."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.violations = violations
        self.retry_after_s = retry_after_s


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """Return the problem that an error is told as. An unforeseen one tells nothing of what is inside."""
    if isinstance(error, DoorError):
        return _own(error.reason, str(error), list(error.violations), error.retry_after_s, request_id)
    if isinstance(error, vmmr.CallError):
        return _of_call(error, request_id)
    if isinstance(error, vmmr.FetchError):
        return _own(Reason.URL_NOT_FETCHED, str(error).partition(_ADVICE)[0], request_id=request_id)
    if isinstance(error, vmmr.PhotoError):
        return _own(Reason.UNREADABLE_PHOTO, str(error), request_id=request_id)
    if isinstance(error, vmmr.ProtocolError):
        return _own(Reason.BAD_REPLY, str(error), request_id=request_id)
    return _own(Reason.INTERNAL, "something went wrong that was not foreseen; the log says what", request_id=request_id)


def _own(
    reason: Reason,
    detail: str,
    violations: list[Violation] | None = None,
    retry_after_s: float | None = None,
    request_id: str | None = None,
) -> Problem:
    status = STATUS[reason]
    return Problem(
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reason=reason.value,
        violations=violations or [],
        retry_after_s=retry_after_s,
        request_id=request_id,
    )


def _of_call(error: vmmr.CallError, request_id: str | None) -> Problem:
    too_large = isinstance(error, vmmr.MessageTooLargeError)
    status = 413 if too_large else _STATUS_OF_GRPC.get(error.status, 502)
    return Problem(
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=_ADDRESS.sub("", str(error), count=1),
        reason=error.reason or (Reason.UPLOAD_TOO_LARGE.value if too_large else error.status),
        grpc_status=error.status,
        violations=[Violation(v.field, v.reason, v.description) for v in error.violations],
        retry_after_s=error.retry_after_s,
        metadata=error.metadata,
        request_id=error.request_id or request_id,
    )
