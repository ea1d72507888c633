"""Cuts: the parts of photos that embeddings are of, as the embedder told them, and how many photos were cut which way."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.csv_files import Row, has_columns, read_rows
from svckit.artifact import ArtifactError

COLUMNS = ("left", "top", "right", "bottom", "car_score", "no_car_found")
"""The columns of `items.csv` that `vmmr-embedder embed` adds if the model has a detector."""
_FLAGS = {"true": True, "false": False}
_UNKNOWN, _KNOWN, _NO_CAR = range(3)
_CUT = np.dtype([*((name, "<f4") for name in COLUMNS[:-1]), ("state", "u1")])
"""A row of Cuts. `car_score` is NaN where no detector chose the part; 21 bytes, since there may be millions."""


class CutKind(IntEnum):
    """What of a photo was embedded, in the order of CutCounts' fields."""

    CAR = 0
    WHOLE = 1
    NO_CAR_FOUND = 2
    GIVEN = 3
    UNKNOWN = 4


@dataclass(frozen=True)
class CutCounts:
    """Photos by what of them was embedded."""

    car: int = 0
    """Cut out by the detector."""
    whole: int = 0
    """Whole: the car fills them, or they were embedded whole."""
    no_car_found: int = 0
    """Whole, because the detector found no car."""
    given: int = 0
    """Cut out as their owner said."""
    unknown: int = 0
    """Not known."""

    @classmethod
    def of(cls, kinds: NDArray[np.uint8]) -> Self:
        return cls(*np.bincount(kinds, minlength=len(CutKind)).tolist())

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a photo that its embedding is of, as fractions of the upright photo; each is a float32."""

    left: float
    top: float
    right: float
    bottom: float
    car_score: float | None = None
    """How sure the detector is of the car; None if no detector chose this part."""
    no_car_found: bool = False

    @property
    def kind(self) -> CutKind:
        if self.no_car_found:
            return CutKind.NO_CAR_FOUND
        if (self.left, self.top, self.right, self.bottom) == (0, 0, 1, 1):
            return CutKind.WHOLE
        return CutKind.GIVEN if self.car_score is None else CutKind.CAR

    @property
    def problem(self) -> str:
        """Return what is wrong with it; empty if it can be a part of a photo."""
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            sides = ", ".join(f"{side:.6g}" for side in (self.left, self.top, self.right, self.bottom))
            return f"must have 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got {sides}"
        if self.car_score is not None and not 0 < self.car_score <= 1:
            return f"car_score must be above 0 and at most 1, got {self.car_score:.6g}"
        if self.no_car_found and self.car_score is not None:
            return "no_car_found and a car_score contradict each other"
        return ""


def kind_of(cut: Cut | None) -> CutKind:
    return CutKind.UNKNOWN if cut is None else cut.kind


class Cuts:
    """The cuts of many photos, 21 bytes each."""

    def __init__(self, table: NDArray[Any]) -> None:
        self.table = table

    @classmethod
    def of(cls, cuts: Iterable[Cut | None]) -> Self:
        return cls(np.fromiter(map(_row, cuts), _CUT))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the cuts in an `items.csv`; None if it has none.

        Raises ArtifactError, with the line, if something is wrong, and if only some of the columns are there.
        """
        if not has_columns(path, COLUMNS):
            return None
        return cls(np.fromiter(_read(path), _CUT))

    @classmethod
    def of_columns(
        cls, numbers: Sequence[NDArray[np.float32]], no_car: NDArray[np.bool_], known: NDArray[np.bool_]
    ) -> Self:
        """Return the cuts with these sides and scores, in the order of COLUMNS, each (N,)."""
        table = np.zeros(len(known), _CUT)
        for name, column in zip(COLUMNS, numbers, strict=False):
            table[name] = column
        table["state"] = np.where(known, np.where(no_car, _NO_CAR, _KNOWN), _UNKNOWN)
        return cls(table)

    @classmethod
    def unknown(cls, photos: int) -> Self:
        return cls(np.zeros(photos, _CUT))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Cut | None:
        left, top, right, bottom, score, state = self.table[row].tolist()
        if state == _UNKNOWN:
            return None
        return Cut(left, top, right, bottom, None if np.isnan(score) else score, state == _NO_CAR)

    def take(self, rows: NDArray[np.int64]) -> "Cuts":
        return Cuts(self.table[rows])

    def joined(self, others: "Cuts") -> "Cuts":
        """Return these and the others."""
        return Cuts(np.concatenate([self.table, others.table]))

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) of which photos it is known what was embedded."""
        return np.asarray(self.table["state"] != _UNKNOWN)

    @property
    def no_car(self) -> NDArray[np.bool_]:
        """(N,) in which photos no car was found."""
        return np.asarray(self.table["state"] == _NO_CAR)

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """(N,) the CutKind of each."""
        table = self.table
        whole = (table["left"] == 0) & (table["top"] == 0) & (table["right"] == 1) & (table["bottom"] == 1)
        cut = np.where(np.isnan(table["car_score"]), CutKind.GIVEN, CutKind.CAR)
        seen = np.where(self.no_car, CutKind.NO_CAR_FOUND, np.where(whole, CutKind.WHOLE, cut))
        return np.where(self.known, seen, CutKind.UNKNOWN).astype(np.uint8)


def _row(cut: Cut | None) -> tuple[float, ...]:
    if cut is None:
        return (0, 0, 0, 0, np.nan, _UNKNOWN)
    score = np.nan if cut.car_score is None else cut.car_score
    return (cut.left, cut.top, cut.right, cut.bottom, score, _NO_CAR if cut.no_car_found else _KNOWN)


def _read(path: Path) -> Iterator[tuple[float, ...]]:
    for line, row in read_rows(path, COLUMNS):
        try:
            yield _row(_cut(row))
        except ValueError as error:
            raise ArtifactError(path, f"line {line}: {error}") from error


def _cut(row: Row) -> Cut:
    """Return the cut of a line. Raises ValueError if a value is wrong."""
    *sides, score, flag = (row[column] or "" for column in COLUMNS)
    flag = flag.lower()  # pandas writes True
    if flag not in _FLAGS:
        raise ValueError(f"no_car_found must be true or false, got {flag!r}")
    left, top, right, bottom = map(float, sides)
    cut = Cut(left, top, right, bottom, float(score) if score else None, _FLAGS[flag])
    if cut.problem:
        raise ValueError(cut.problem)
    return cut
