"""The entry of the `vmmr` command, and how our commands end at Ctrl-C: quietly and with exit code 130, whatever they are doing.

It lies beside the package because importing `vmmr` imports gRPC and numpy, which takes long enough to be interrupted. So this module
imports nothing but the standard library's smallest parts.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

INTERRUPTED = 130


def main() -> "NoReturn":
    """Run `vmmr`. It has nothing to put in order when it is interrupted, so Ctrl-C ends it at once from the first moment to the last."""
    _quit_at_interrupts()
    from vmmr._cli import main as run  # noqa: PLC0415 (only now may it take long)

    run()


class Importing:
    """A block of imports. Ctrl-C ends the process at once meanwhile: raised amid an import, KeyboardInterrupt may be lost, or told as another error.

    Where Ctrl-C does not raise KeyboardInterrupt, as in workers that ignore it, it stays as it is.
    """

    _is_ours = False

    def __enter__(self) -> None:
        self._is_ours = _quit_at_interrupts()

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def quietly(command: "Callable[[], object]") -> None:
    """Run a command that puts things in order at KeyboardInterrupt. Afterwards, while the process ends, Ctrl-C ends it at once."""
    sys.unraisablehook = _unraisable
    try:
        if signal.getsignal(signal.SIGINT) is _quit:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        _quit_at_interrupts()


def _quit_at_interrupts() -> bool:
    """Have Ctrl-C end the process at once. Return False, and do nothing, where it does not raise KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, _quit)
    except ValueError:  # in a thread, which no signal reaches
        return False
    return True


def _quit(*_: object) -> None:
    os._exit(INTERRUPTED)


def _unraisable(unraisable: "Any") -> None:
    """End the process where Python would print that an interrupt came amid a finalizer, and would go on."""
    if unraisable.exc_type is KeyboardInterrupt:
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(unraisable)
