"""A view: the gallery at one moment, an index version with the delta that was written since it was built.

A view never changes. A write makes another view, at a cost that does not grow with the gallery; a query is answered by one
view, whatever is written meanwhile. Nothing here knows of journals, or of which view is the newest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.cuts import CutCounts
from search_svc.engine.engine import Answered, Engine
from search_svc.engine.merge import NO_IDS, Hits, dropping, empty, merge, top_k
from search_svc.engine.scanning import Scan
from search_svc.engine.threads import use_one_core
from search_svc.fitting.typical import mean_of, typical_score
from search_svc.index.items import Items
from search_svc.index.version import IndexVersion, SearchParams, VersionManifest
from search_svc.live.delta import Snapshot
from search_svc.live.filters import FilterReader
from search_svc.live.live_items import LiveItems
from search_svc.voting.calibration import Calibration
from search_svc.voting.means import Means
from svckit import stages


@dataclass(frozen=True, eq=False)
class Opened:
    """A version and the engine that searches it. Lives as long as a view of it does."""

    version: IndexVersion
    engine: Engine

    @cached_property
    def mean_typical(self) -> float:
        """The mean that the typical score of a label with few photos is drawn towards."""
        return mean_of(self.version.typical, self.version.items.sizes)


@dataclass(frozen=True, eq=False)
class View:
    """The gallery at one moment. Thread-safe."""

    opened: Opened
    written: Snapshot | None = None
    """The delta; None if nothing was written since the version was built."""
    sequence: int = 0
    """Number of the last journal entry that the view holds; 0 if there never was one."""

    @property
    def manifest(self) -> VersionManifest:
        return self.opened.version.manifest

    @property
    def calibration(self) -> Calibration | None:
        return self.opened.version.calibration

    @cached_property
    def items(self) -> Items | LiveItems:
        base = self.opened.version.items
        return LiveItems(base, self.written) if self.written else base

    @property
    def size(self) -> int:
        """Number of photos in the gallery."""
        return int(self.items.counts.sum())

    @property
    def labels(self) -> int:
        """Number of labels that have photos."""
        return int(np.count_nonzero(self.items.counts))

    @property
    def cuts(self) -> CutCounts:
        """Photos in the gallery by what of them was embedded."""
        if self.written is None:
            return self.manifest.cuts or CutCounts(unknown=self.manifest.items)
        return CutCounts(*self.written.cuts.tolist())

    @cached_property
    def typical(self) -> Mapping[str, float]:
        """Label -> how near its photos are to each other, as a score; empty if the index is not calibrated."""
        fitted = self.opened.version.typical
        return _Typical(fitted, self.opened, self.written) if fitted and self.written else fitted

    @property
    def means(self) -> Means:
        """The means of the labels."""
        return self.written.means if self.written else self.opened.version.means

    @cached_property
    def filters(self) -> FilterReader:
        return FilterReader(self.items.vocabulary, self.items.counts)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        params: SearchParams,
        labels: NDArray[np.bool_] | None,
        exact: bool,
        timeout_s: float | None,
        allow_partial: bool,
    ) -> Answered:
        """Return the k best hits among the photos of some labels, a mask (labels,), or among all: see Engine.search.

        Ids are rows of `items`. Queries are compared exactly with every row of the delta, however the index is searched.
        """
        answered = self.opened.engine.search(
            queries,
            k,
            params=params,
            rows=None if labels is None else labels[self.opened.version.items.label_of],
            without=self.written.gone_rows if self.written else NO_IDS,
            exact=exact,
            timeout_s=timeout_s,
            allow_partial=allow_partial,
        )
        if self.written is None:
            return answered
        written = stages.timed("delta", partial(self._search_delta, self.written, queries, k, labels))()
        return Answered(merge([answered.hits, written], k), answered.shards)

    def _search_delta(
        self, written: Snapshot, queries: NDArray[np.float32], k: int, labels: NDArray[np.bool_] | None
    ) -> Hits:
        """Return the k best hits in the delta. The rows of some labels are few: they are read from where they lie."""
        use_one_core()
        rows = written.live if labels is None else written.live[labels[written.label_of[written.live]]]
        if not len(rows):
            return empty(len(queries))
        if labels is None:
            fetch = dropping(partial(written.delta.blocks.fetch, written.rows, written.longest), written.dead_rows)
            compared = written.rows
        else:
            fetch = Scan(written.embeddings, rows, self.manifest.metric, written.longest).fetch
            compared = len(rows)
        hits = top_k(fetch, queries, min(k, len(rows)), compared)
        return Hits(hits.scores, np.where(hits.ids < 0, -1, hits.ids + len(self.opened.version.items)))


class _Typical(Mapping[str, float]):
    """Typical scores: the fitted ones, and of labels that the calibration has not seen those that are computed on demand."""

    def __init__(self, fitted: Mapping[str, float], opened: Opened, written: Snapshot) -> None:
        self._fitted = fitted
        self._opened = opened
        self._written = written
        self._computed: dict[str, float] = {}

    def __getitem__(self, label: str) -> float:
        if label in self._fitted:
            return self._fitted[label]
        if label not in self._computed:
            self._computed[label] = self._compute(label)
        return self._computed[label]

    def _compute(self, label: str) -> float:
        written, manifest = self._written, self._opened.version.manifest
        place = written.delta.base.vocabulary.place(label)
        if place is None:
            raise KeyError(label)
        rows = written.live[written.label_of[written.live] == place]
        return typical_score(written.embeddings[rows], self._opened.mean_typical, manifest.metric, manifest.seed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._written.delta.base.vocabulary.places("labels"))

    def __len__(self) -> int:
        return len(self._written.delta.base.vocabulary)
