"""A base of few items for journals under test, and what its gallery must be: a dict."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from search_svc.dataset.cuts import Cut
from search_svc.index import journal_format
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.writes import Add, Delete

MODEL = "c0ffee" + 58 * "0"
D = 8


@dataclass
class DictBase:
    items: dict = field(default_factory=dict)
    journal_sequence: int = 0
    model: str = MODEL
    dimension: int = D

    def item(self, item_id):
        return self.items.get(item_id)

    def of_label(self, label):
        return [item_id for item_id, item in self.items.items() if item.label == label]

    def of_batch(self, batch_id):
        return [item_id for item_id, item in self.items.items() if item.batch_id == batch_id]


CAR = Cut(0.25, 0.125, 0.75, 1.0, 0.875)
NO_CAR = Cut(0.0, 0.0, 1.0, 1.0, no_car_found=True)


def stored(label="honda_pilot_2011", number=0, *, uri="", batch_id="", attributes=None, cut=None):
    embedding = np.random.default_rng(number).standard_normal(D).astype("<f2").tobytes()
    return StoredItem(label, uri, batch_id, attributes or {}, embedding, cut)


def writer(index_dir, base=None):
    base = base or DictBase()
    return JournalWriter(index_dir, lambda: base)


def written(index_dir, *writes, base=None):
    """The outcomes of writes, each committed alone."""
    journal = writer(index_dir, base)
    outcomes = [outcome for write in writes for outcome in journal.commit([write])]
    journal.close()
    return outcomes


def make_format_1(index_dir, items):
    """A journal as it was made before there were marks, with an entry for each item."""
    with closing(sqlite3.connect(index_dir / "journal.db", isolation_level=None)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(journal_format._TABLES.format(" AUTOINCREMENT"))
        made.executescript("PRAGMA application_id = 0x766D6D72; PRAGMA user_version = 1")
        made.executemany("INSERT INTO meta VALUES (?, ?)", [("model", MODEL), ("dimension", D), ("pruned", 0)])
        for number, (name, item) in enumerate(items.items(), 1):
            text = journal_format.attributes_text(item.attributes, item.cut)
            values = (item.label, item.uri, item.batch_id, text, item.embedding)
            row = (number, name, *values, 1, journal_format._checksum_1(name, values))
            made.execute(journal_format.INSERT, row)


def sequence(index_dir):
    """The number of the journal's last entry."""
    with Journal.open(index_dir) as journal:
        return journal.sequence()


def replayed(index_dir, base=None):
    """The gallery that a reader of the whole journal sees, by item id."""
    base = base or DictBase()
    gallery = dict(base.items)
    with Journal.open(index_dir) as journal:
        for entry in journal.read(base.journal_sequence, 10**9):
            if entry.item is None:
                gallery.pop(entry.item_id, None)
            else:
                gallery[entry.item_id] = entry.item
    return gallery


def applied(gallery, write):
    """The gallery after a write, as it should be."""
    if isinstance(write, Add):
        return {**gallery, **write.items}
    assert isinstance(write, Delete)

    def meant(item_id, item):
        return (
            item_id in write.item_ids
            or (write.label and item.label == write.label)
            or (write.batch_id and item.batch_id == write.batch_id)
        )

    return {item_id: item for item_id, item in gallery.items() if not meant(item_id, item)}


def line(gallery):
    """A gallery as text, to be compared across processes."""
    return json.dumps(
        {
            key: [i.label, i.uri, i.batch_id, dict(i.attributes), i.embedding.hex(), repr(i.cut)]
            for key, i in sorted(gallery.items())
        }
    )
