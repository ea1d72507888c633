"""Damage of more than one bit: a file that is cut short or goes on, pages that were lost, went back in time or changed places, and files of another index."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.flips.scenes import Scene, photos, seven_writes, writing
from tests.flips.trial import files

_PAGE, _HEADER, _FRAME = 4096, 32, 24 + 4096
"""Bytes of a page, of the header of SQLite's log, and of a page in it."""
Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Damage:
    """Other content of some files of an index; None where one is gone."""

    kind: str
    file: str
    content: Mapping[str, bytes | None]

    most_lost = math.inf

    def damaged(self, file: str, whole: bytes) -> bytes | None:
        return self.content.get(file, whole)


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in files(directory)}


def another(directory: Path) -> dict[str, bytes]:
    """What is in an index of the same photos and more writes than any scene has, all of other items; killed, so that all is in its log."""
    with writing(directory / "live", photos(24)) as gallery:
        gallery.written = 500
        seven_writes(gallery)
        gallery.add("another's", 40)
        return content(gallery.left(directory, "another").index)


def damages(scene: Scene, before: Content, other: Content, rng: random.Random) -> Iterator[Damage]:
    """Yield one of each kind for each file that can have it. `before` is an index as this one was once."""
    there = content(scene.index)
    for file, whole in there.items():
        if file.endswith(".lock") or len(whole) < 2:
            continue
        yield Damage("cut short", file, {file: whole[: rng.randrange(len(whole))]})
        if not file.startswith("backups/"):  # without its record there is no backup
            yield Damage("gone", file, {file: None})
        yield Damage("goes on", file, {file: whole + bytes(rng.choice((1, _PAGE)))})
        pages = list(_pages(file, whole))
        page = rng.choice(pages)
        yield Damage("page lost", file, {file: _with(whole, {page: bytes(page[1] - page[0])})})
        older = [each for each in pages if before.get(file, whole)[slice(*each)] not in (whole[slice(*each)], b"")]
        if older and file != "CURRENT":  # as it was it is a rollback
            page = rng.choice(older)
            yield Damage("page as it was", file, {file: _with(whole, {page: before[file][slice(*page)]})})
        pairs = [pair for pair in itertools.combinations(pages, 2) if _size(pair[0]) == _size(pair[1])]
        if pairs:
            one, two = rng.choice(pairs)
            swapped = {one: whole[slice(*two)], two: whole[slice(*one)]}
            yield Damage("pages swapped", file, {file: _with(whole, swapped)})
    if "journal.mark" in there:
        for content_of_it in (b"x" * len(there["journal.mark"]), b""):  # a page of it leaves the other slot
            yield Damage("nothing of it left", "journal.mark", {"journal.mark": content_of_it})
        # Of all three nobody can tell: they are the journal of the index that they are put to.
        for some in (("journal.db",), ("journal.db-wal",), ("journal.db", "journal.db-wal")):
            yield Damage("another index's", " and ".join(some), {name: other[name] for name in some})
            yield Damage("as it was", " and ".join(some), {name: before.get(name) for name in some})


def _pages(file: str, whole: bytes) -> Iterator[tuple[int, int]]:
    first, size = (_HEADER, _FRAME) if file.endswith("-wal") else (0, _PAGE)
    for at in range(first, len(whole), size):
        yield at, min(at + size, len(whole))


def _size(page: tuple[int, int]) -> int:
    return page[1] - page[0]


def _with(whole: bytes, changes: Mapping[tuple[int, int], bytes]) -> bytes:
    changed = bytearray(whole)
    for (at, end), page in changes.items():
        changed[at:end] = page.ljust(end - at, b"\0")[: end - at]
    return bytes(changed)
