"""The nearest photos of one query: what votes."""

from dataclasses import dataclass

from search_svc.voting.labels import Label


@dataclass(frozen=True)
class QueryNeighbours:
    """The neighbours of one query, nearest first. The three lists are aligned."""

    rows: list[int]
    """Rows of the gallery's items; empty where nobody asks which photos they are."""
    labels: list[Label]
    scores: list[float]
    """Similarities; higher is nearer."""
