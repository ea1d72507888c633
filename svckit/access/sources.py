"""Values that are read from files and URLs, and again when those change. What cannot be read leaves the value as it was."""

import logging
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from svckit.config import ConfigError

Value = TypeVar("Value")

_URL_LIFE_S = 60.0
"""How long a document from a URL counts before it is fetched again."""
_FETCH_S = 5.0
_LARGEST = 2**20

_log = logging.getLogger(__name__)


class Source(Generic[Value]):
    """A value, and where it is from. `refresh` blocks; `value` and `problem` may be read from any thread."""

    def __init__(
        self,
        name: str,
        place: str,
        *,
        read: Callable[[], bytes],
        parse: Callable[[bytes], Value],
        version: Callable[[], Any],
        initial: Value,
    ) -> None:
        """`version` returns something that is another once there may be another value; `parse` raises ValueError."""
        self.name = name
        """What it is, in messages and metrics."""
        self.value = initial
        self.problem = ""
        """Why the value is not what the place holds now; empty if it is."""
        self.place = place
        """Where it is from; empty if nothing is read."""
        self._read = read
        self._parse = parse
        self._version = version
        self._seen: Any = None
        self._was_read = False
        """Whether the value is one that was read, and not the initial one."""

    def open(self) -> None:
        """Read the value for the first time. Raise ConfigError if it is not as it should be."""
        self._try()
        if self.problem:
            raise ConfigError(self.problem)

    def refresh(self, *, at_once: bool = False) -> None:
        """Read the value again if its version is another, or `at_once`. Log what came of it."""
        if not at_once and self._seen == self._current():
            return
        before = self.value, self.problem
        self._try()
        about = {"what": self.name, "place": self.place}
        wrong = {**about, "error": self.problem}
        if self.problem and self._was_read:
            _log.error("could not read it anew, what was read before holds", extra=wrong)
        elif self.problem:
            _log.error("could not read it, and it lets nobody in until it can be read", extra=wrong)
        elif (self.value, self.problem) != before:
            _log.info("read anew", extra=about)

    def _try(self) -> None:
        # The version first: what changes while the value is read is read again.
        self._seen = self._current()
        try:
            self.value = self._parse(self._read())
        except OSError as error:
            self.problem = f"{self.name} {self.place}: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 (whatever is wrong with it, the last value is still good, and is read anew later)
            self.problem = f"{self.name} {self.place}: {str(error) or type(error).__name__}"
        else:
            self.problem = ""
            self._was_read = True

    def _current(self) -> Any:
        try:
            return self._version()
        except OSError as error:
            return error.errno


def file(name: str, path: Path, parse: Callable[[bytes], Value], initial: Value) -> Source[Value]:
    """Return the source of what is in a file, which may be replaced or written over at any time."""

    def version() -> tuple[int, ...]:
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    return Source(name, str(path), read=path.read_bytes, parse=parse, version=version, initial=initial)


def url(name: str, address: str, parse: Callable[[bytes], Value], initial: Value) -> Source[Value]:
    """Return the source of what is at an https address, which is asked for it every minute."""

    def read() -> bytes:
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl.create_default_context()), _NoRedirects()
        )
        with opener.open(address, timeout=_FETCH_S) as reply:
            content: bytes = reply.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"is larger than {_LARGEST} bytes")
        return content

    def minute() -> float:
        return time.monotonic() // _URL_LIFE_S

    return Source(name, address, read=read, parse=parse, version=minute, initial=initial)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the address that was configured is the one that is trusted."""

    def redirect_request(self, *_: Any) -> None:
        return None
