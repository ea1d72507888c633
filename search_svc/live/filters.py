"""Filters: from makes, models, labels and years to the labels of the gallery that they let through."""

import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vmmr.label_names import canonical, normalise
from vmmr.search.v1 import search_pb2

from search_svc.voting.vocabulary import Vocabulary
from svckit.errors import Reason, Violation, rejected

_MOST_NAMED = 3
_LONGEST_NAMED = 80
_FIELDS = ("makes", "models", "labels")
_MOST_COMPARED = 500
"""Known values that are compared with an unknown one; each costs the event loop some 20 microseconds."""
_MOST_MASKS = 64


@dataclass(frozen=True)
class Filter:
    """Which photos to search: those that fit every field, and in a field any of its values. An empty field fits all.

    Equal filters are equal as values, so queries with equal filters can be searched together.
    """

    makes: tuple[str, ...] = ()
    """As `label_names.normalise` leaves them, like `models`."""
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """As `label_names.canonical` leaves them."""
    min_year: int | None = None
    max_year: int | None = None

    @classmethod
    def of(cls, message: search_pb2.Filter) -> "Filter | None":
        """Return the filter of a message, or None if it is empty and lets all photos through."""
        if not message.ByteSize():
            return None
        return cls(
            tuple(map(normalise, message.makes)),
            tuple(map(normalise, message.models)),
            tuple(map(canonical, message.labels)),
            message.min_year if message.HasField("min_year") else None,
            message.max_year if message.HasField("max_year") else None,
        )


class FilterReader:
    """Applies filters to the labels of one gallery."""

    def __init__(self, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
        """`counts` (labels,) are the photos that each of the first labels of the vocabulary has in the gallery."""
        self._vocabulary = vocabulary
        self._present = counts > 0
        self._masks: dict[Filter, NDArray[np.bool_]] = {}

    def violations(self, wanted: Filter, path: str = "options.filter") -> Iterator[Violation]:
        """Yield what is wrong with a filter, which is the field `path` of the call."""
        for field in _FIELDS:
            unknown = [value for value in getattr(wanted, field) if not self._places(field, value)]
            if unknown:
                yield Violation(f"{path}.{field}", Reason.UNKNOWN_FILTER_VALUE, self._describe(field, unknown))
        if wanted.min_year is not None and wanted.max_year is not None and wanted.min_year > wanted.max_year:
            text = f"min_year must be <= max_year, got {wanted.min_year} > {wanted.max_year}"
            yield Violation(f"{path}.min_year", Reason.INVALID_FILTER, text)

    def mask(self, wanted: Filter) -> NDArray[np.bool_]:
        """Return (labels,) which labels the filter lets through. Raises ServiceError if it has violations."""
        mask = self._masks.get(wanted)
        if mask is None:
            if violations := list(self.violations(wanted)):
                raise rejected(violations)
            if len(self._masks) >= _MOST_MASKS:
                self._masks.clear()
            mask = self._masks[wanted] = self._new_mask(wanted)
        return mask

    def _new_mask(self, wanted: Filter) -> NDArray[np.bool_]:
        allowed = np.ones(len(self._present), np.bool_)
        for field in _FIELDS:
            if values := getattr(wanted, field):
                named = np.zeros_like(allowed)
                named[[place for value in values for place in self._places(field, value)]] = True
                allowed &= named
        years = self._vocabulary.years(len(allowed))
        # No comparison with "not a number" holds: a label without a year is never within a range.
        if wanted.min_year is not None:
            allowed &= years >= wanted.min_year
        if wanted.max_year is not None:
            allowed &= years <= wanted.max_year
        return allowed

    def _places(self, field: str, value: str) -> list[int]:
        """Return the labels with photos that have the value. The empty value means "not known", and finds none."""
        places = self._vocabulary.places(field).get(value, ()) if value else ()
        return [place for place in places if place < len(self._present) and self._present[place]]

    def _describe(self, field: str, unknown: Sequence[str]) -> str:
        first, *others = (value[:_LONGEST_NAMED] for value in unknown[:_MOST_NAMED])
        # Copied at once, since values may be added meanwhile.
        known = tuple(self._vocabulary.places(field))
        named = [_with_suggestions(first, known, lambda value: bool(self._places(field, value))), *map(repr, others)]
        if len(unknown) > _MOST_NAMED:
            named.append(f"{len(unknown) - _MOST_NAMED} more")
        return f"no gallery photo has {', '.join(named)}"


def _with_suggestions(value: str, known: Sequence[str], present: Callable[[str], bool]) -> str:
    close = _close(value, known, present)
    return f"{value!r} (did you mean {' or '.join(map(repr, close))}?)" if close else repr(value)


def _close(value: str, known: Sequence[str], present: Callable[[str], bool]) -> list[str]:
    """Return present values that look like `value`, out of some that begin as it does: there may be thousands."""
    alike: dict[str, str] = {}
    for length in (3, 1):
        start = value[:length].lower()
        found = (name for name in known if name[:length].lower() == start and present(name))
        alike |= {name.lower(): name for name in itertools.islice(found, _MOST_COMPARED - len(alike))}
    return [alike[name] for name in difflib.get_close_matches(value.lower(), alike)]
