"""What can be done with the index that a kill has left, tried on copies of it: untouched, and with a bit flipped.

Untouched, all must go well: it is served, backed up and restored, compacted to its last entry, and every version of it is the whole gallery.
With a bit flipped: answered right, or refused by name (tests.flips).
"""

import collections
import contextlib
import random
import shutil
from pathlib import Path

from search_svc.index.base import VersionBase
from search_svc.index.index_dir import current, version_names
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add, WriteResult
from tests.crash.expected import Item, half
from tests.flips.asking import WrongError, ask
from tests.flips.scenes import Expected as Acknowledged
from tests.flips.scenes import Scene
from tests.flips.trial import RIDDLE, RIGHT, SILENT, Place, Table, command, files

SETTLED = "settled"
_JOURNAL = "journal."
_OFTEN = 3
"""Of so many flips, one is in a version or CURRENT, the others are in the journal's files."""


class Laboratory:
    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self._directory = directory
        self._rng = rng

    def try_all(self, image: Path, items: dict, ever: dict, flips: int) -> None:
        """`image` is settled; `items` are what must be there, `ever` all that each of them ever was; as expected.Item."""
        with Journal.open(image) as journal:
            sequence = max(journal.sequence(), IndexVersion.open(image).manifest.journal_sequence)
        expected = Acknowledged(
            stored(items), sequence, {i: [one and of(one) for one in all_] for i, all_ in ever.items()}
        )
        shutil.rmtree(self._directory, ignore_errors=True)
        table = Table(Scene("image", image, expected), self._directory)
        for way in ("serve", "backup", "repair"):
            outcome = table.attempt(way)
            self._note(f"{way} untouched", outcome.told, outcome.kind != RIGHT)
        self._compacted(table)
        self._every_version(table)
        for place in self.places(image, flips):
            way = self._rng.choice(table.scene.ways)
            outcome = table.attempt(way, place)
            bad = outcome.kind in (SILENT, RIDDLE)
            self._note(f"a flipped bit {outcome.kind}", f"{way}, {place}: {outcome.told}", bad)

    def places(self, image: Path, number: int) -> list[Place]:
        """One bit in each of some bytes, mostly of the journal and its WAL."""
        there = [path for path in files(image) if path.stat().st_size and not path.name.endswith((".lock", "-shm"))]
        own = [path for path in there if path.name.startswith(_JOURNAL)]
        served = image / "versions" / current(image)
        others = [path for path in there if path.name == "CURRENT" or path.is_relative_to(served)]
        found = []
        for _ in range(number):
            path = self._rng.choice(own if own and self._rng.randrange(_OFTEN) else others)
            name = str(path.relative_to(image))
            found.append(Place("image", name, self._rng.randrange(path.stat().st_size), self._rng.randrange(8)))
        return found

    def _compacted(self, table: Table) -> None:
        """Whatever was stopped before: once it has succeeded, all that the journal holds is in a version."""
        with self._noting("compact to the end"):
            table.lay()
            command("compact", table.index)
            reached, wanted = IndexVersion.open(table.index).manifest.journal_sequence, table.scene.expected.sequence
            if reached < wanted:
                raise WrongError(f"the version is at {reached} of {wanted}")

    def _every_version(self, table: Table) -> None:
        for version in version_names(table.scene.index):
            with self._noting(f"version {version} is the gallery", "every version is the gallery"):
                table.lay()
                command("rollback", table.index, version)
                ask(table.index, table.scene.expected, write=False)

    @contextlib.contextmanager
    def _noting(self, what: str, kind: str = ""):
        problem = ""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, nothing was to go wrong)
            problem = f"{what}: {type(error).__name__}: {error}"
        self._note(kind or what, problem, bool(problem))

    def _note(self, what: str, told: str, bad: bool) -> None:
        self.counts[what] += 1
        if bad:
            self.problems.append(f"{what}: {told}")


def settle(index: Path, number: int, copy: Path) -> Item:
    """Writes one more item to what a kill has left, and copies it as the next kill would leave it.

    The last write before a kill may be on the disk and acknowledged to nobody; then it may go if its bits flip. Not so once another
    was acknowledged after it.
    """
    item = Item("lada_niva_1999", f"settled/{number}.jpg", "", (), half(number))
    version = IndexVersion.open(index)
    writer = JournalWriter(index, lambda: VersionBase(version))
    with Journal.open(index) as journal:
        journal.sequence()  # while somebody reads, the WAL stays
        (done,) = writer.commit([Add({SETTLED: of(item)})])
        assert isinstance(done, WriteResult), done
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(index, copy)
        writer.close()
    return item


def stored(items: dict) -> dict[str, StoredItem]:
    return {item_id: of(item) for item_id, item in items.items()}


def of(item) -> StoredItem:
    return StoredItem(item.label, item.uri, item.batch_id, dict(item.attributes), item.embedding)
