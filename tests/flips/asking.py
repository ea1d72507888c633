"""Opens an index as a server does, asks it everything, and compares the answers with what was acknowledged."""

import gc
from pathlib import Path

import numpy as np

from search_svc.engine.local import LocalEngine
from search_svc.index.base import VersionBase
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.writes import Add, WriteResult
from search_svc.live.following import Replay
from search_svc.live.opening import Opener
from search_svc.live.view import View
from search_svc.serving.gallery_reader import GalleryReader, ItemFilter
from tests.flips.scenes import Expected, half


class WrongError(Exception):
    """An answer that is not the right one, given as if it were."""


def ask(index: Path, expected: Expected, *, write: bool = True) -> None:
    """Raises WrongError if the index answers wrong, and whatever it refuses with if it does."""
    opener = Opener(index, LocalEngine.open, max_k=1000)
    opened = opener.current(verify=True)
    try:
        with Journal.open(index) as journal:
            replay = Replay(opened, journal)
            replay.finish()
            base = VersionBase(opened.version)
            view = replay.view()
            check_sequence(view.sequence, journal.sequence(), expected.sequence)
            check_items(dict(GalleryReader(base, journal).page("", 10_000, ItemFilter())), expected.items, "listed")
            check_each(GalleryReader(base, journal), expected)
            check_selections(journal, base, expected)
            check_search(view, expected)
            if write:
                check_writes(index, base, expected)
                replay.finish()
                check_sequence(replay.view().sequence, journal.sequence(), expected.sequence + 1)
                check_search(replay.view(), with_new(expected, base.dimension))
            del view, replay, base
    finally:
        opener.close()
        del opened
        gc.collect(0)


def new_item(dimension: int) -> StoredItem:
    return StoredItem("honda_pilot_2027", "new.jpg", "", {}, half(999_999, dimension))


def with_new(expected: Expected, dimension: int) -> Expected:
    return Expected({**expected.items, "new": new_item(dimension)}, expected.sequence + 1, {})


def check_sequence(shown: int, journal: int, expected: int) -> None:
    if (shown, journal) != (expected, expected):
        raise WrongError(f"the view is at {shown} and the journal at {journal}; {expected} was acknowledged")


def check_items(found: dict, expected: dict, how: str) -> None:
    if found == expected:
        return
    lost, strange = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = sorted(key for key in found.keys() & expected.keys() if found[key] != expected[key])
    raise WrongError(
        f"{how}: {len(lost)} lost {lost[:3]}, {len(strange)} strange {strange[:3]}, {len(other)} changed {other[:3]}"
    )


def check_each(reader: GalleryReader, expected: Expected) -> None:
    found = {item_id: item for item_id in expected.ever if (item := reader.item(item_id)) is not None}
    check_items(found, expected.items, "got one by one")


def check_selections(journal: Journal, base: VersionBase, expected: Expected) -> None:
    """What is deleted by label and by batch: items of the version that were not written since, and those of the journal."""
    after = base.journal_sequence
    for name in {item.label for item in expected.items.values()}:
        found = {item_id for item_id in base.of_label(name) if journal.last(item_id, after) is None}
        found |= set(journal.of_label(name, after))
        check_ids(found, {i for i, item in expected.items.items() if item.label == name}, f"of the label {name}")
    for name in {item.batch_id for item in expected.items.values() if item.batch_id}:
        found = {item_id for item_id in base.of_batch(name) if journal.last(item_id, after) is None}
        found |= set(journal.of_batch(name, after))
        check_ids(found, {i for i, item in expected.items.items() if item.batch_id == name}, f"of the batch {name}")


def check_ids(found: set, expected: set, what: str) -> None:
    if found != expected:
        raise WrongError(f"{what}: {len(found)} items, {len(expected)} were acknowledged")


def check_search(view: View, expected: Expected) -> None:
    """Nothing is nearer to an item's embedding than what is found for it, which has its own label and uri.

    That is the item itself, but for another whose inner product with it is larger: float16 rounds the lengths of both.
    """
    items = list(expected.items.items())
    queries = np.stack([np.frombuffer(item.embedding, "<f2") for _, item in items]).astype(np.float32)
    if view.size != len(items):
        raise WrongError(f"the view has {view.size} items, {len(items)} were acknowledged")
    found = view.search(
        queries,
        1,
        params=view.opened.engine.defaults,
        labels=None,
        exact=False,
        timeout_s=None,
        allow_partial=False,
    ).hits
    rows = found.ids[:, 0]
    ids, uris = view.items.take(rows.tolist())
    labels = [view.items.labels[place].label for place in view.items.positions(rows).tolist()]
    place = {item_id: row for row, (item_id, _) in enumerate(items)}
    for row, (found_id, *answer) in enumerate(zip(ids, uris, labels, strict=True)):
        item = expected.items.get(found_id)
        if item is None or answer != [item.uri, item.label]:
            raise WrongError(f"the nearest to {items[row][0]!r} is {found_id!r}, {answer}")
        if queries[row] @ queries[place[found_id]] < queries[row] @ queries[row]:
            raise WrongError(f"the nearest to {items[row][0]!r} is {found_id!r}, which is farther than itself")
    if not np.allclose(found.scores[:, 0], np.square(queries).sum(axis=1), atol=1e-4):
        raise WrongError("an item does not have the score of its own embedding")


def check_writes(index: Path, base: VersionBase, expected: Expected) -> None:
    """What is there already is known to be there, and what is new gets the next number."""
    writer = JournalWriter(index, lambda: base)
    try:
        for outcome in (outcomes := writer.commit([Add(dict(expected.items)), Add({"new": new_item(base.dimension)})])):
            if isinstance(outcome, Exception):
                raise outcome
    finally:
        writer.close()
    again, new = outcomes
    assert isinstance(again, WriteResult)
    assert isinstance(new, WriteResult)
    if again.unchanged != len(expected.items) or (new.added, new.sequence) != (1, expected.sequence + 1):
        raise WrongError(f"writes what is there again: {again}, {new}; {expected.sequence} was the last")
