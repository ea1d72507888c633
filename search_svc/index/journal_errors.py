"""The errors of a journal: what SQLite's mean, and what callers and operators are told."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from search_svc.index.journal_mark import Mark
from svckit.artifact import ArtifactError
from svckit.errors import Reason, ServiceError

ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""The classes of SQLite's errors: Python cannot even decode some of its messages about damaged tables."""
_OF_THE_DISK = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


_PASSING = {
    sqlite3.SQLITE_BUSY: "another process is writing to it: try again",
    sqlite3.SQLITE_LOCKED: "another process is writing to it: try again",
    sqlite3.SQLITE_PROTOCOL: "other processes are opening it: try again",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_NOMEM: "there is too little memory: try again",
    sqlite3.SQLITE_INTERRUPT: "it was stopped: try again",
}
"""What helps where nothing is wrong with the file, by the result code."""


class ReplacedError(ArtifactError):
    """Other files have the names of those that a process has open: what it reads is of another time than what others write."""


class CommitError(sqlite3.OperationalError):
    """The end of a transaction failed in a way that does not tell whether it is on the disk."""


def error_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 if the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def says_nothing_of_the_file(error: Exception) -> bool:
    """Return whether a transaction failed for want of room or of its turn: the connection is as good as before."""
    codes = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
    return isinstance(error, sqlite3.Error) and error_code(error) in codes and not isinstance(error, CommitError)


def is_damage(error: Exception) -> bool:
    """Return whether an error says that the file is not what SQLite wrote."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, UnicodeDecodeError)
    # Bytes that are no text are noticed by Python alone, whose error has no code.
    # A table or column of ours that is not there has lost its name.
    damaged_text = "decode" in str(error) or str(error).startswith("no such ")
    return error_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or damaged_text


def damaged(path: Path, what: str) -> ArtifactError:
    """Return the error for a journal that is not what was written."""
    return ArtifactError(path, f"is damaged ({what}): {_way_out(path)}")


def ends_early(path: Path, last: int, mark: Mark) -> ArtifactError:
    """Return the error for a journal that ends before what was acknowledged."""
    text = f"ends with entry {last}, and entries up to {mark.sequence} were acknowledged"
    return ArtifactError(path, f"{text}: {_way_out(path)}")


def gone(path: Path, mark: Mark) -> ArtifactError:
    """Return the error for a journal that is not there, or empty, although entries were acknowledged that no version need hold."""
    what = "is empty" if path.exists() else "is missing"
    text = f"{what}, and entries up to {mark.sequence} were acknowledged"
    return ArtifactError(path, f"{text}: {_way_out(path)}")


def another(path: Path, mark: Mark) -> ArtifactError:
    """Return the error for a journal whose entry of that number is not the one that was acknowledged."""
    text = f"holds another entry {mark.sequence} than the one that was acknowledged"
    why = "its file, or that of its log, is of another index, or was put back from before a repair"
    return ArtifactError(path, f"{text}: {why}: {_way_out(path)}")


def older(path: Path, last: int, sequence: int) -> ArtifactError:
    """Return the error for a journal that ends before what a version holds, as one does that was put back from an earlier copy."""
    text = f"ends with entry {last}, and the index holds {sequence}: it is the journal of another, or an earlier copy"
    return ArtifactError(path, f"{text}: {_way_out(path)}")


def replaced(path: Path) -> ReplacedError:
    """Return the error for a journal whose file or log was moved, removed or replaced while this process had it open."""
    text = "or its log, was moved, removed or replaced while it was open: what is written now would be lost"
    return ReplacedError(
        path, f"{text}. Stop the servers of the index, look at its files, and start them anew; a backup may have more"
    )


def of_another_model(path: Path, model: str | None, index_s: str) -> ArtifactError:
    """Return the error for a journal that is not of the index's model."""
    text = f"is of another model ({model}) than the index ({index_s})"
    way_out = "`vmmr-search rollback` serves a version of its model, if there is one; a backup may have the journal of this one"
    return ArtifactError(path, f"{text}: {way_out}")


def unusable(path: Path, reason: str) -> ArtifactError:
    """Return the error for a journal that cannot be opened or read for a reason of its disk, its user or its folder."""
    remedy = "see that it, and what is beside it under its name, are files that this user may use; if its disk has failed, a backup helps"
    return ArtifactError(path, reason, remedy)


def _way_out(path: Path) -> str:
    return f"`vmmr-search repair {path.parent}` saves what can be read of it; a backup may have more"


@contextmanager
def translate_sqlite_errors(path: Path, damaged: Callable[[Path, str], ArtifactError] = damaged) -> Iterator[None]:
    """Raise SQLite's errors as ArtifactErrors that name the file; `damaged` makes the one for a file that is damaged."""
    try:
        yield
    except ERRORS as error:
        if is_damage(error):
            raise damaged(path, str(error)) from error
        if isinstance(error, sqlite3.Error) and error_code(error) in _OF_THE_DISK:
            raise unusable(path, str(error)) from error
        code = error_code(error) if isinstance(error, sqlite3.Error) else 0
        raise ArtifactError(path, str(error), _PASSING.get(code) or _way_out(path)) from error


def unwritable(path: Path, error: Exception) -> ServiceError:
    """Return the error for a caller whose write did not get into the journal."""
    if isinstance(error, CommitError):
        text = f"{path.name} cannot be written ({error}): the write may be there after a crash; send it again"
        return ServiceError(Reason.JOURNAL_UNWRITABLE, text)
    code = error_code(error) if isinstance(error, sqlite3.Error) else 0
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        text = f"the disk of {path.name} is full: nothing was written"
        return ServiceError(Reason.JOURNAL_FULL, text)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        text = f"{path.name} is being written by another process: nothing was written"
        return ServiceError(Reason.JOURNAL_UNWRITABLE, text, retry_after_s=1.0)
    text = f"{path.name} cannot be written ({error}): nothing was written"
    if code == sqlite3.SQLITE_READONLY:
        text += "; who runs the server sees that its user may write it, and mends it with `vmmr-search repair` if it is damaged"
    return ServiceError(Reason.JOURNAL_UNWRITABLE, text)
