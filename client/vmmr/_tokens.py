"""The bearer token in a file, as clients send it and servers look for it."""

import os
from pathlib import Path


def is_sendable(token: str) -> bool:
    """Return whether the metadata of a call can have the token."""
    return token.isascii() and token.isprintable()


def parse(content: bytes) -> str:
    """Return the token in what a file holds, without the white space around it. Raise ValueError if there is none to send."""
    token = content.decode(errors="replace").strip()
    if not token:
        raise ValueError("is empty")
    if not is_sendable(token):
        raise ValueError("is no token: it must be one line of printable ASCII characters")
    return token


def read(path: str | os.PathLike[str]) -> str:
    """Return the token in a file. Raise OSError if it can't be read, or ValueError that names it if it holds none to send."""
    content = Path(path).read_bytes()
    try:
        return parse(content)
    except ValueError as error:
        raise ValueError(f"token file {os.fspath(path)}: {error}") from None
