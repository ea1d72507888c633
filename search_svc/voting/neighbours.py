"""The neighbours of a query, which vote."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from search_svc.voting.labels import Label


@dataclass(frozen=True)
class QueryNeighbours:
    """The neighbours of one query, nearest first. The n-th entries of the lists belong together."""

    rows: list[int]
    """The neighbours' rows in the gallery; empty if only the vote matters."""
    labels: list[Label]
    scores: list[float]
    """Similarities; higher is nearer."""
    means: list[float] = field(default_factory=list)
    """The cosine of the query with the mean of each neighbour's label; empty if it was not asked for."""
    no_car_found: bool = False
    """No car was found in the photo that was asked about: its neighbours mean little."""


def voting(photos: Sequence[QueryNeighbours]) -> Sequence[QueryNeighbours]:
    """Return the photos of one car whose neighbours vote: those in which a car was found, or all if it was found in none."""
    return [photo for photo in photos if not photo.no_car_found] or photos
