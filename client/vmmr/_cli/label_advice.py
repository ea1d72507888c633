"""Tell of labels that would be new to a gallery, and may not be meant so: photos of one car with two labels divide its votes."""

import difflib
from collections.abc import Iterable, Iterator

from vmmr._types import Label
from vmmr.label_names import Car, canonical, normalise, plain, plain_car, read, shown_makes
from vmmr.photo_names import shown

_CLOSE = 0.85
"""How alike two labels must be, by difflib's ratio, for one to be named where the other can't be read."""


class Known:
    """The labels of a gallery."""

    def __init__(self, labels: Iterable[Label]) -> None:
        self._labels = list(labels)
        self._names = {canonical(label.label) for label in self._labels}
        self._words = {plain(label.label): label.label for label in self._labels}
        self._cars = {
            (plain(each.make), plain(each.model), each.year): each.label for each in self._labels if each.make
        }
        self._makes = frozenset(normalise(each.make) for each in self._labels if " " in normalise(each.make))

    def label_of(self, make: str, model: str, year: int) -> str | None:
        """Return the gallery's label of a car; None if it has none."""
        return self._cars.get((plain(make), plain(model), year))

    def near(self, label: str) -> str | None:
        """Return a label of the gallery that names what this one names in other letters, or nearly does; None if there is none."""
        return self._same(label, self._read(label, frozenset())) or self._close(label)

    def remarks(self, labels: Iterable[str]) -> Iterator[str]:
        """Yield what is to be said of labels, in a sentence each, as far as they are new to the gallery."""
        new = sorted(set(labels) - self._names)
        makes = shown_makes(new)
        for label in new:
            car = self._read(label, makes)
            if same := self._same(label, car):
                yield f"{_quoted(label)} is a new label, but the gallery has {_quoted(same)}, which names the same car: votes divide"
            elif car.problem:
                close = self._close(label)
                hint = f"; the gallery has {_quoted(close)}" if close else ""
                yield f"{_quoted(label)} is a new label: {car.problem}{hint}"
            if car.make:
                self._cars.setdefault(plain_car(car), label)
            self._words.setdefault(plain(label), label)

    def _read(self, label: str, makes: frozenset[str]) -> Car:
        return read(label, self._makes | makes)

    def _same(self, label: str, car: Car) -> str | None:
        return (self._cars.get(plain_car(car)) if car.make else None) or self._words.get(plain(label))

    def _close(self, label: str) -> str | None:
        found = difflib.get_close_matches(plain(label), self._words, n=1, cutoff=_CLOSE)
        return self._words[found[0]] if found else None


def _quoted(label: str) -> str:
    return f"'{shown(label)}'"
