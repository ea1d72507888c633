"""Answers that are kept for a while, so that a link shows the same answer again.

They are kept in memory, the latest of them, up to a number of bytes: photos of strangers are on no disk, and gone when the program ends.
"""

import secrets
from collections import OrderedDict
from typing import Any

from web.door.problems import DoorError, Reason


class Kept:
    """Keeps things of any kind under names that can't be guessed; the one longest unread goes first when there is no room."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._things: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def keep(self, thing: Any, size: int) -> str:
        """Keep a thing of so many bytes, and return its name. The last one is kept even if it is larger than all may be."""
        name = secrets.token_urlsafe(16)
        self._things[name] = (thing, size)
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._things) > 1:
            self.forget(next(iter(self._things)))
        return name

    def get(self, name: str) -> Any:
        """Return the thing. Raise DoorError if it is not kept any more, or never was."""
        if name not in self._things:
            raise DoorError(Reason.NOT_FOUND, "this answer is not kept any more: send the photo again")
        self._things.move_to_end(name)
        return self._things[name][0]

    def forget(self, name: str) -> None:
        _, size = self._things.pop(name, (None, 0))
        self._bytes -= size
