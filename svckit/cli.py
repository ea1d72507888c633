"""Shared by all commands: mistakes end as one line on stderr, and progress is a bar or a line every ten seconds."""

import argparse
import importlib.metadata
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from tqdm import tqdm

from svckit import logs
from svckit.artifact import ArtifactError
from svckit.config import ConfigError
from svckit.redaction import without_secrets

_LOG_INTERVAL_S = 10.0
_USAGE = 2

_log = logging.getLogger(__name__)


class CommandError(Exception):
    """Raised where a command cannot go on; the message tells its user what to change."""


class Parser(argparse.ArgumentParser):
    """An argument parser that logs what is wrong with the arguments, where the log is JSON: then it is all that stderr gets."""

    def error(self, message: str) -> NoReturn:
        if not logs.in_json():
            super().error(without_secrets(message))
        _log.error("ended by an error", extra={"program": self.prog, "error": message})
        sys.exit(_USAGE)


def run(main: Callable[[], None], program: str) -> None:
    """Run a command. A user's mistake ends as `program: error: message` and exit code 1, never as a traceback.

    Of a server whose log is JSON, each error that ends it is a line of the log instead, one that nobody foresaw too.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (`| head`) left. The interpreter flushes stdout once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = mistake(error)
        if logs.in_json():
            _log_end(error, message, program)
            sys.exit(1)
        if message is None:
            raise
        sys.exit(without_secrets(f"{program}: error: {message}"))


def mistake(error: Exception) -> str | None:
    """Return what to tell the user whose mistake, or whose file, ended a command; None if it is ours."""
    if isinstance(error, (CommandError, ArtifactError, ConfigError)):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _log_end(error: Exception, message: str | None, program: str) -> None:
    about = {"program": program, "error": message or f"{type(error).__name__}: {error}"}
    _log.error("ended by an error", extra=about, exc_info=error if message is None else None)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {importlib.metadata.version('vmmr-services')}"
    )


def count(text: str) -> int:
    """Parse a command-line argument that is a whole number of at least 1. Raises argparse.ArgumentTypeError."""
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def tell_next(*command: object) -> None:
    """Print the command that a user most likely gives next, on stderr: stdout has what this one made."""
    print(f"next: {shlex.join(map(str, command))}", file=sys.stderr)


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, initial: int = 0, desc: str, unit: str
) -> Any:
    """Return a tqdm bar that writes to stderr: where that is no terminal, a line every ten seconds.

    It counts from `initial`, what an earlier run has done already, to `total`.
    """
    options = {"total": total, "initial": initial, "desc": desc, "unit": unit}
    if sys.stderr.isatty():
        return tqdm(iterable, **options, dynamic_ncols=True)
    return tqdm(iterable, **options, file=_Lines(), ascii=True, ncols=79, mininterval=_LOG_INTERVAL_S)


class _Lines:
    """The file a bar writes to where stderr is a log: every redraw of the bar is a line of its own."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
