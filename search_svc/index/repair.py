"""`vmmr-search repair`: saves what can be read of a damaged journal.

SQLite sees to a process that was killed and a page that was torn: nothing is to be done then. This is for a disk that has lost
or changed what was written long ago. Every entry that is as it was written goes into a new journal, under its number; the
damaged file stays beside it.

The new journal is made under a name of its own, and takes the place of the damaged one and its WAL in steps, for no rename moves
two files. Before the first of them it gets the name `journal_file.repaired`, and while a file is there, nobody opens the journal:
killed between two steps, `repair` goes on where it was.
"""

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_svc.index import journal_file
from search_svc.index.index_dir import only_builder
from search_svc.index.journal import entry
from search_svc.index.journal_lease import alone_with_journal
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError, flush
from svckit.cli import CommandError

_INSERT = f"INSERT INTO entries ({journal_file.COLUMNS}, closes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ROW = f"SELECT {journal_file.COLUMNS}, closes FROM entries WHERE sequence = ?"  # noqa: S608


@dataclass(frozen=True)
class Saved:
    entries: int
    lost: list[int]
    """Sequence numbers of entries that were there and cannot be read."""
    damaged: Path
    """Where the damaged file is now."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "repair",
        help="save what can be read of a damaged journal",
        description="Puts every entry of a damaged journal that can be read into a new one, and says which are lost. Stop the "
        "servers of the index first. The damaged file is kept beside it.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    saved = repair(args.index)
    if saved is None:
        print(f"{args.index}: the journal is well, and stays as it is")
        return
    lost = f"{len(saved.lost)} lost ({', '.join(map(str, saved.lost[:20]))}{', ...' if len(saved.lost) > 20 else ''})"
    print(
        f"{args.index}: {saved.entries} entries saved, {lost if saved.lost else 'none lost'}; {saved.damaged} is what it was"
    )
    if saved.lost:
        sys.exit(1)


def repair(index_dir: Path) -> Saved | None:
    """None if there was nothing to repair. Raises CommandError if there is no journal, or a server has it open."""
    path = index_dir / journal_file.FILE
    if not path.exists():
        raise CommandError(f"{path}: there is no journal")
    with only_builder(index_dir):
        _check_unused(index_dir, path)
        with _alone(index_dir):
            return _repaired(index_dir, path)


@contextmanager
def _alone(index_dir: Path) -> Iterator[None]:
    """Raises CommandError if somebody has the journal open; nobody can open it meanwhile."""
    with alone_with_journal(index_dir) as alone:
        if not alone:
            who = "a process that cannot be seen from here, of another container or user,"
            raise CommandError(f"{index_dir}: {who} has the journal open: stop it first")
        yield


def _repaired(index_dir: Path, path: Path) -> Saved | None:
    if not journal_file.repaired(path).exists():
        if _is_well(path):
            return None
        _repair(index_dir, path)
    return _take_place(path)


def _check_unused(index_dir: Path, path: Path) -> None:
    """Whoever has the journal open goes on with the damaged file, and what it writes there would be lost."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if any(_is_same(file, path) for file in (process / "fd").iterdir()):
                raise CommandError(f"{index_dir}: process {process.name} has the journal open: stop it first")


def _is_same(file: Path, path: Path) -> bool:
    with suppress(OSError):
        return file.samefile(path)
    return False


def _is_well(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as connection:
            if connection.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
                return False
            for row in connection.execute(f"SELECT {journal_file.COLUMNS} FROM entries"):  # noqa: S608
                entry(row, path)
    except (sqlite3.Error, ArtifactError):
        return False
    return True


def _repair(index_dir: Path, path: Path) -> None:
    """Makes the new journal, whole and on the disk."""
    manifest = IndexVersion.open(index_dir, verify=False).manifest
    made = path.with_name(f".{path.name}.making")
    for file in journal_file.files(made):
        file.unlink(missing_ok=True)
    with closing(journal_file.connect_to_write(made, manifest.model, manifest.dimension, 0)) as target:
        with closing(sqlite3.connect(path, isolation_level=None)) as source:
            last, pruned = _ends(source, manifest.journal_sequence)
            saved = _copy(source, target, path, range(pruned + 1, last + 1))
        _finish(target, last, pruned, saved)
    flush(made)
    made.rename(journal_file.repaired(path))
    journal_file.flush_folder(index_dir)


def _take_place(path: Path) -> Saved:
    """Of the damaged journal, which is kept. What was done of it before is not done again."""
    made = journal_file.repaired(path)
    counted = _count(made)
    damaged = _damaged(path)
    for file, kept in zip(journal_file.files(path)[1:], journal_file.files(damaged)[1:], strict=True):
        with suppress(FileNotFoundError):
            file.rename(kept)
    # Beside the WAL of the damaged one, the new one would take that for its own.
    journal_file.flush_folder(path.parent)
    made.replace(path)
    journal_file.flush_folder(path.parent)
    return Saved(*counted, damaged)


def _damaged(path: Path) -> Path:
    """Its other name: it has one already if a repair was killed after it had given it."""
    for there in path.parent.glob(f"{path.name}.damaged-*"):
        if there.samefile(path):
            return there
    damaged = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    os.link(path, damaged)
    return damaged


def _count(made: Path) -> tuple[int, list[int]]:
    """How many entries a repaired journal has, and which are lost: no number is left out where none is."""
    with closing(sqlite3.connect(made)) as connection:
        there = {number for (number,) in connection.execute("SELECT sequence FROM entries")}
        last = _value(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'entries'") or 0
        pruned = _value(connection, "SELECT value FROM meta WHERE name = 'pruned'") or 0
    return len(there), [number for number in range(pruned + 1, last + 1) if number not in there]


def _ends(source: sqlite3.Connection, floor: int) -> tuple[int, int]:
    """The last number that was given, and that up to which all was pruned, as far as it can be told.

    A version holds the entries up to `floor`, so these are not lost if nothing is known.
    """
    last = _value(source, "SELECT seq FROM sqlite_sequence WHERE name = 'entries'")
    highest = _value(source, "SELECT max(sequence) FROM entries")
    pruned = _value(source, "SELECT value FROM meta WHERE name = 'pruned'")
    return max(last or 0, highest or 0, floor), floor if pruned is None else pruned


def _value(source: sqlite3.Connection, sql: str) -> int | None:
    with suppress(sqlite3.Error):
        row = source.execute(sql).fetchone()
        return None if row is None else row[0]
    return None


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, path: Path, numbers: range) -> list[int]:
    """The numbers that were saved. Asked for one by one: a bad page costs what is on it."""
    saved = []
    target.execute("BEGIN")
    for number, row in _rows(source, numbers):
        with suppress(ArtifactError, ValueError, TypeError, AttributeError):
            entry(row[:-1], path)
            target.execute(_INSERT, row)
            saved.append(number)
    target.execute("COMMIT")
    return saved


def _rows(source: sqlite3.Connection, numbers: range) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Those that can be read at all."""
    for number in numbers:
        row = None
        with suppress(sqlite3.Error):
            row = source.execute(_ROW, (number,)).fetchone()
        if row:
            yield number, row


def _finish(target: sqlite3.Connection, last: int, pruned: int, saved: list[int]) -> None:
    """Numbers go on where they were; the last entry ends a write, so that it is read."""
    target.execute("BEGIN")
    target.execute("UPDATE meta SET value = ? WHERE name = 'pruned'", (pruned,))
    if saved:
        target.execute("UPDATE entries SET closes = 1 WHERE sequence = ?", (saved[-1],))
    target.execute("DELETE FROM sqlite_sequence WHERE name = 'entries'")
    target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entries', ?)", (last,))
    target.execute("COMMIT")
    target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
