"""Pages of lists that change while they are read.

A page token holds the key that the page ended with, so that the next page begins after that key. What was added or deleted
meanwhile, even in another version of the index, moves no other entry from page to page. A checksum tells tokens that were
never given.
"""

import base64
import binascii
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from vmmr.gallery.v1 import gallery_pb2
from vmmr.search.v1 import search_pb2

from svckit.errors import Reason, Violation, rejected

LARGEST_PAGE = 10_000
_DEFAULT_PAGE = 1000
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class PageRequest:
    """Which page of a list to give."""

    after: str
    """The key that the page before ended with; empty for the first page."""
    size: int
    """Most entries of the page, >= 1."""

    @classmethod
    def of(cls, request: search_pb2.ListLabelsRequest | gallery_pb2.ListItemsRequest) -> "PageRequest":
        """Read the page fields of a call. Raises ServiceError, with everything that is wrong with them."""
        if violations := list(_violations(request)):
            raise rejected(violations)
        return cls(key_before(request.page_token) or "", request.page_size or _DEFAULT_PAGE)


def token_after(key: str) -> str:
    """Return the token of the page that begins after this key."""
    content = key.encode()
    return base64.urlsafe_b64encode(_checksum(content) + content).decode()


def key_before(token: str) -> str | None:
    """Return the key that the page of this token begins after; None if the token was never given."""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        key = raw[_CHECKSUM_BYTES:].decode()
    except (binascii.Error, ValueError):
        return None
    return key if token and token_after(key) == token else None


def _violations(request: search_pb2.ListLabelsRequest | gallery_pb2.ListItemsRequest) -> Iterator[Violation]:
    if request.HasField("page_size") and not 1 <= request.page_size <= LARGEST_PAGE:
        text = f"must be 1 to {LARGEST_PAGE}, got {request.page_size}"
        yield Violation("page_size", Reason.INVALID_PAGE, text)
    if request.page_token and key_before(request.page_token) is None:
        yield Violation("page_token", Reason.INVALID_PAGE, "no page gave this token: start again without one")


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big")
