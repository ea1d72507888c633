"""`vmmr-search repair`: saves what can be read of a damaged journal.

SQLite sees to a process that was killed and a page that was torn: nothing is to be done then. This is for a disk that has lost
or changed what was written long ago. Every entry that is as it was written goes into a new journal, under its number; the
damaged file stays beside it.
"""

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_svc import journal_file
from search_svc.index_dir import only_builder
from search_svc.journal import entry
from search_svc.version import IndexVersion
from svckit.artifact import ArtifactError, flush
from svckit.cli import CommandError

_INSERT = f"INSERT INTO entries ({journal_file.COLUMNS}, closes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ROW = f"SELECT {journal_file.COLUMNS}, closes FROM entries WHERE sequence = ?"  # noqa: S608
_SIDE_FILES = ("-wal", "-shm")


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
        if _is_well(path):
            return None
        return _repair(index_dir, path)


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


def _repair(index_dir: Path, path: Path) -> Saved:
    manifest = IndexVersion.open(index_dir, verify=False).manifest
    made = path.with_name(f".{path.name}.repaired")
    for suffix in ("", *_SIDE_FILES):
        made.with_name(made.name + suffix).unlink(missing_ok=True)
    with closing(journal_file.connect_to_write(made, manifest.model, manifest.dimension, 0)) as target:
        with closing(sqlite3.connect(path, isolation_level=None)) as source:
            last, pruned = _ends(source, manifest.journal_sequence)
            saved, lost = _copy(source, target, path, range(pruned + 1, last + 1))
        _finish(target, last, pruned, saved)
    damaged = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for suffix in _SIDE_FILES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(damaged.with_name(damaged.name + suffix))
    os.link(path, damaged)
    made.replace(path)
    flush(path)
    return Saved(len(saved), lost, damaged)


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


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, path: Path, numbers: range
) -> tuple[list[int], list[int]]:
    """The numbers that were saved, and those that were not. Asked for one by one: a bad page costs what is on it."""
    saved, lost = [], []
    target.execute("BEGIN")
    for number, row in _rows(source, numbers):
        try:
            if row is None:
                raise ArtifactError(path, "cannot be read")  # noqa: TRY301
            entry(row[:-1], path)
        except (ArtifactError, ValueError, TypeError, AttributeError):
            lost.append(number)
        else:
            target.execute(_INSERT, row)
            saved.append(number)
    target.execute("COMMIT")
    return saved, lost


def _rows(source: sqlite3.Connection, numbers: range) -> Iterator[tuple[int, tuple[Any, ...] | None]]:
    for number in numbers:
        row = None
        with suppress(sqlite3.Error):
            row = source.execute(_ROW, (number,)).fetchone()
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
