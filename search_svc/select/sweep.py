"""The sweep: builds, asks and times each index of the grid. What was measured before is not measured again."""

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
from search_svc.select.trial_indexes import Index, TrialIndexes, index_of
from svckit.cli import CommandError

FINALISTS = 5
"""How many of the best points are timed once more at the end, side by side."""
_FINAL_ROUNDS = 3 * ROUNDS


@dataclass
class Sweep:
    indexes: TrialIndexes
    grid: Grid
    store: Store
    limits: Limits
    queries: NDArray[np.float32]
    """(Q, dimension) The embeddings of the dev photos."""
    truth: NDArray[np.int32]
    """(Q,) The label of each dev photo, as its place among the gallery's labels."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Indexes that could not be built, with the reason."""

    @cached_property
    def exam(self) -> Exam:
        """The exam, prepared with what the first index of the grid, which is flat, finds exactly."""
        index = index_of(self.grid.settings[0])
        with self.indexes.opened(index) as (engine, _):
            return Exam.prepare(
                engine,
                queries=self.queries,
                truth=self.truth,
                label_of=self.indexes.items.label_of,
                gallery=self.indexes.embeddings,
                metric=index[1],
            )

    @property
    def points(self) -> list[Point]:
        """The points that were measured, in the order of the grid."""
        return [self.store.points[setting] for setting in self.grid.settings if setting in self.store.points]

    def run(self, out_of_time: Callable[[], bool], on_points: Callable[[int], object]) -> None:
        """Measure the points that are missing, an index at a time.

        Once `out_of_time`, only the flat index and the settings with notes are measured, which are in every table.
        `on_points` is called with the number of points of each index that is done.
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
                self.skipped[index[0]] = str(error).removeprefix(f"--factory {index[0]} ")
            on_points(len(missing))
            self.indexes.keep({reference, *(index_of(point.setting) for point in self._finalists())})

    def choose(self) -> Point | None:
        """Time the finalists and exact search side by side, and return the chosen point; None if none meets the limits.

        New times may make other points finalists, so this repeats until the chosen point was timed so.
        """
        timed: set[Setting] = set()
        while (chosen := choose(self.points, self.limits, self._items)) and chosen.setting not in timed:
            together = {point.setting: point for point in [self.exact, chosen, *self._finalists()]}
            self._time_again(list(together.values()))
            timed |= together.keys()
        return chosen

    @property
    def exact(self) -> Point:
        """The point of the flat index, which is the first of the grid."""
        return self.store.points[self.grid.settings[0]]

    @property
    def _items(self) -> int:
        return len(self.indexes.items)

    def _finalists(self) -> list[Point]:
        return sorted(contenders(self.points, self.limits, self._items), key=cost)[:FINALISTS]

    def _measure(self, index: Index, settings: Sequence[Setting]) -> list[Point]:
        with self.indexes.opened(index) as (engine, built):
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
                index: stack.enter_context(self.indexes.opened(index))[0]
                for index in {index_of(point.setting) for point in points}
            }
            asked = [(engines[index_of(point.setting)], point.setting.params) for point in points]
            times = timings(asked, self.queries, _FINAL_ROUNDS)
        self.store.add(dataclasses.replace(each, timing=timing) for each, timing in zip(points, times, strict=True))
