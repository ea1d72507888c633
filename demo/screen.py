"""Prints the demo's output: a line for each step, and text in styles."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAME_WIDTH = 10
_LINE_WIDTH = 88  # of a step, without its duration
_STYLES = {"bold": "1", "dim": "2", "good": "32", "bad": "31"}


class Step:
    """A step under way. Its line shows `result` once it has ended."""

    def __init__(self, name: str) -> None:
        self.result = ""
        self._name = name
        self.progress("")

    def progress(self, text: str) -> None:
        """Show how far the step is, in place of what was shown before; on a terminal only."""
        if sys.stdout.isatty():
            line = self._line(text.removeprefix(f"{self._name}: "))
            _write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")

    def end(self, seconds: float) -> None:
        start = "\r\x1b[K" if sys.stdout.isatty() else ""
        _write(f"{start}{self._line(self.result):{_LINE_WIDTH}}{style('dim', f'{seconds:8.1f} s')}\n")

    def _line(self, text: str) -> str:
        return f"  {self._name:{_NAME_WIDTH}}{text}"


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Show a step while the block runs, and its result and duration when the block ends without an error."""
    started = time.monotonic()
    under_way = Step(name)
    try:
        yield under_way
    except BaseException:
        if sys.stdout.isatty():
            _write("\n")
        raise
    under_way.end(time.monotonic() - started)


def say(text: str = "") -> None:
    _write(f"{text}\n")


def style(name: str, text: str) -> str:
    """Return the text in a style, or as it is if the output is no terminal that shows styles."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{_STYLES[name]}m{text}\x1b[0m"


Progress = Callable[[str], None]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
