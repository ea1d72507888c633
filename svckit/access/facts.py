"""What the audit log says of a write: what its request, its response, and the service that carried it out tell of it."""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

MOST_NAMED = 10
"""Most labels or ids that a line of the audit log names."""
_LONGEST_NAME = 128

Facts = Mapping[str, Any]

noted: ContextVar[dict[str, Any] | None] = ContextVar("noted", default=None)
"""What is noted of the call being served; None if nothing is."""


def first(texts: Iterable[str]) -> list[str]:
    """Return the first of these names, none of them longer than a line of the log has room for."""
    return [text[:_LONGEST_NAME] for text, _ in zip(texts, range(MOST_NAMED), strict=False)]


def of_labels(labels: Iterable[str]) -> dict[str, Any]:
    """Return the labels that a write is about, each once, as the log has them."""
    each = dict.fromkeys(labels)
    return {"labels": first(each), "labels_in_all": len(each)}


def tell(facts: Facts) -> None:
    """Note what only the service knows of the write that it carries out. What its request says itself stays as it is."""
    if (known := noted.get()) is not None:
        known.update({**facts, **known})
