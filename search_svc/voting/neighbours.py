"""The neighbours of a query, which vote."""

from dataclasses import dataclass

from search_svc.voting.labels import Label


@dataclass(frozen=True)
class QueryNeighbours:
    """The neighbours of one query, nearest first. The n-th entries of the three lists belong together."""

    rows: list[int]
    """The neighbours' rows in the gallery; empty if only the vote matters."""
    labels: list[Label]
    scores: list[float]
    """Similarities; higher is nearer."""
    no_car_found: bool = False
    """No car was found in the photo that was asked about: its neighbours mean little."""
