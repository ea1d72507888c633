"""Types of command-line arguments."""

from argparse import ArgumentTypeError


def count(text: str) -> int:
    """A whole number >= 1."""
    if not (text.isdecimal() and int(text) >= 1):
        raise ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)
