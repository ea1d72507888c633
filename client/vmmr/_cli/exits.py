"""End a command: its exit codes, and what it prints of an error."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmmr._cli import report
from vmmr._errors import VmmrError

ANSWERED, PHOTOS_FAILED, USAGE, SERVICE_FAILED, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 130, 141


def exit_code(command: Callable[[], int], program: str = "vmmr") -> int:
    """Run the command and return its exit code, or that of what ended it."""
    tell_waits(program)
    try:
        return command()
    except VmmrError as error:
        print(f"{program}: error: {report.explained(error)}", file=sys.stderr)
        return SERVICE_FAILED
    except KeyboardInterrupt:
        # Skip all clean-up: gRPC's waits for ever for a call that was interrupted while it was being sent.
        os._exit(INTERRUPTED)
    except BrokenPipeError:
        # Python would complain of the same once more while it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


@contextmanager
def ended_at_interrupt(last_words: Callable[[], str]) -> Iterator[None]:
    """Have Ctrl-C end the process at once with these words, as it ends it without any elsewhere; not where it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before in {signal.SIG_IGN, None}:
        yield
        return

    def end(*_: object) -> None:
        os.write(sys.stderr.fileno(), f"\n{last_words()}\n".encode())  # print may be under way
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def tell_waits(program: str) -> None:
    """Have the client's log, which tells that a service is waited for, printed as the command's own words."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    log = logging.getLogger("vmmr")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
