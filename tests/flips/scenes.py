"""Small galleries on the disk, as servers leave them, and what each of them must hold."""

import contextlib
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np

from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.compaction import compact
from search_svc.building.spec import IndexSpec
from search_svc.dataset.cuts import Cut
from search_svc.fitting.held_out import HeldOutPhotos
from search_svc.index import journal_file, journal_mark, journal_snapshot
from search_svc.index.backup import back_up
from search_svc.index.base import VersionBase
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.journal_snapshot import Snapshot
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.retention import retire
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add, Delete, Write, WriteResult
from search_svc.voting.labels import parse
from tests.search_svc.journals import make_format_1

D = 8
MODEL = "c0ffee" + 58 * "0"
LABELS = tuple(f"{car}_{year}" for car in ("honda_civic", "honda_pilot", "lada_niva") for year in (2005, 2006))
CUTS = (None, Cut(0.25, 0.125, 0.75, 1.0, 0.875), Cut(0.0, 0.0, 1.0, 1.0, no_car_found=True))


@dataclass
class Expected:
    """What was acknowledged."""

    items: dict[str, StoredItem] = field(default_factory=dict)
    sequence: int = 0
    ever: dict[str, list[StoredItem | None]] = field(default_factory=dict)
    """By item id, all that it ever was; None: not there."""

    @classmethod
    def of(cls, items: Mapping[str, StoredItem], sequence: int = 0) -> "Expected":
        return cls(dict(items), sequence, {item_id: [item] for item_id, item in items.items()})

    def change(self, changes: Mapping[str, StoredItem | None], sequence: int) -> None:
        for item_id, item in changes.items():
            self.items.pop(item_id, None)
            if item is not None:
                self.items[item_id] = item
            self.ever.setdefault(item_id, [None]).append(item)
        self.sequence = sequence


@dataclass(frozen=True)
class Scene:
    name: str
    index: Path
    expected: Expected
    ways: tuple[str, ...] = ("serve", "backup", "compact", "repair", "rollback")
    """What can be done with it: names of trial.WAYS."""


def build_all(directory: Path) -> list[Scene]:
    return [
        make(directory / make.__name__)
        for make in (killed, stopped, pruned, pruning, upgrading, versions, drafted, backed_up)
    ]


def killed(directory: Path) -> Scene:
    """Killed after six writes of one item and one of forty: all of them are in the WAL."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
        return gallery.left(directory, "killed")


def stopped(directory: Path) -> Scene:
    """The same, stopped as it should be."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
    return gallery.left(directory, "stopped")


def pruned(directory: Path) -> Scene:
    """One version, which took over the first entries of the journal; they are pruned, and others were written since."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
    compact(gallery.index)
    retire(gallery.index, 1)
    with writing(gallery.index, gallery=gallery):
        later_writes(gallery)
    return gallery.left(directory, "pruned")


def pruning(directory: Path) -> Scene:
    """Killed soon after a prune of all but the last write: that prune, what it took out and the last write are in the WAL."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
        compact(gallery.index)
        retire(gallery.index, 1)
        with writing(gallery.index, gallery=gallery):
            gallery.add("after", 1)
            return gallery.left(directory, "pruning")


def upgrading(directory: Path) -> Scene:
    """A journal of format 1, killed while it was upgraded: it has a mark, and rows of format 2 are in the WAL that nobody committed."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
    path = gallery.index / journal_file.FILE
    with Journal.open(gallery.index) as journal:
        items = {entry.item_id: entry.item for entry in journal.read(0, 100) if entry.item}
    for file in (path, journal_mark.path_of(path)):
        file.unlink()
    make_format_1(gallery.index, items)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 2")  # so that pages are written before the end
        connection.execute("BEGIN IMMEDIATE")
        journal_snapshot.upgrade(Snapshot.of(connection, path))
        return gallery.left(directory, "upgrading")


def versions(directory: Path) -> Scene:
    """Three versions: the second was built from other photos, without what was written; the third compacted. Killed then."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
    build(gallery.index, photos(20, first=10), drop_changes=True)
    gallery.expected = Expected.of(photos(20, first=10), gallery.expected.sequence)
    with writing(gallery.index, gallery=gallery):
        later_writes(gallery)
    compact(gallery.index)
    with writing(gallery.index, gallery=gallery):
        gallery.add("late", 1)
        gallery.delete("photo 12")
        gallery.add("late", 3)
        return gallery.left(directory, "versions")


def drafted(directory: Path) -> Scene:
    """A compaction that was stopped just before its version was whole."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
    whole = patch("search_svc.building.build.write_version_manifest", side_effect=KeyboardInterrupt)
    with whole, contextlib.suppress(KeyboardInterrupt):
        compact(gallery.index)
    return gallery.left(directory, "drafted", ("compact",))


def backed_up(directory: Path) -> Scene:
    """A backup, of a version and what was written since."""
    with writing(directory / "live", photos(24)) as gallery:
        seven_writes(gallery)
    compact(gallery.index)
    with writing(gallery.index, gallery=gallery):
        later_writes(gallery)
    back_up(gallery.index, str(directory / "backup"))
    return Scene("backup", directory / "backup", gallery.expected, ("restore",))


def photos(number: int, first: int = 0) -> dict[str, StoredItem]:
    names = range(first, first + number)
    return {f"photo {n}": StoredItem(LABELS[n % len(LABELS)], f"photos/{n}.jpg", "", {}, half(n)) for n in names}


def half(number: int, dimension: int = D) -> bytes:
    vector = np.random.default_rng(number).standard_normal(dimension)
    return (vector / np.linalg.norm(vector)).astype("<f2").tobytes()


def build(index: Path, items: Mapping[str, StoredItem], *, drop_changes: bool = False) -> None:
    held = [parse(LABELS[n % len(LABELS)]) for n in range(120)]
    matrix = np.stack([np.frombuffer(item.embedding, "<f2") for item in items.values()]).astype(np.float32)
    queries = np.random.default_rng(0).standard_normal((len(held), D)).astype(np.float32)
    gallery = BuildSource(
        embeddings=matrix,
        rows=np.arange(len(matrix)),
        item_ids=list(items),
        labels=[parse(item.label) for item in items.values()],
        uris=[item.uri for item in items.values()],
        model=MODEL,
        model_name="flips",
    )
    spec = IndexSpec(shards=2, k=5)
    build_version(
        index, gallery, spec, held=HeldOutPhotos(queries, np.arange(len(held)), held), drop_changes=drop_changes
    )


@dataclass
class Live:
    """An index that is written to as a server does, and what it must hold."""

    index: Path
    expected: Expected
    writer: JournalWriter | None = None
    written: int = 0

    def add(self, prefix: str, number: int) -> None:
        """New items, in one write."""
        items = {}
        for _ in range(number):
            n = 1000 + self.written
            batch = f"batch {n // 8}" if n % 2 else ""
            attributes = {"n": str(n)} if n % 3 else {}
            cut = CUTS[n % 3]
            items[f"{prefix} {n}"] = StoredItem(LABELS[n % 4], f"late/{n}.jpg", batch, attributes, half(n), cut)
            self.written += 1
        self.commit(Add(items), dict(items))

    def replace(self, item_id: str) -> None:
        self.written += 1
        item = StoredItem("fiat_uno_1999", "again.jpg", "again", {}, half(5000 + self.written))
        self.commit(Add({item_id: item}), {item_id: item})

    def delete(self, *item_ids: str) -> None:
        self.commit(Delete(item_ids), dict.fromkeys(item_ids))

    def commit(self, write: Write, changes: Mapping[str, StoredItem | None]) -> None:
        assert self.writer is not None
        (done,) = self.writer.commit([write])
        assert isinstance(done, WriteResult), done
        self.expected.change(changes, done.sequence)

    def left(self, directory: Path, name: str, ways: tuple[str, ...] = Scene.ways) -> Scene:
        """A copy of what is on the disk now: what a killed process leaves, while it is open."""
        return Scene(name, shutil.copytree(self.index, directory / "left"), self.expected, ways)


@contextlib.contextmanager
def writing(index: Path, items: Mapping[str, StoredItem] | None = None, gallery: Live | None = None):
    """Opens an index to write to it, and builds it of items first if there is none."""
    if gallery is None:
        assert items is not None
        build(index, items)
        gallery = Live(index, Expected.of(items))
    version = IndexVersion.open(index)
    writer = gallery.writer = JournalWriter(index, lambda: VersionBase(version))
    with Journal.open(index):
        yield gallery
        writer.close()


def seven_writes(gallery: Live) -> None:
    for _ in range(6):
        gallery.add("one", 1)
    gallery.add("many", 40)


def later_writes(gallery: Live) -> None:
    some = sorted(gallery.expected.items)
    gallery.add("later", 1)
    gallery.replace(some[0])
    gallery.delete(some[1], some[2])
    gallery.add("later", 5)
    gallery.replace(some[3])
    gallery.delete(some[0])
    gallery.add("last", 1)
