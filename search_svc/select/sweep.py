"""The sweep: each index of the grid is built, asked and timed; what was measured before is not measured again."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search_svc.select.choice import Limits, choose, contenders, cost
from search_svc.select.exam import ROUNDS, Exam, timings
from search_svc.select.grid import Grid, Setting
from search_svc.select.points import Point, Store
from search_svc.select.workshop import Index, Workshop, index_of
from svckit.cli import CommandError

FINALISTS = 5
"""Points that are timed together at the end, against each other."""
_FINAL_ROUNDS = 3 * ROUNDS


@dataclass
class Sweep:
    workshop: Workshop
    grid: Grid
    store: Store
    limits: Limits
    queries: NDArray[np.float32]
    """(Q, dimension)"""
    truth: NDArray[np.int32]
    """(Q,) the label of each, by its place among the gallery's."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Indexes that could not be built after all, and why."""

    @cached_property
    def exam(self) -> Exam:
        """By what the first index of the grid, the flat one, finds exactly."""
        index = index_of(self.grid.settings[0])
        with self.workshop.opened(index) as (engine, _):
            return Exam.prepare(
                engine,
                queries=self.queries,
                truth=self.truth,
                label_of=self.workshop.items.label_of,
                gallery=self.workshop.embeddings,
                metric=index[1],
            )

    @property
    def points(self) -> list[Point]:
        """Those that were measured, in the order of the grid."""
        return [self.store.points[setting] for setting in self.grid.settings if setting in self.store.points]

    def run(self, out_of_time: Callable[[], bool], on_points: Callable[[int], object]) -> None:
        """Measures what is missing, an index at a time; once out of time only the first ones, which are in every table.

        `on_points` hears how many points were measured.
        """
        reference = index_of(self.grid.settings[0])
        for index, settings in itertools.groupby(self.grid.settings, index_of):
            missing = [setting for setting in settings if setting not in self.store.points]
            always = any(setting in self.grid.notes for setting in missing) or index == reference
            if not missing or (out_of_time() and not always):
                continue
            try:
                self.store.add(self._measure(index, missing))
            except CommandError as error:
                self.skipped[index[0]] = str(error)
            on_points(len(missing))
            self.workshop.keep({reference, *(index_of(point.setting) for point in self._finalists())})

    def choose(self) -> Point | None:
        """The choice, once those that it is between, and exact search, were timed side by side.

        None if no point meets the limits.
        """
        timed: set[Setting] = set()
        while (chosen := choose(self.points, self.limits, self._items)) and chosen.setting not in timed:
            together = {point.setting: point for point in [self.exact, *self._finalists()]}
            self._time_again(list(together.values()))
            timed |= together.keys()
        return chosen

    @property
    def exact(self) -> Point:
        """The first of the grid: the flat index."""
        return self.store.points[self.grid.settings[0]]

    @property
    def _items(self) -> int:
        return len(self.workshop.items)

    def _finalists(self) -> list[Point]:
        return sorted(contenders(self.points, self.limits, self._items), key=cost)[:FINALISTS]

    def _measure(self, index: Index, settings: Sequence[Setting]) -> list[Point]:
        with self.workshop.opened(index) as (engine, built):
            qualities = [self.exam.quality(engine, setting.params) for setting in settings]
            times = timings([(engine, setting.params) for setting in settings], self.queries)
        return [
            Point(
                setting,
                **dataclasses.asdict(quality),
                timing=timing,
                bytes_per_photo=built.bytes / self._items,
                build_s=built.build_s,
            )
            for setting, quality, timing in zip(settings, qualities, times, strict=True)
        ]

    def _time_again(self, points: Sequence[Point]) -> None:
        with ExitStack() as stack:
            engines = {
                index: stack.enter_context(self.workshop.opened(index))[0]
                for index in {index_of(point.setting) for point in points}
            }
            asked = [(engines[index_of(point.setting)], point.setting.params) for point in points]
            times = timings(asked, self.queries, _FINAL_ROUNDS)
        self.store.add(dataclasses.replace(each, timing=timing) for each, timing in zip(points, times, strict=True))
