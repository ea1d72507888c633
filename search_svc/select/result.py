"""The result of a sweep, for the table and the page to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_svc.select.choice import cost, front
from search_svc.select.grid import Setting
from search_svc.select.points import Point


@dataclass(frozen=True)
class Result:
    """All that the table and the page show."""

    points: Sequence[Point]
    notes: Mapping[Setting, str]
    chosen: Point | None
    """The point whose index should be built; None if no point meets the limits."""
    reason: str
    """Why the point was chosen, or which limits no point meets."""
    limits: str
    skipped: Mapping[str, str]
    """Indexes that could not be built, with the reason."""
    left_out: Sequence[Setting]
    """Settings for which there was no time."""
    photos: int
    """How many photos the gallery has."""
    labels: int
    asked: int
    """How many dev photos were asked for."""
    unknown: int
    """How many dev photos were not asked for, since the gallery lacks their label."""
    dimension: int
    shards: int
    model: str
    made: str

    @property
    def front(self) -> list[Point]:
        """The points to which no other is both as accurate and as cheap in memory times latency, cheapest first."""
        return front(self.points, cost, lambda point: point.top_1)

    def number(self, point: Point) -> int:
        """Return the point's place in the table, from 1."""
        return self.points.index(point) + 1
