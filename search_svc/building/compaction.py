"""Compaction: from the current version and the journal to the next version, which holds both.

The rows of the version that are still in the gallery come first, in their order, then what was written, in the order of each
item's last write. It is built as any version is: in a draft, gone on with if it was stopped, moved to its place when it is
whole. Nothing acknowledged hangs on it: until CURRENT has moved, version and journal are the gallery; from then on, the new
version and the rest of the journal are.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.building.build import Inherited, build_version
from search_svc.building.build_source import Gallery
from search_svc.building.spec import IndexSpec, Resources
from search_svc.engine.local import LocalEngine
from search_svc.fitting.typical import mean_of, typical_score
from search_svc.index.index_dir import begun
from search_svc.index.items import Items
from search_svc.index.journal import Entry, Journal, StoredItem
from search_svc.index.journal_check import read_through
from search_svc.index.version import IndexVersion, VersionManifest
from search_svc.voting.calibration import Calibration
from search_svc.voting.labels import Label, parse
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

_READ_AT_ONCE = 10_000
_JOB = "compaction of {} ({}) and the journal to {}"
_BEGUN = re.compile(r"compaction of (\d+) \(.*\) and the journal to (\d+)")
_FEW = 1 / 20
"""Of a gallery: with so many new items the training of the rest is still good for all."""
_PROBES = 16
"""Items that are looked for in what was built."""


def compact(index_dir: Path, *, retrain: bool | None = None, resources: Resources = Resources()) -> IndexVersion | None:
    """Builds the next version and makes it the current one; None if nothing was written since the current one was built.

    What the index was trained to is taken over if few items are new, unless `retrain` says whether it is. Raises CommandError
    if there is nothing to build of, and ArtifactError if a file is damaged or another is building, or has just built.
    """
    base = IndexVersion.open(index_dir)  # verified: what is damaged would get a new checksum, and the old one be gone
    with Journal.open(index_dir) as journal:
        source = source_of(base, journal, _upto(index_dir, base, journal))
    if source.upto == base.manifest.journal_sequence:
        return None
    if not len(source):
        raise CommandError(f"{index_dir}: every item was deleted, and an index of none cannot be built: add one first")
    retrain = len(source.written) > _FEW * len(source) if retrain is None else retrain
    training = "trained anew" if retrain else "its training"
    return build_version(
        index_dir,
        dataclasses.replace(
            source.gallery(), embeddings_fingerprint=_JOB.format(base.manifest.version, training, source.upto)
        ),
        spec_of(base.manifest, len(source), len(source.label_names)),
        inherited=_inherited(base, source.upto, retrain=retrain),
        resources=resources,
    )


def compact_all(
    index_dir: Path, *, retrain: bool | None = None, resources: Resources = Resources()
) -> IndexVersion | None:
    """Like `compact`, but return only when a version holds all that the journal held at the time of the call.

    A compaction that was stopped is gone on with, up to the entry that it was begun with. If that was not the last one, another
    follows.
    """
    with Journal.open(index_dir) as journal:
        goal = journal.sequence()
    made = latest = compact(index_dir, retrain=retrain, resources=resources)
    while latest and latest.manifest.journal_sequence < goal:
        latest = compact(index_dir, retrain=retrain, resources=resources)
        made = latest or made
    return made


@dataclass(frozen=True)
class Source:
    """A gallery: rows of a version, and items of the journal."""

    base: IndexVersion
    kept: NDArray[np.int64]
    """Rows of the version, ascending."""
    written: Sequence[tuple[str, StoredItem]]
    """By item id, in the order of their last write."""
    upto: int
    """Journal entries up to here are in it."""

    def __len__(self) -> int:
        return len(self.kept) + len(self.written)

    @cached_property
    def label_names(self) -> set[str]:
        labels = self.base.items.labels
        of_kept = {labels[position].label for position in np.unique(self.base.items.label_of[self.kept]).tolist()}
        return of_kept | {item.label for _, item in self.written}

    def gallery(self) -> Gallery:
        """Return what an index of it is built of."""
        items = self.base.items
        kept = self.kept.tolist()
        ids, uris = items.take(kept)
        labels = [items.labels[position] for position in items.label_of[self.kept].tolist()]
        return Gallery(
            model=self.base.manifest.model,
            model_name=self.base.manifest.model_name,
            embeddings=self._embeddings(),
            rows=np.arange(len(self)),
            item_ids=[*ids, *(item_id for item_id, _ in self.written)],
            uris=[*uris, *(item.uri for _, item in self.written)],
            labels=[*labels, *map(_labels(items), (item.label for _, item in self.written))],
            batch_ids=[*map(items.batch_id, kept), *(item.batch_id for _, item in self.written)],
            attributes=[*map(items.attributes, kept), *(item.attributes for _, item in self.written)],
        )

    def _embeddings(self) -> "_Joined":
        dimension = self.base.manifest.dimension
        rows = [np.frombuffer(item.embedding, "<f2") for _, item in self.written]
        written = np.stack(rows) if rows else np.empty((0, dimension), np.float16)
        return _Joined(self.base.embeddings, self.kept, written)


@dataclass(frozen=True)
class _Joined:
    """Rows of one array and all of another, as if they were one; the first stays on the disk until it is asked for."""

    first: NDArray[np.float16]
    rows: NDArray[np.int64]
    second: NDArray[np.float16]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows) + len(self.second), self.second.shape[1])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float16]:
        early = rows < len(self.rows)
        found = np.empty((len(rows), self.second.shape[1]), np.float16)
        found[early] = self.first[self.rows[rows[early]]]
        found[~early] = self.second[rows[~early] - len(self.rows)]
        return found


def _upto(index_dir: Path, base: IndexVersion, journal: Journal) -> int:
    """The last entry to take in: of a compaction that was stopped, its own, so that its draft is gone on with."""
    stopped = _BEGUN.fullmatch(begun(index_dir).get("embeddings", ""))
    last = max(journal.sequence(), base.manifest.journal_sequence)  # a journal that is gone was in the version
    return min(int(stopped[2]), last) if stopped and stopped[1] == base.manifest.version else last


def source_of(base: IndexVersion, journal: Journal, upto: int) -> Source:
    """Raises ArtifactError if the journal is not of this index, or damaged."""
    if upto > base.manifest.journal_sequence and journal.model != base.manifest.model:
        raise ArtifactError(
            journal.path, f"is of another model ({journal.model}) than the index ({base.manifest.model})"
        )
    last: dict[str, Entry] = {}
    for some in read_through(journal, base.manifest.journal_sequence, upto):
        for entry in some:
            if entry.sequence <= upto:  # which ends a write
                last.pop(entry.item_id, None)
                last[entry.item_id] = entry
    written = [(entry.item_id, entry.item) for entry in last.values() if entry.item is not None]
    return Source(base, _untouched(base.items, last), written, upto)


def _untouched(items: Items, touched: Mapping[str, Entry]) -> NDArray[np.int64]:
    """Rows of the version that nothing was written over."""
    ids, _ = items.take(range(len(items))) if touched else ([], [])
    gone = np.zeros(len(items), np.bool_)
    gone[[row for row, item_id in enumerate(ids) if item_id in touched]] = True
    return np.flatnonzero(~gone)


def _labels(items: Items) -> Any:
    """From a label's name to the label: of the version if it has it."""
    known = {label.label: label for label in items.labels}

    def label(name: str) -> Label:
        return known.setdefault(name, parse(name))

    return label


def spec_of(made: VersionManifest, items: int, labels: int) -> IndexSpec:
    """Of the same kind of index, in as many shards as there can be."""
    by_label = len(made.shards) > 1 and all(shard.step == 1 for shard in made.shards)
    return IndexSpec(
        factory=made.factory,
        metric=made.metric,
        shards=min(len(made.shards), labels if by_label else items),
        shard_by="label" if by_label else "balanced",
        nprobe=made.search.nprobe,
        ef_search=made.search.ef_search,
        rerank=made.search.rerank,
        k=made.k,
        temperature=made.temperature,
        seed=made.seed,
    )


def _inherited(base: IndexVersion, upto: int, *, retrain: bool) -> Inherited:
    needs_training = base.manifest.train_sample > 0
    return Inherited(
        version=base.manifest.version,
        journal_sequence=upto,
        train_sample=base.manifest.train_sample,
        trained=base.shard_paths[0] if needs_training and not retrain else None,
        calibrate=partial(_calibration, base),
        verify=verify,
    )


def _calibration(base: IndexVersion, items: Items, embeddings: NDArray[np.float16]) -> Calibration | None:
    """What was fitted stays; labels that it has not seen get their typical scores."""
    fitted = base.calibration
    if fitted is None:
        return None
    sizes = np.bincount(base.items.label_of, minlength=len(base.items.labels)).tolist()
    mean = mean_of(fitted.typical, dict(zip((label.label for label in base.items.labels), sizes, strict=True)))
    typical = {
        label.label: fitted.typical.get(label.label)
        or typical_score(embeddings[items.label_of == position], mean, base.manifest.metric, base.manifest.seed)
        for position, label in enumerate(items.labels)
    }
    return dataclasses.replace(fitted, typical=typical)


def verify(version: IndexVersion) -> None:
    """Raises CommandError if exact search, of some of its items, does not answer as comparing by hand does."""
    rows = np.unique(np.linspace(0, len(version.items) - 1, _PROBES).astype(np.int64))
    queries = version.embeddings[rows].astype(np.float32)
    with LocalEngine.open(version) as engine:
        found = engine.search(queries, 1, exact=True).hits
        indexed = engine.search(queries, 1).hits
    best = _best_scores(version, queries)
    if not np.allclose(found.scores[:, 0], best, rtol=1e-4, atol=1e-5):
        raise CommandError(f"{version.path}: exact search does not find the nearest items in what was built")
    if (indexed.ids >= len(version.items)).any():
        raise CommandError(f"{version.path}: the index finds items that are not there")


def _best_scores(version: IndexVersion, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(Q,) by numpy, a part of the gallery at a time."""
    best = np.full(len(queries), -np.inf, np.float32)
    for start in range(0, len(version.items), _READ_AT_ONCE):
        part = version.embeddings[start : start + _READ_AT_ONCE].astype(np.float32)
        scores = queries @ part.T
        if version.manifest.metric == "l2":
            scores = 2 * scores - np.square(queries).sum(axis=1)[:, None] - np.square(part).sum(axis=1)
        best = np.maximum(best, scores.max(axis=1))
    return best
