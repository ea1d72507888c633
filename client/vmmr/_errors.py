"""The exceptions of this package, as one tree.

VmmrError
├── PhotoError                    this photo can't be identified; others can
│   ├── UnreadablePhotoError      its bytes couldn't be had
│   │   └── FetchError            its URL couldn't be fetched
│   └── InvalidPhotoError         the embedder refused it (an InvalidRequestError too)
├── CallError                     a service answered with an error, or not at all
│   ├── InvalidRequestError       the request breaks the contract; sending it again is pointless
│   │   ├── InvalidPhotoError     ... because of photos, which it names
│   │   └── MessageTooLargeError  ... because it has more bytes than a message may
│   ├── ModelMismatchError        the embeddings are of another model than the index
│   ├── ItemNotFoundError         the gallery has no item of that id
│   ├── UnauthenticatedError      the token or the client certificate isn't accepted, or not for that
│   ├── OverloadedError           a queue is full, or a limit reached; try again after `retry_after_s`
│   ├── DeadlineExceededError     no answer in time (a TimeoutError too)
│   ├── UnavailableError          can't be reached, or shutting down, retries included
│   └── ServerError               the service failed; `request_id` finds it in its log
└── ProtocolError                 a reply that breaks the contract
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self


@dataclass(frozen=True)
class Violation:
    """One thing wrong with a request."""

    field: str
    """The path of the field in the request, for example `images[3].content`."""
    reason: str
    """The reason for programs, for example `IMAGE_TRUNCATED`."""
    description: str
    """The reason for people. Empty if there were too many violations to describe them all."""


class VmmrError(Exception):
    """The base of all exceptions of this package."""


class PhotoError(VmmrError):
    """One photo can't be identified; others can."""


class UnreadablePhotoError(PhotoError):
    """The bytes of a photo couldn't be had: no such file, no permission, too many of them."""


class FetchError(UnreadablePhotoError):
    """The URL of a photo couldn't be fetched, or was not allowed to be."""


class ProtocolError(VmmrError):
    """A service's reply breaks the contract: SDK and service do not fit together."""


class CallError(VmmrError):
    """A service answered with an error, or not at all. Branch on `reason` or the class, never on the message."""

    def __init__(
        self,
        message: str,
        *,
        status: str = "UNKNOWN",
        reason: str | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
        request_id: str | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        """The name of the gRPC status, for example `INVALID_ARGUMENT`."""
        self.reason = reason
        """The word for the cause: the service's own, for example `INVALID_IMAGE`, or the client's `TLS_FAILED`. None if there
        is none, as where no service could be reached."""
        self.violations = violations
        """Everything that is wrong with the request, field by field."""
        self.retry_after_s = retry_after_s
        """Seconds after which it makes sense to try again; None if the service gave none."""
        self.request_id = request_id
        """The id of the call in the services' logs."""
        self.metadata = dict(metadata)
        """Details for programs, for example the fingerprint that was expected."""


class InvalidRequestError(CallError):
    """The request breaks the contract; `violations` say where. Sending it again is pointless."""


class InvalidPhotoError(PhotoError, InvalidRequestError):
    """The embedder refused photos: not an image, truncated, too large, a crop without pixels..."""

    @property
    def photos(self) -> tuple[int, ...]:
        """The positions of the bad photos of the call, ascending."""
        return tuple(sorted({index for v in self.violations if (index := _photo_of(v)) is not None}))

    def of(self, photo: int) -> Self:
        """Return an error of its own with what this one says about the photo at that position."""
        own = tuple(
            replace(v, field=_IMAGE.sub("", v.field).removeprefix(".") or "photo")
            for v in self.violations
            if _photo_of(v) == photo
        )
        message = "; ".join(f"{v.field}: {v.description or v.reason}" for v in own)
        return type(self)(message, **{**vars(self), "violations": own})


class MessageTooLargeError(InvalidRequestError):
    """The request or the reply has more bytes than a message may."""


class ModelMismatchError(CallError):
    """The embeddings were made by another model than the index was built with."""


class ItemNotFoundError(CallError):
    """The gallery has no item of that id."""


class UnauthenticatedError(CallError):
    """The token or the client certificate is missing or isn't accepted, or whoever has it may not do that (`PERMISSION_DENIED`)."""


class OverloadedError(CallError):
    """A queue is full, or the caller asked for more than its limits allow. Try again after `retry_after_s`, if it is there."""


class DeadlineExceededError(CallError, TimeoutError):
    """No answer before the deadline."""


class UnavailableError(CallError):
    """The service can't be reached, or is shutting down, and the deadline left no time for another attempt."""


class ServerError(CallError):
    """The service failed, or isn't the service that was expected."""


_IMAGE = re.compile(r"^images\[(\d+)\]")


def _photo_of(violation: Violation) -> int | None:
    match = _IMAGE.match(violation.field)
    return int(match[1]) if match else None
