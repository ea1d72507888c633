"""Writes to the journal: those that waited together are committed together, and acknowledged once they are on the disk.

A commit waits for the disk, whatever is in it. So the more callers write at once, the more each wait is worth.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import assert_never

from search_svc.index import journal_file, journal_format
from search_svc.index.file_ids import HeldDirectory, file_id
from search_svc.index.journal import StoredItem, item_of
from search_svc.index.journal_errors import (
    ERRORS,
    ReplacedError,
    is_damage,
    older,
    replaced,
    says_nothing_of_the_file,
    unwritable,
)
from search_svc.index.journal_snapshot import Snapshot
from search_svc.index.journal_transactions import JournalTransactions
from search_svc.index.last_entries import ids_of_batch, ids_of_label, last_row
from search_svc.index.write_trouble import WriteTrouble
from search_svc.index.writes import Add, Base, Delete, Write, WriteResult
from svckit.access.callers import check_label
from svckit.artifact import ArtifactError
from svckit.errors import Reason, ServiceError


class JournalWriter:
    """Carries out batches of writes, in one thread. The first write makes the journal; other processes may write too."""

    def __init__(
        self, index_dir: Path, base: Callable[[], Base], on_damage: Callable[[Exception], None] = lambda _: None
    ) -> None:
        """`base` gives the version that is served, which stays on the disk while it is. `on_damage` hears of damage that a write has met.

        Raises OSError if there is no such directory.
        """
        self.path = index_dir / journal_file.FILE
        self._base = base
        self._on_damage = on_damage
        self._trouble = WriteTrouble(self.path)
        self._transactions: JournalTransactions | None = None
        self._index = HeldDirectory(index_dir)
        self._replaced: ReplacedError | None = None

    def commit(self, writes: Sequence[Write]) -> list[WriteResult | Exception]:
        """Return the result of each write that is on the disk, or why it is not. Each is there whole, or not at all."""
        outcomes = self._commit(writes)
        if len(writes) > 1 and all(_is_full(outcome) for outcome in outcomes):
            # The largest may be what does not fit.
            outcomes = [outcome for write in writes for outcome in self._commit([write])]
        self._trouble.heard(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, ArtifactError):
                self._on_damage(outcome)
        return outcomes

    def close(self) -> None:
        """Close the journal, and put SQLite's log into the database, so that nothing is lost with the log."""
        self._disconnect()
        self._index.release()
        journal_file.checkpoint(self.path)

    def _disconnect(self) -> None:
        if self._transactions:
            self._transactions.close()
        self._transactions = None

    def _commit(self, writes: Sequence[Write]) -> list[WriteResult | Exception]:
        if self._replaced:
            return [self._replaced] * len(writes)
        try:
            base = self._base()
            with self._opened(base).transaction(max(write.deadline for write in writes)) as snapshot:
                _check(snapshot, base)
                changes = _Changes(snapshot, base)
                outcomes = [changes.outcome(write) for write in writes]
        except ServiceError as error:
            return [error] * len(writes)
        except (*ERRORS, OSError) as error:
            if not says_nothing_of_the_file(error):
                self._disconnect()
            return [self._unwritable(error)] * len(writes)
        except ArtifactError as error:
            self._disconnect()
            if isinstance(error, ReplacedError) and file_id(self.path) is not None:
                # The gallery that is served is not the one that is there now. One that is only away may come back.
                self._replaced = error
            return [error] * len(writes)
        return outcomes

    def _unwritable(self, error: Exception) -> Exception:
        if is_damage(error):
            self._on_damage(error)
            text = f"{self.path.name} is damaged ({error}): who runs the server saves what can be read with `vmmr-search repair`"
            return ServiceError(Reason.JOURNAL_UNWRITABLE, text)
        return unwritable(self.path, error)

    def _opened(self, base: Base) -> JournalTransactions:
        if self._transactions is None:
            if not self._index.is_in_place():
                raise replaced(self.path)
            self._transactions = JournalTransactions(self.path, base.model, base.dimension, base.journal_sequence)
        return self._transactions


def _check(snapshot: Snapshot, base: Base) -> None:
    """Raise ServiceError if the base and the entries after it are not the gallery that is written to."""
    meta, last = snapshot.meta, snapshot.last
    if last < base.journal_sequence:
        error = older(snapshot.path, last, base.journal_sequence)
        raise ServiceError(Reason.JOURNAL_UNWRITABLE, f"{error}; nothing was written")
    if meta.pruned > base.journal_sequence:
        text = "this server has not heard yet of the version that took over what it would write to: nothing was written"
        raise ServiceError(Reason.JOURNAL_UNWRITABLE, text, retry_after_s=1.0)
    if meta.model != base.model:
        if last > base.journal_sequence:
            text = f"is of the model {meta.model[:12]}, the index of {base.model[:12]}: nothing was written"
            raise ServiceError(Reason.JOURNAL_UNWRITABLE, f"the journal {text}")
        # An index of another model holds all that there is: from here on the journal is that model's.
        journal_format.write_meta(
            snapshot.connection, dataclasses.replace(meta, model=base.model, dimension=base.dimension)
        )


class _Changes:
    """The writes of one transaction."""

    def __init__(self, snapshot: Snapshot, base: Base) -> None:
        self._snapshot = snapshot
        self._connection = snapshot.connection
        self._last = snapshot.last
        self._base = base

    def outcome(self, write: Write) -> WriteResult | Exception:
        """Carry out one write, which fails alone, unless the journal fails."""
        if time.monotonic() > write.deadline:
            return ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline passed before the write began")
        self._connection.execute("SAVEPOINT one")
        try:
            return self._write(write)
        except ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this write's alone)
            self._connection.execute("ROLLBACK TO one")
            return error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("RELEASE one")

    def _write(self, write: Write) -> WriteResult:
        match write:
            case Add():
                written = self._add(write)
            case Delete():
                written = self._delete(write)
            case _:
                assert_never(write)
        return written

    def _add(self, write: Add) -> WriteResult:
        if write.model not in ("", self._base.model):
            text = f"the index is of the model {self._base.model[:12]} now, and these were embedded with {write.model[:12]}"
            raise ServiceError(Reason.MODEL_MISMATCH, text, metadata={"expected": self._base.model, "got": write.model})
        before = {item_id: self._item(item_id) for item_id in write.items}
        for item in (*write.items.values(), *filter(None, before.values())):
            check_label(write.label_prefixes, item.label)
        changed = [(item_id, item) for item_id, item in write.items.items() if item != before[item_id]]
        gone = {item_id: old.label for item_id, _ in changed if (old := before[item_id])}
        return WriteResult(
            self._insert(changed),
            added=len(changed) - len(gone),
            replaced=len(gone),
            unchanged=len(write.items) - len(changed),
            gone=gone,
        )

    def _delete(self, write: Delete) -> WriteResult:
        ids = self._meant(write) if write.only is None else dict.fromkeys(write.only)
        there = {}
        for item_id in ids:
            item = self._item(item_id)
            if item is not None and (write.only is None or write.selects(item)):
                check_label(write.label_prefixes, item.label)
                there[item_id] = item.label
        return WriteResult(self._insert((item_id, None) for item_id in there), deleted=len(there), gone=there)

    def _meant(self, write: Delete) -> Iterable[str]:
        """Return the ids of the items to delete, each once."""
        ids, after = dict.fromkeys(write.item_ids), self._base.journal_sequence
        if write.label:
            ids |= dict.fromkeys(id_ for id_ in self._base.of_label(write.label) if not self._touched(id_))
            ids |= dict.fromkeys(ids_of_label(self._snapshot, write.label, after))
        if write.batch_id:
            ids |= dict.fromkeys(id_ for id_ in self._base.of_batch(write.batch_id) if not self._touched(id_))
            ids |= dict.fromkeys(ids_of_batch(self._snapshot, write.batch_id, after))
        return ids

    def _item(self, item_id: str) -> StoredItem | None:
        """Return an item as it is now; None if there is none."""
        row = last_row(self._snapshot, item_id, self._base.journal_sequence)
        return item_of(row) if row else self._base.item(item_id)

    def _touched(self, item_id: str) -> bool:
        """Whether the journal has the item, so that the base's does not count."""
        return last_row(self._snapshot, item_id, self._base.journal_sequence) is not None

    def _insert(self, items: Iterable[tuple[str, StoredItem | None]]) -> int:
        """Write entries, and return the number of the last; if there are none, of the last that is there."""
        changed = list(items)
        ends = self._last + len(changed)
        self._connection.executemany(
            journal_format.INSERT,
            (
                journal_format.row_of(sequence, item_id, _values(item), closes=sequence == ends)
                for sequence, (item_id, item) in enumerate(changed, self._last + 1)
            ),
        )
        self._last = ends
        return ends


def _values(item: StoredItem | None) -> journal_format.Values:
    if item is None:
        return (None, None, None, None, None)
    attributes = journal_format.attributes_text(item.attributes, item.cut)
    return (item.label, item.uri, item.batch_id, attributes, item.embedding)


def _is_full(outcome: WriteResult | Exception) -> bool:
    return isinstance(outcome, ServiceError) and outcome.reason == Reason.JOURNAL_FULL
