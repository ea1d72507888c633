"""Page tokens of lists that change while they are read: the key that the page ended with, so that the next begins after it.

What was added or deleted meanwhile, even in another version of the index, moves no other entry from page to page. A
checksum tells tokens that were never given.
"""

import base64
import binascii
import zlib

_CHECKSUM_BYTES = 4


def token_after(key: str) -> str:
    """Of the page after the one that ended with this key."""
    content = key.encode()
    return base64.urlsafe_b64encode(_checksum(content) + content).decode()


def key_before(token: str) -> str | None:
    """The key that the page before ended with; None if the token was never given."""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        key = raw[_CHECKSUM_BYTES:].decode()
    except (binascii.Error, ValueError):
        return None
    return key if token and token_after(key) == token else None


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big")
