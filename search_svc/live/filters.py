"""Filters: from makes, models, labels and years to the labels of the gallery that they let through."""

import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from vmmr.search.v1 import search_pb2

from search_svc.voting.labels import normalise
from search_svc.voting.vocabulary import Vocabulary
from svckit.errors import Reason, Violation

_MOST_NAMED = 3
_LONGEST_NAMED = 80
_FIELDS = ("makes", "models", "labels")
_MOST_COMPARED = 500
"""Known values that are compared with an unknown one; each costs the event loop some 20 microseconds."""


class FilterReader:
    """Reads filters over the labels of one gallery. Makes and models are compared as `labels.normalise` leaves them."""

    def __init__(self, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
        """`counts` (labels,) are the photos that each of the first labels has in the gallery."""
        self._vocabulary = vocabulary
        self._present = counts > 0

    def violations(self, message: search_pb2.Filter) -> Iterator[Violation]:
        """What is wrong with a filter."""
        for field in _FIELDS:
            unknown = [value for value in _values(message, field) if not self._places(field, value)]
            if unknown:
                yield self._unknown(field, unknown)
        if message.HasField("min_year") and message.HasField("max_year") and message.min_year > message.max_year:
            text = f"min_year must be <= max_year, got {message.min_year} > {message.max_year}"
            yield Violation("options.filter.min_year", Reason.INVALID_FILTER, text)

    def read(self, message: search_pb2.Filter) -> NDArray[np.bool_] | None:
        """(labels,): those that a filter without violations lets through; None if it is empty and lets all through."""
        if not message.ByteSize():
            return None
        allowed = np.ones(len(self._present), np.bool_)
        for field in _FIELDS:
            if values := _values(message, field):
                named = np.zeros_like(allowed)
                named[[place for value in values for place in self._places(field, value)]] = True
                allowed &= named
        years = self._vocabulary.years(len(allowed))
        # No comparison with "not a number" holds: what has no year is never within a range.
        if message.HasField("min_year"):
            allowed &= years >= message.min_year
        if message.HasField("max_year"):
            allowed &= years <= message.max_year
        return allowed

    def _places(self, field: str, value: str) -> list[int]:
        """The labels with photos that have the value; the empty one stands for "not known", and cannot be asked for."""
        places = self._vocabulary.places(field).get(value, ()) if value else ()
        return [place for place in places if place < len(self._present) and self._present[place]]

    def _unknown(self, field: str, unknown: Sequence[str]) -> Violation:
        first, *others = (value[:_LONGEST_NAMED] for value in unknown[:_MOST_NAMED])
        # Copied at once, for values may be added meanwhile.
        known = tuple(self._vocabulary.places(field))
        named = [_described(first, known, lambda value: bool(self._places(field, value))), *map(repr, others)]
        if len(unknown) > _MOST_NAMED:
            named.append(f"{len(unknown) - _MOST_NAMED} more")
        text = f"no gallery photo has {', '.join(named)}"
        return Violation(f"options.filter.{field}", Reason.UNKNOWN_FILTER_VALUE, text)


def _values(message: search_pb2.Filter, field: str) -> list[str]:
    given: Sequence[str] = getattr(message, field)
    return list(given) if field == "labels" else [normalise(value) for value in given]


def _described(value: str, known: Sequence[str], present: Callable[[str], bool]) -> str:
    close = _close(value, known, present)
    return f"{value!r} (did you mean {' or '.join(map(repr, close))}?)" if close else repr(value)


def _close(value: str, known: Sequence[str], present: Callable[[str], bool]) -> list[str]:
    """Present values that look like it, among some of those that begin as it does, for there may be thousands."""
    alike: dict[str, str] = {}
    for length in (3, 1):
        start = value[:length].lower()
        found = (name for name in known if name[:length].lower() == start and present(name))
        alike |= {name.lower(): name for name in itertools.islice(found, _MOST_COMPARED - len(alike))}
    return [alike[name] for name in difflib.get_close_matches(value.lower(), alike)]
