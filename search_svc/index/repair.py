"""Repair: saves what can be read of a damaged journal.

SQLite sees to a process that was killed and a page that was torn: nothing is to be done then. This is for a disk that has lost
or changed what was written long ago. Every entry that is as it was written goes into a new journal, under its number: what SQLite can
reach, and what `salvage` finds in the pages. In the place of each that was acknowledged and is lost comes one that changes nothing, so that no
number is given twice. The damaged file stays beside it.

The new journal is made under a name of its own, and takes the place of the damaged one and its WAL in steps, for no rename moves
two files. Before the first of them it gets the name `journal_file.repaired`, and while a file is there, nobody opens the journal:
killed between two steps, `repair` goes on where it was.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from search_svc.index import journal_file, journal_format, journal_mark, salvage, turns
from search_svc.index.index_dir import current, only_builder, version_names
from search_svc.index.journal_absence import held, was_written
from search_svc.index.journal_check import reaches
from search_svc.index.journal_errors import ERRORS, of_another_model
from search_svc.index.journal_format import Meta, Row
from search_svc.index.journal_lease import exclusive_journal
from search_svc.index.journal_mark import Mark
from search_svc.index.journal_snapshot import ALL, Snapshot, reading
from search_svc.index.recovery import is_last_entry, recover
from search_svc.index.version import stated
from svckit.artifact import ArtifactError, flush, flush_one
from svckit.cli import CommandError

_Answer = TypeVar("_Answer")
_DAMAGED_CHARACTERS = 2
"""Of a model's fingerprint: far more differ between two models."""


@dataclass(frozen=True)
class Saved:
    entries: int
    lost: list[int]
    """Sequence numbers of entries that were there and cannot be read."""
    remains: dict[int, str]
    """What a disk has left of some of them, by number: the item and its label, either of which may be what is damaged."""
    unknown: list[str]
    """What cannot be told, so that more may be lost."""
    damaged: Path
    """Where the damaged file is now."""


def repair(index_dir: Path) -> Saved | None:
    """Repair the journal of an index; None if there was nothing to repair.

    Raises CommandError if there is no journal and never was one, or a process has it open; ArtifactError if its mark is of a later format,
    or no file.
    """
    path = index_dir / journal_file.FILE
    there = any(file.exists() for file in (*journal_file.files(path)[:2], journal_mark.path_of(path)))
    if not there and not held(index_dir) and not was_written(path):
        raise CommandError(f"{path}: there is no journal")
    if journal_mark.path_of(path).is_dir():
        raise ArtifactError(journal_mark.path_of(path), "is a folder, and must be a file", "remove it")
    with only_builder(index_dir):
        _check_unused(index_dir, path)
        with _alone(index_dir):
            return _repaired(index_dir, path)


@contextmanager
def _alone(index_dir: Path) -> Iterator[None]:
    """Raises CommandError if somebody has the journal open; nobody can open it meanwhile."""
    with exclusive_journal(index_dir) as alone:
        if not alone:
            who = "a compaction, or a process that cannot be seen from here, of another container or user,"
            raise CommandError(f"{index_dir}: {who} has the journal open: stop it first")
        yield


def _repaired(index_dir: Path, path: Path) -> Saved | None:
    journal_mark.refuse_later_format(path)
    if not journal_file.repaired(path).exists():
        with _copied(path) as copy:
            well = not _is_gone(path) and _is_well(copy) and reaches(copy, held(index_dir))
            if well and not _model_is_damaged(index_dir, path, copy):
                return None
            _leave_out_anothers(index_dir, path, copy)
            _repair(index_dir, path, copy)
    return _take_place(path)


def _check_unused(index_dir: Path, path: Path) -> None:
    """Raise CommandError if a process has the journal open: it would go on writing to the damaged file, and lose that."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if any(_is_same(file, path) for file in (process / "fd").iterdir()):
                raise CommandError(f"{index_dir}: process {process.name} has the journal open: stop it first")


def _is_same(file: Path, path: Path) -> bool:
    with suppress(OSError):
        return file.samefile(path)
    return False


@contextmanager
def _copied(path: Path, *, log: bool = True) -> Iterator[Path]:
    """Yield a copy of the journal that SQLite may open: when it closes one, it drops the log behind the first damaged frame."""
    copy = path.with_name(f".{path.name}.copy" if log else f".{path.name}.without-log")
    files = journal_file.files(copy)
    try:
        for there, file in zip(journal_file.files(path)[: 1 + log], files, strict=False):
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
            return not (mark and mark.needs_journal) and not journal_file.has_content(copy)
        with closing(connection), reading(connection, copy, mark) as snapshot:
            _check_all(snapshot)
        _check_writable(copy)
    except (*ERRORS, ArtifactError):
        return False
    return True


def _model_is_damaged(index_dir: Path, path: Path, copy: Path) -> bool:
    """Return whether a journal of format 1, where the model has no checksum, is of one that is nearly a version's.

    Raise ArtifactError if it is of another than all versions': it cannot be told whether it always was.
    """
    model = _seen(copy, lambda snapshot: str(snapshot.meta.model) if snapshot.format == 1 else None)
    models = _models(index_dir)
    if model is None or model in models:
        return False
    if _undamaged(model, models) == model:
        raise of_another_model(path, model, stated(index_dir, current(index_dir)).model)
    return True


def _models(index_dir: Path) -> set[str]:
    """Return the models of the versions that can be read."""
    models = set()
    for name in version_names(index_dir):
        with suppress(ArtifactError):
            models.add(stated(index_dir, name).model)
    return models


def _undamaged(model: str, models: Iterable[str]) -> str:
    """Return which of the models it is, where it differs from that in two characters at most, as no two fingerprints do; else itself."""
    for other in models:
        if len(model) == len(other) and sum(map(str.__ne__, model, other)) <= _DAMAGED_CHARACTERS:
            return other
    return model


def _check_writable(copy: Path) -> None:
    """Raise sqlite3.Error if SQLite reads a journal, but takes it for one that must not be written, by what its header says."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _is_gone(path: Path) -> bool:
    return was_written(path) and not journal_file.has_content(path)


def _leave_out_anothers(index_dir: Path, path: Path, copy: Path) -> None:
    """Remove the copy of the log if it is of another journal, or may be, and nothing is wrong without it.

    Raise CommandError if the database is of another, or if it cannot be told which of both is.
    """
    mark, log = _marked(copy), journal_file.files(copy)[1]
    of_another = _seen(copy, lambda snapshot: snapshot.holds_another(mark)) or _only_another_is_there(copy, mark)
    well = there = False
    if log.exists() and log.stat().st_size:
        with _copied(path, log=False) as alone:
            well = _is_well(alone) and reaches(alone, held(index_dir))
            there = bool(
                _seen(alone, lambda snapshot: snapshot.last >= mark.sequence and not snapshot.holds_another(mark))
            )
    if there and (well or of_another):
        log.unlink()
    elif of_another:
        text = f"{path}: it, or its log {journal_file.files(path)[1].name}, is of another index, or was put back from before a repair"
        raise CommandError(
            f"{text}, and nothing was changed: `vmmr-search restore` makes an index of a backup; or put the right one in its place, or move "
            f"the wrong one away, and repair again; who wants what is there all the same moves {journal_mark.path_of(path)} away, too"
        )


def _only_another_is_there(copy: Path, mark: Mark) -> bool:
    """Return whether the pages have entries of the mark's number, and none is the one that was acknowledged, or stands for it."""
    if mark.checksum is None:
        return False
    is_last = partial(is_last_entry, mark)
    there = salvage.rows(*journal_file.files(copy)[:2], is_last).get(mark.sequence, ())
    return bool(there) and not any(is_last(row) or row[1] == journal_format.LOST for row in there)


def _seen(copy: Path, question: Callable[[Snapshot], _Answer]) -> _Answer | None:
    """Return the answer to a question about what SQLite sees of a journal; None if it sees nothing."""
    with suppress(*ERRORS, ArtifactError):
        if connection := journal_file.connect_to_read(copy):
            with closing(connection):
                return question(Snapshot.of(connection, copy))
    return None


def _marked(path: Path) -> Mark:
    with suppress(ArtifactError):
        return journal_mark.read(path) or journal_mark.NOTHING
    return journal_mark.NOTHING


def _repair(index_dir: Path, path: Path, copy: Path) -> None:
    """Make the new journal, whole and on the disk."""
    manifest = stated(index_dir, current(index_dir))
    found = recover(path, copy, manifest.journal_sequence)
    meta, unknown = found.meta, list(found.unknown)
    if meta is None:
        lowest = min(found.rows, default=manifest.journal_sequence + 1)
        upto = found.mark.pruned if found.mark else min(manifest.journal_sequence, lowest - 1)
        meta = Meta(manifest.model, manifest.dimension, upto)
        if not found.mark and lowest > upto + 1:
            unknown.append(f"which entries up to {lowest - 1} were pruned, and which are lost, cannot be read")
    elif found.mark:
        # A prune that was only in the log may be lost with it.
        meta = replace(meta, pruned=max(meta.pruned, found.mark.pruned))
    meta = replace(meta, model=_undamaged(str(meta.model), _models(index_dir)))
    last = max(found.last, held(index_dir), manifest.journal_sequence, meta.pruned)
    made = path.with_name(f".{path.name}.making")
    for file in journal_file.files(made):
        file.unlink(missing_ok=True)
    with closing(journal_file.new(made, meta)) as target:
        target.execute("BEGIN")
        target.executemany(journal_format.INSERT, _rows(found.rows, meta.pruned, last))
        target.execute("COMMIT")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        _check_made(target, path, made, found.mark)
    _notes(path).write_text(json.dumps({"unknown": unknown, "remains": found.remains}))
    for file in (_notes(path), made):
        flush(file)
    made.rename(journal_file.repaired(path))
    flush_one(index_dir)


def _check_made(connection: sqlite3.Connection, path: Path, made: Path, mark: Mark | None) -> None:
    """Raise CommandError if what was made would be refused, in the place of the damaged one, by those who open it."""
    # The last entry may be lost, and another in its place.
    numbers = replace(mark, checksum=None) if mark else journal_mark.NOTHING
    try:
        with reading(connection, made, numbers) as snapshot:
            _check_all(snapshot)
    except (*ERRORS, ArtifactError) as error:
        text = f"{path}: nothing was changed, for what was saved of it would be refused ({error}): restore a backup"
        raise CommandError(text) from error


def _check_all(snapshot: Snapshot) -> None:
    snapshot.verify()
    snapshot.whole_writes(snapshot.meta.pruned, ALL)


def _rows(rows: Mapping[int, Row], pruned: int, last: int) -> Iterator[Row]:
    """Yield a row for each number, also for those that are lost; the last ends a write, so that it is read."""
    for number in range(pruned + 1, last + 1):
        row = rows.get(number)
        if row is None:
            yield journal_format.lost_row(number)
        else:
            yield journal_format.row_of(number, row[1], row[2:7], closes=bool(row[7]) or number == last)


def _take_place(path: Path) -> Saved:
    """Put the repaired journal in the place of the damaged one, which is kept. Steps that were taken before are not repeated."""
    made = journal_file.repaired(path)
    notes = _notes(path)
    noted = json.loads(notes.read_bytes()) if notes.exists() else {"unknown": [], "remains": {}}
    entries, lost, mark = _count(made)
    remains = {int(number): text for number, text in noted["remains"].items() if int(number) in lost}
    damaged = _damaged(path)
    for file, kept in zip(journal_file.files(path)[1:], journal_file.files(damaged)[1:], strict=True):
        with suppress(FileNotFoundError):
            file.rename(kept)
    # Beside the WAL of the damaged one, the new one would take that for its own.
    flush_one(path.parent)
    _set_mark(path, mark)
    made.replace(path)
    turns.make_lock(path)
    flush_one(path.parent)
    notes.unlink(missing_ok=True)
    return Saved(entries, lost, remains, noted["unknown"], damaged)


def _notes(path: Path) -> Path:
    """Return the path of what else is to be told, for the repair that goes on after one was killed."""
    return path.with_name(f".{path.name}.unknown")


def _set_mark(path: Path, mark: Mark) -> None:
    journal_mark.replace(path, _marked(path).joined(mark))


def _damaged(path: Path) -> Path:
    """Return the name that the damaged journal is kept under; a repair that was killed may have given it one."""
    damaged = journal_file.kept(path)
    if not path.exists():
        return damaged
    for there in path.parent.glob(f"{path.name}.damaged-*"):
        if there.samefile(path):
            return there
    os.link(path, damaged)
    return damaged


def _count(made: Path) -> tuple[int, list[int], Mark]:
    """Return how many entries a repaired journal has, which are lost, and its mark."""
    with closing(sqlite3.connect(made)) as connection:
        found = connection.execute("SELECT sequence, item_id FROM entries ORDER BY sequence").fetchall()
        snapshot = Snapshot.of(connection, made)
        mark = snapshot.mark()
    lost = [number for number, item_id in found if item_id == journal_format.LOST]
    return len(found) - len(lost), lost, mark
