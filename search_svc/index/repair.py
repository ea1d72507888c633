"""`vmmr-search repair`: saves what can be read of a damaged journal.

SQLite sees to a process that was killed and a page that was torn: nothing is to be done then. This is for a disk that has lost
or changed what was written long ago. Every entry that is as it was written goes into a new journal, under its number: what SQLite can
reach, and what `salvage` finds in the pages. In the place of each that was acknowledged and is lost comes one that changes nothing, so that no
number is given twice. The damaged file stays beside it.

The new journal is made under a name of its own, and takes the place of the damaged one and its WAL in steps, for no rename moves
two files. Before the first of them it gets the name `journal_file.repaired`, and while a file is there, nobody opens the journal:
killed between two steps, `repair` goes on where it was.
"""

import argparse
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from search_svc.index import journal_file, journal_format, journal_mark, salvage
from search_svc.index.index_dir import only_builder
from search_svc.index.journal_errors import ERRORS
from search_svc.index.journal_format import Meta, Row
from search_svc.index.journal_lease import alone_with_journal
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_snapshot import ALL, Snapshot, read_meta, reading
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError, flush
from svckit.cli import CommandError

_ROW = f"SELECT {journal_format.COLUMNS} FROM entries WHERE sequence = ?"  # noqa: S608


@dataclass(frozen=True)
class Saved:
    entries: int
    lost: list[int]
    """Sequence numbers of entries that were there and cannot be read."""
    unknown: list[str]
    """What cannot be told, so that more may be lost."""
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
    print(f"{args.index}: {saved.entries} entries saved, {_lost(saved)}; {saved.damaged} is what it was")
    for text in saved.unknown:
        print(f"{args.index}: {text}")
    if saved.lost or saved.unknown:
        sys.exit(1)


def _lost(saved: Saved) -> str:
    if saved.lost:
        numbers = f"{', '.join(map(str, saved.lost[:20]))}{', ...' if len(saved.lost) > 20 else ''}"
        return f"{len(saved.lost)} lost ({numbers})"
    return "more may be lost" if saved.unknown else "none lost"


def repair(index_dir: Path) -> Saved | None:
    """None if there was nothing to repair. Raises CommandError if there is no journal, or a server has it open."""
    path = index_dir / journal_file.FILE
    if not any(file.exists() for file in (*journal_file.files(path)[:2], journal_mark.path_of(path))):
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
        with _copied(path) as copy:
            if _is_well(copy):
                return None
            _repair(index_dir, path, copy)
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


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """A copy that SQLite may open: of the log it drops what comes after the first frame that is damaged, once it closes it."""
    copy = path.with_name(f".{path.name}.copy")
    files = journal_file.files(copy)
    try:
        for there, file in zip(journal_file.files(path)[:2], files, strict=False):
            file.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(there, file)
        yield copy
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _is_well(copy: Path) -> bool:
    try:
        mark = journal_mark.read(copy)
        connection = journal_file.connect_to_read(copy)
        if connection is None:
            return not (mark and mark.needs_journal) and not _content(copy)
        with closing(connection), reading(connection, copy, mark) as snapshot:
            snapshot.verify()
            snapshot.whole_writes(snapshot.meta.pruned, ALL)
    except (*ERRORS, ArtifactError):
        return False
    return True


def _content(path: Path) -> bool:
    return any(file.exists() and file.stat().st_size for file in journal_file.files(path)[:2])


def _repair(index_dir: Path, path: Path, copy: Path) -> None:
    """Makes the new journal, whole and on the disk."""
    manifest = IndexVersion.open(index_dir, verify=False).manifest
    found = _found(path, copy)
    meta, unknown = found.meta, list(found.unknown)
    if meta is None:
        lowest = min(found.rows, default=manifest.journal_sequence + 1)
        upto = found.mark.pruned if found.mark else min(manifest.journal_sequence, lowest - 1)
        meta = Meta(manifest.model, manifest.dimension, upto)
        if not found.mark:
            unknown.append(f"which entries up to {lowest - 1} were pruned, and which are lost, cannot be read")
    last = max(found.last, manifest.journal_sequence, meta.pruned)
    made = path.with_name(f".{path.name}.making")
    for file in journal_file.files(made):
        file.unlink(missing_ok=True)
    with closing(journal_file.new(made, meta)) as target:
        target.execute("BEGIN")
        target.executemany(journal_format.INSERT, _rows(found.rows, meta.pruned, last))
        target.execute("COMMIT")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    _notes(path).write_text(json.dumps(unknown))
    for file in (_notes(path), made):
        flush(file)
    made.rename(journal_file.repaired(path))
    journal_mark.flush_folder(index_dir)


@dataclass(frozen=True)
class _Found:
    rows: dict[int, Row]
    """By number."""
    meta: Meta | None
    mark: Mark | None
    last: int
    """The last number that was given, as far as it can be told."""
    unknown: list[str]


def _found(path: Path, copy: Path) -> _Found:
    """What can be had of a journal by whatever means."""
    mark, unknown = None, []
    with suppress(ArtifactError):
        mark = journal_mark.read(path)
    form = _format(copy, marked=journal_mark.path_of(path).exists())
    rows = salvage.rows(*journal_file.files(copy)[:2], form)
    seen, meta, given = _seen(copy, form, max(rows, default=0))
    if mark:
        # Of what nobody was told of, a write that was not committed may be there in parts.
        rows = {number: row for number, row in rows.items() if number <= mark.sequence}
    rows |= seen
    last = max(given, mark.sequence if mark else 0, *rows, 0)
    if mark is None and (form > 1 or not given):
        unknown.append(f"up to which entry it was acknowledged cannot be read: any after {last} are lost")
    return _Found(rows, meta, mark, last, unknown)


def _format(copy: Path, *, marked: bool) -> int:
    """Of the file, if that can be told: its number is at a fixed place. Format 1 had no mark."""
    stated = copy.read_bytes()[60:64] if copy.exists() else b""
    return 1 if stated == b"\0\0\0\1" and not marked else journal_format.FORMAT


def _seen(copy: Path, form: int, highest: int) -> tuple[dict[int, Row], Meta | None, int]:
    """What SQLite sees: rows, asked for one by one, for a bad page costs what is on it; `meta`; the last number given."""
    rows: dict[int, Row] = {}
    meta, given = None, 0
    with closing(sqlite3.connect(copy, isolation_level=None)) as source:
        with suppress(*ERRORS, ArtifactError):
            meta = read_meta(source, copy, form)
        if form == 1:
            given = _value(source, "SELECT seq FROM sqlite_sequence WHERE name = 'entries'")
        highest = max(highest, given, _value(source, "SELECT max(sequence) FROM entries"))
        for number in range(meta.pruned + 1 if meta else 1, highest + 1):
            with suppress(*ERRORS):
                row = source.execute(_ROW, (number,)).fetchone()
                if row and journal_format.is_true(row, form):
                    rows[number] = row
    return rows, meta, given


def _value(source: sqlite3.Connection, sql: str) -> int:
    with suppress(*ERRORS):
        row = source.execute(sql).fetchone()
        return row[0] if row and isinstance(row[0], int) else 0
    return 0


def _rows(rows: Mapping[int, Row], pruned: int, last: int) -> Iterator[Row]:
    """One for each number, for those that are lost too; the last ends a write, so that it is read."""
    for number in range(pruned + 1, last + 1):
        row = rows.get(number)
        if row is None:
            yield journal_format.lost_row(number)
        else:
            yield journal_format.row_of(number, row[1], row[2:7], closes=bool(row[7]) or number == last)


def _take_place(path: Path) -> Saved:
    """Of the damaged journal, which is kept. What was done of it before is not done again."""
    made = journal_file.repaired(path)
    notes = _notes(path)
    unknown = json.loads(notes.read_bytes()) if notes.exists() else []
    entries, lost, mark = _count(made)
    damaged = _damaged(path)
    for file, kept in zip(journal_file.files(path)[1:], journal_file.files(damaged)[1:], strict=True):
        with suppress(FileNotFoundError):
            file.rename(kept)
    # Beside the WAL of the damaged one, the new one would take that for its own.
    journal_mark.flush_folder(path.parent)
    _set_mark(path, mark)
    made.replace(path)
    journal_mark.flush_folder(path.parent)
    notes.unlink(missing_ok=True)
    return Saved(entries, lost, unknown, damaged)


def _notes(path: Path) -> Path:
    """What could not be told, for who goes on with a repair that was killed."""
    return path.with_name(f".{path.name}.unknown")


def _set_mark(path: Path, mark: Mark) -> None:
    try:
        there = journal_mark.read(path)
    except ArtifactError:
        there = None
    if there is None:
        journal_mark.replace(path, mark)
    else:
        journal_mark.advance(path, mark)


def _damaged(path: Path) -> Path:
    """Its other name: it has one already if a repair was killed after it had given it."""
    damaged = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    if not path.exists():
        return damaged
    for there in path.parent.glob(f"{path.name}.damaged-*"):
        if there.samefile(path):
            return there
    os.link(path, damaged)
    return damaged


def _count(made: Path) -> tuple[int, list[int], Mark]:
    """How many entries a repaired journal has, which are lost, and what its mark says."""
    with closing(sqlite3.connect(made)) as connection:
        found = connection.execute("SELECT sequence, item_id FROM entries ORDER BY sequence").fetchall()
        snapshot = Snapshot.of(connection, made)
        mark = Mark(snapshot.last, snapshot.meta.pruned)
    lost = [number for number, item_id in found if item_id == journal_format.LOST]
    return len(found) - len(lost), lost, mark
