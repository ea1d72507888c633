"""What came of a sweep, as the table and the page show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_svc.select.choice import cost, front
from search_svc.select.grid import Setting
from search_svc.select.points import Point


@dataclass(frozen=True)
class Result:
    points: Sequence[Point]
    notes: Mapping[Setting, str]
    chosen: Point | None
    """None if no point meets the limits."""
    reason: str
    """Why it was chosen, or which limits no point meets."""
    limits: str
    skipped: Mapping[str, str]
    """Indexes that could not be built, and why."""
    left_out: Sequence[Setting]
    """Points for which there was no time."""
    photos: int
    """Of the gallery; `asked` are the dev photos, `unknown` those of labels that the gallery lacks, not asked for."""
    labels: int
    asked: int
    unknown: int
    dimension: int
    shards: int
    model: str
    made: str

    @property
    def front(self) -> list[Point]:
        """The points to which no other is both as accurate and as cheap in memory times latency."""
        return front(self.points, cost, lambda point: point.top_1)

    def number(self, point: Point) -> int:
        """Its place in the table, from 1."""
        return self.points.index(point) + 1
