"""Filters: from makes, models, labels and years to the labels of the gallery that they let through."""

import difflib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from vmmr.search.v1 import search_pb2

from search_svc.labels import Label, normalise
from svckit.errors import Reason, Violation

_MOST_NAMED = 3
_LONGEST_NAMED = 80
_MOST_COMPARED = 500
"""Known values that are compared with an unknown one; each costs the event loop some 20 microseconds."""


class FilterReader:
    """Reads filters over the labels of one gallery. Makes and models are compared as `labels.normalise` leaves them."""

    def __init__(self, labels: Sequence[Label]) -> None:
        years = [np.nan if label.year is None else label.year for label in labels]
        self._years = np.array(years, np.float64)  # (labels,)
        self._known = {
            "makes": _positions([normalise(label.make) for label in labels]),
            "models": _positions([normalise(label.model) for label in labels]),
            "labels": _positions([label.label for label in labels]),
        }

    def violations(self, message: search_pb2.Filter) -> Iterator[Violation]:
        """What is wrong with a filter."""
        for field, known in self._known.items():
            unknown = [value for value in _values(message, field) if value not in known]
            if unknown:
                yield _unknown(f"options.filter.{field}", unknown, known)
        if message.HasField("min_year") and message.HasField("max_year") and message.min_year > message.max_year:
            text = f"min_year must be <= max_year, got {message.min_year} > {message.max_year}"
            yield Violation("options.filter.min_year", Reason.INVALID_FILTER, text)

    def read(self, message: search_pb2.Filter) -> NDArray[np.bool_] | None:
        """(labels,): those that a filter without violations lets through; None if it is empty and lets all through."""
        if not message.ByteSize():
            return None
        allowed = np.ones(len(self._years), np.bool_)
        for field, known in self._known.items():
            if values := _values(message, field):
                named = np.zeros_like(allowed)
                named[np.concatenate([known[value] for value in values])] = True
                allowed &= named
        # No comparison with "not a number" holds: what has no year is never within a range.
        if message.HasField("min_year"):
            allowed &= self._years >= message.min_year
        if message.HasField("max_year"):
            allowed &= self._years <= message.max_year
        return allowed


def _positions(values: Sequence[str]) -> dict[str, list[int]]:
    """Where each value is; the empty one stands for "not known", and cannot be asked for."""
    positions = defaultdict(list)
    for position, value in enumerate(values):
        if value:
            positions[value].append(position)
    return dict(positions)


def _values(message: search_pb2.Filter, field: str) -> list[str]:
    given: Sequence[str] = getattr(message, field)
    return list(given) if field == "labels" else [normalise(value) for value in given]


def _unknown(path: str, unknown: Sequence[str], known: Collection[str]) -> Violation:
    first, *others = (value[:_LONGEST_NAMED] for value in unknown[:_MOST_NAMED])
    named = [_described(first, known), *map(repr, others)]
    if len(unknown) > _MOST_NAMED:
        named.append(f"{len(unknown) - _MOST_NAMED} more")
    return Violation(path, Reason.UNKNOWN_FILTER_VALUE, f"no gallery photo has {', '.join(named)}")


def _described(value: str, known: Collection[str]) -> str:
    close = _close(value, known)
    return f"{value!r} (did you mean {' or '.join(map(repr, close))}?)" if close else repr(value)


def _close(value: str, known: Collection[str]) -> list[str]:
    """Known values that look like it, among some of those that begin as it does, for there may be thousands."""
    alike: dict[str, str] = {}
    for length in (3, 1):
        start = value[:length].lower()
        found = (name for name in known if name[:length].lower() == start)
        alike |= {name.lower(): name for name in itertools.islice(found, _MOST_COMPARED - len(alike))}
    return [alike[name] for name in difflib.get_close_matches(value.lower(), alike)]
