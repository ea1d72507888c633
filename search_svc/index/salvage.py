"""Entries of a damaged journal, read from the pages of its files without SQLite's help.

SQLite reads a table from its root down, and its write-ahead log up to the first frame that is damaged: one bit may put all that is
behind it out of reach, and it is still there. Here every page of both files is searched for what a row of entries begins with, whatever
the page says it is; the checksums of entries tell what truly was one. The formats are SQLite's (https://sqlite.org/fileformat2.html).
"""

import collections
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_svc.index.journal_format import FORMAT, Row, true_format

_PAGE_SIZE = 4096
"""Page size of every journal that this code has made."""
_WAL_HEADER, _FRAME_HEADER = 32, 24
_BIG_ENDIAN = bytes.fromhex("377f0683")
_COLUMNS = 9
_BEGINNING = re.compile(rb"(?=[\x0a-\x1b]\x00)")
"""The beginning of a row: the length of its header, and a first column that stands for the row's number."""
_SMALL = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

_LONGEST = 1 << 20
"""Most bytes of a row."""

Pages = Mapping[int, bytes]


@dataclass(frozen=True)
class _Frame:
    """A page in the log."""

    salt: bytes
    """Another in each round: the log is written from its beginning again once all of it is in the database."""
    number: int
    page: bytes = field(repr=False)
    commits: bool
    """Whether it ends a transaction."""
    goes_on: bool
    """Whether it was written right after the frame before it, and is as it was."""


@dataclass(frozen=True)
class _Image:
    """A page as it was at some time."""

    content: bytes
    others: Sequence[Pages] = field(repr=False)
    """Places to look for its overflow pages in, the likeliest first."""


def rows(database: Path, log: Path, is_last: Callable[[Row], bool] | None = None) -> dict[int, list[Row]]:
    """Return, by sequence number, the rows of entries that are as they were written in any format: those of the newest that has one.

    Writes that were killed before they were committed leave rows, too, and later ones give their numbers anew. `is_last` tells which row is
    the last that was acknowledged; without it, all that is there counts. With it, what lies behind the last commit in the log counts only
    where that goes on from it without a break, or the last row is there: then it is a commit that cannot be read. Of some numbers there
    may still be several that differ.
    """
    found: dict[int, dict[int, dict[Row, None]]] = {form: {} for form in (1, FORMAT)}
    for images, is_sure in _images(_content(database), _content(log)):
        rows_of_them = [row for image in images for row in _rows_of(image) if true_format(row)]
        if is_sure or is_last is None or any(map(is_last, rows_of_them)):
            for row in rows_of_them:
                found[true_format(row)].setdefault(row[0], {})[row] = None
    return {number: list(some) for number, some in (found[1] | found[FORMAT]).items()}


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _images(database: bytes, log: bytes) -> Iterator[tuple[list[_Image], bool]]:
    """Yield pages that were written together, and whether it is sure that they were committed.

    Frames of an earlier round may be left in the log behind those of this one.
    """
    base = {n + 1: database[at : at + _PAGE_SIZE] for n, at in enumerate(range(0, len(database), _PAGE_SIZE))}
    ended: list[Pages] = []
    for frames in _rounds(list(_frames(log))):
        end = max((at for at, frame in enumerate(frames, 1) if frame.commits), default=0)
        ended.append({frame.number: frame.page for frame in frames[:end]})
        yield [_Image(frame.page, (ended[-1], base)) for frame in frames[:end]], True
        is_sure = True
        for run in _runs(frames[end:]):
            is_sure = is_sure and run[0].goes_on
            begun = {frame.number: frame.page for frame in run}
            yield [_Image(frame.page, (begun, ended[-1], base)) for frame in run], is_sure
    yield [_Image(page, (base, *ended)) for page in base.values()], True


def _runs(frames: Sequence[_Frame]) -> Iterable[list[_Frame]]:
    """Return the frames in runs, in each of which every frame but the first goes on from the one before."""
    runs: list[list[_Frame]] = []
    for frame in frames:
        if runs and frame.goes_on:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def _rounds(frames: Sequence[_Frame]) -> Iterable[Sequence[_Frame]]:
    """Return the frames of each round by their salt; one of a salt that no other has is of the round before it."""
    often = collections.Counter(frame.salt for frame in frames)
    rounds: dict[bytes, list[_Frame]] = {}
    salt = b""
    for frame in frames:
        salt = frame.salt if often[frame.salt] > 1 or not salt else salt
        rounds.setdefault(salt, []).append(frame)
    return rounds.values()


def _frames(log: bytes) -> Iterator[_Frame]:
    order = ">" if log[:4] == _BIG_ENDIAN else "<"
    before = log[_WAL_HEADER - 8 : _WAL_HEADER]
    for at in range(_WAL_HEADER, len(log) - _FRAME_HEADER, _FRAME_HEADER + _PAGE_SIZE):
        number, size = (int.from_bytes(log[place : place + 4], "big") for place in (at, at + 4))
        page = log[at + _FRAME_HEADER : at + _FRAME_HEADER + _PAGE_SIZE]
        stated = log[at + 16 : at + _FRAME_HEADER]
        goes_on = _checksum(log[at : at + 8] + page, before, order) == stated
        yield _Frame(log[at + 8 : at + 16], number, page, commits=size > 0, goes_on=goes_on)
        before = stated


def _checksum(content: bytes, before: bytes, order: str) -> bytes:
    """Return the checksum of a frame, which goes on from that of the one before, as SQLite computes it of the words in an order of bytes."""
    one, two = struct.unpack(">II", before)
    words = struct.unpack(f"{order}{len(content) // 8 * 2}I", content[: len(content) // 8 * 8])
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = one + first + two & 0xFFFFFFFF
        two = two + second + one & 0xFFFFFFFF
    return struct.pack(">II", one, two)


def _rows_of(image: _Image) -> Iterator[Row]:
    """Yield everything on a page that could be a row of entries."""
    for begins in _BEGINNING.finditer(image.content):
        with suppress(IndexError, KeyError, ValueError):  # it is none
            yield _row(image, begins.start())


def _row(image: _Image, at: int) -> Row:
    kinds, size = _header(image.content, at)
    return _decoded(_number_before(image.content, at), kinds, _payload(image, at, size)[-sum(map(_size, kinds)) :])


def _header(page: bytes, at: int) -> tuple[list[int], int]:
    """Return the kinds of a row's values, and the number of bytes of its header and values. Raise ValueError if it is no row."""
    ends, place, kinds = at + page[at], at + 1, []
    while place < ends:
        kind, place = _varint(page, place)
        kinds.append(kind)
    size = page[at] + sum(map(_size, kinds))
    if len(kinds) != _COLUMNS or place != ends or size > _LONGEST:
        raise ValueError("is no row of entries")
    return kinds, size


def _number_before(page: bytes, at: int) -> int:
    """Return the row's number, which lies before its header.

    The byte before the number ends the row's size, and is below 128, as the last byte of every number is.
    """
    starts = at - 1
    while page[starts - 1] >= 0x80:
        starts -= 1
    number, ends = _varint(page, starts)
    if ends != at or at - starts > 9:
        raise ValueError("is no number")
    return number


def _payload(image: _Image, at: int, size: int) -> bytes:
    """Return the payload of a cell of a table's leaf. What does not fit into its page is in a chain of others."""
    most = _PAGE_SIZE - 35
    if size <= most:
        return image.content[at : at + size]
    least = (_PAGE_SIZE - 12) * 32 // 255 - 23
    local = least + (size - least) % (_PAGE_SIZE - 4)
    local = least if local > most else local
    payload, at = image.content[at : at + local], at + local
    following = int.from_bytes(image.content[at : at + 4], "big")
    while len(payload) < size:
        page = _page(image.others, following)
        payload, following = payload + page[4:], int.from_bytes(page[:4], "big")
    return payload[:size]


def _page(places: Sequence[Pages], number: int) -> bytes:
    for pages in places:
        if number in pages:
            return pages[number]
    raise KeyError(number)


def _decoded(sequence: int, kinds: Sequence[int], values: bytes) -> Row:
    """Return a row in the order of COLUMNS; the values come in the order of the table's columns."""
    found, at = [], 0
    for kind in kinds:
        found.append(_value(kind, values[at : at + _size(kind)]))
        at += _size(kind)
    _, item_id, label, uri, batch_id, attributes, embedding, checksum, closes = found
    return (sequence, item_id, label, uri, batch_id, attributes, embedding, closes, checksum)


def _size(kind: int) -> int:
    return _SMALL.get(kind, 0) if kind < 12 else (kind - 12) // 2


def _value(kind: int, content: bytes) -> Any:
    if kind < 12:
        return {0: None, 8: 0, 9: 1}[kind] if kind not in _SMALL else int.from_bytes(content, "big", signed=True)
    return content.decode() if kind % 2 else content


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the integer of one to nine bytes that SQLite wrote at a place, and the place after it."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | content[place] & 0x7F
        if content[place] < 0x80:
            return value, place + 1
    return value << 8 | content[at + 8], at + 9
