"""The last entry of an item, which alone counts, in SQL. `after` is the number of an entry: those up to it do not count."""

import unicodedata

from search_svc.index.journal_format import Row
from search_svc.index.journal_snapshot import Snapshot

_LATER = "SELECT 1 FROM entries AS later WHERE later.item_id = e.item_id AND later.sequence > e.sequence"


def last_row(snapshot: Snapshot, item_id: str, after: int) -> Row | None:
    """Return the last entry of an item; None if it has none."""
    where = "WHERE item_id = ? AND sequence > ? ORDER BY sequence DESC LIMIT 1"
    return next(iter(list(snapshot.rows(where, item_id, after))), None)


def last_rows_by_id(snapshot: Snapshot, after_id: str, after: int, limit: int) -> list[Row]:
    """Return the last entries of the items with ids after that one, in the order of their ids."""
    where = f"AS e WHERE item_id > ? AND sequence > ? AND NOT EXISTS ({_LATER}) ORDER BY item_id LIMIT ?"
    return list(snapshot.rows(where, after_id, after, limit))


def ids_of_label(snapshot: Snapshot, label: str, after: int) -> list[str]:
    """Return the ids of the items that have the label by their last entry, in the order of writing.

    Older journals may have it in Unicode's form NFD, as macOS names folders.
    """
    return _ids(snapshot, "label IN (?, ?)", (label, unicodedata.normalize("NFD", label)), after)


def ids_of_batch(snapshot: Snapshot, batch_id: str, after: int) -> list[str]:
    """Return the ids of the items that are of the batch by their last entry, in the order of writing; of the empty one, none."""
    return _ids(snapshot, "batch_id <> '' AND batch_id = ?", (batch_id,), after)


def _ids(snapshot: Snapshot, condition: str, values: tuple[str, ...], after: int) -> list[str]:
    where = f"{condition} AND sequence > ? AND NOT EXISTS ({_LATER})"
    sql = f"SELECT item_id FROM entries AS e WHERE {where} ORDER BY sequence"  # noqa: S608
    return [item_id for (item_id,) in snapshot.connection.execute(sql, (*values, after))]
