"""Turn a gRPC error into one of ours, with the details that came with it."""

import re
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from vmmr._errors import (
    CallError,
    DeadlineExceededError,
    InvalidPhotoError,
    InvalidRequestError,
    ItemNotFoundError,
    MessageTooLargeError,
    ModelMismatchError,
    OverloadedError,
    ServerError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)

M = TypeVar("M", bound=Message)

_DETAILS_KEY = "grpc-status-details-bin"

_BY_REASON: dict[str, type[CallError]] = {
    "INVALID_IMAGE": InvalidPhotoError,
    "MODEL_MISMATCH": ModelMismatchError,
    "ITEM_NOT_FOUND": ItemNotFoundError,
}

_BY_STATUS: dict[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: UnauthenticatedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    # Of a call that nobody here cancelled: gRPC's answer to one that came as the server stopped.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.DATA_LOSS: ServerError,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
}


TLS_FAILED = "TLS_FAILED"
"""The reason of errors that no service told: the two sides could not agree upon a secure connection."""

_TRIED = re.compile(
    r".*last error: [A-Z_]+: (?:(?:ipv4|ipv6|unix|unix-abstract):\S+: )?(?:connect failed: addr: \S+ error: )?",
    re.DOTALL,
)
"""Matches what gRPC says of all its tries, up to what went wrong in the last one."""
_HANDSHAKE = re.compile(r"SSL_ERROR_SSL|Verification Check failed")
"""Matches what gRPC says of handshakes that will fail again, and not of those that were cut short."""
_CAUSES = {
    "WRONG_VERSION_NUMBER": "does not speak TLS: connect without tls, or have it serve with a certificate",
    "certificate has expired": "has a certificate that has expired: renew it there, or its ca, or set this machine's clock",
    "certificate is not yet valid": "has a certificate that is not valid yet: set the clock of this machine, or that of its ca",
    "CERTIFICATE_VERIFY_FAILED": "has a certificate that is not trusted: give the ca that signed it",
    "Hostname Verification": "has a certificate for another host: call it by the name that its certificate is for",
}
"""What a failed handshake means, by what OpenSSL and gRPC say of it."""


def call_error(error: grpc.RpcError, *, service: str, request_id: str) -> CallError:
    """Return the CallError for a gRPC error.

    `service` says who was called, for the message; `request_id` is what the call was sent with.
    """
    details = _details(error)
    info = _detail(details, error_details_pb2.ErrorInfo)
    retry = _detail(details, error_details_pb2.RetryInfo)
    return _class(error, info.reason)(
        _message(error, service, said_by_service=bool(info.reason)),
        status=error.code().name,
        reason=info.reason or (TLS_FAILED if _is_handshake(error) else None),
        violations=_violations(_detail(details, error_details_pb2.BadRequest)),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        request_id=request_id,
        metadata=dict(info.metadata),
    )


def _message(error: grpc.RpcError, service: str, *, said_by_service: bool) -> str:
    said = error.details() or error.code().name
    if not said_by_service and error.code() is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(service, _TRIED.sub("", said))
    if not said_by_service and error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return f"{service} isn't one, or is another version: {said}"
    return f"{service}: {said}"


def _unavailable(service: str, said: str) -> str:
    """Return a message about a service that gRPC could not reach. `said` is what it says of that."""
    name, _, target = service.partition(" at ")
    if _HANDSHAKE.search(said):
        return f"{service} {handshake_meaning(said) or f'could not agree upon a secure connection: {said}'}"
    if target.startswith(("unix:", "unix-abstract:")):
        return f"no vmmr server listens on the Unix socket {target.partition(':')[2]} ({name}): {said}"
    return f"no vmmr server answers at {target} ({name}): {said}"


def handshake_meaning(said: str) -> str | None:
    """Return what a failed handshake says of the server, by gRPC's words for it. None if that is not known."""
    return next((meaning for sign, meaning in _CAUSES.items() if sign in said), None)


def _is_handshake(error: grpc.RpcError) -> bool:
    unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return unavailable and bool(_HANDSHAKE.search(error.details() or ""))


def _class(error: grpc.RpcError, reason: str) -> type[CallError]:
    if says_too_large(error):
        return MessageTooLargeError
    return _BY_REASON.get(reason) or _BY_STATUS.get(error.code(), CallError)


def reason(error: grpc.RpcError) -> str:
    """Return the reason in the error's details: the service's own word, or empty where gRPC itself failed."""
    return str(_detail(_details(error), error_details_pb2.ErrorInfo).reason)


def says_too_large(error: grpc.RpcError) -> bool:
    """Return whether gRPC refused a message for its size."""
    # gRPC itself refuses large messages with the status of an overload, and says which it is in words alone.
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or "")


def _details(error: grpc.RpcError) -> status_pb2.Status:
    """Return the `google.rpc.Status` in the error's trailers; an empty one if there is none, or it can't be read."""
    trailers: Any = error.trailing_metadata() or ()
    try:
        return status_pb2.Status.FromString(dict(trailers).get(_DETAILS_KEY, b""))
    except DecodeError:
        return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[M]) -> M:
    """Return the first detail of that kind; an empty one if there is none."""
    detail = kind()
    for packed in status.details:
        if packed.Unpack(detail):
            break
    return detail


def _violations(bad: error_details_pb2.BadRequest) -> tuple[Violation, ...]:
    return tuple(Violation(v.field, v.reason, v.description) for v in bad.field_violations)
