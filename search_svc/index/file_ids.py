"""Which file has a name: one that was moved away or replaced is another, and who has it open goes on with it."""

import os
from contextlib import suppress
from pathlib import Path

FileId = tuple[int, int]
"""Of a file or directory, as long as anybody has it open: its device, and its number there."""


def file_id(path: str | Path) -> FileId | None:
    """Return which file or directory has a name now; None if there is none."""
    with suppress(FileNotFoundError):
        there = os.stat(path)  # noqa: PTH116 (before every commit; a Path takes three times as long)
        return there.st_dev, there.st_ino
    return None
