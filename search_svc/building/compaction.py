"""Compaction: makes the next version from the current one and the journal, so that it holds both.

The rows of the current version that are still in the gallery come first, in their order; then the items that were written,
in the order of each item's last write. The version is built as any other: in a draft, continued if it was stopped, moved to
its place when it is whole. No acknowledged write depends on it: until CURRENT names the new version, the old version and the
journal are the gallery; from then on, the new version and the rest of the journal are.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_svc.building.build import Inherited, build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec, Resources
from search_svc.dataset.cuts import Cuts
from search_svc.engine.local import LocalEngine
from search_svc.fitting.typical import mean_of, typical_score
from search_svc.index.index_dir import begun
from search_svc.index.items import Items
from search_svc.index.journal import Entry, Journal, StoredItem
from search_svc.index.journal_check import read_through
from search_svc.index.journal_errors import of_another_model
from search_svc.index.version import IndexVersion, VersionManifest
from search_svc.voting.calibration import Calibration
from search_svc.voting.labels import Label, parse
from svckit.cli import CommandError

_READ_AT_ONCE = 10_000
_JOB = "compaction of {} ({}) and the journal to {}"
_BEGUN = re.compile(r"compaction of (\d+) \(.*\) and the journal to (\d+)")
_FEW = 1 / 20
"""Share of new items up to which the training that was done without them still serves."""
_PROBES = 16
"""How many items are looked for in a version that was built."""


def compact(index_dir: Path, *, retrain: bool | None = None, resources: Resources = Resources()) -> IndexVersion | None:
    """Build the next version and make it the current one; do nothing, and return None, if nothing was written since.

    By default the index is trained anew if many items are new; `retrain` decides otherwise. Raises CommandError if the gallery
    is empty, ArtifactError if a file is damaged, and BuildRunningError if another process builds, or has just built.
    """
    base = IndexVersion.open(index_dir)  # verified: what is damaged would get a new checksum, and the old one be gone
    with Journal.open(index_dir) as journal:
        source = merge_journal(base, journal, _upto(index_dir, base, journal))
    if source.upto == base.manifest.journal_sequence:
        return None
    if not len(source):
        raise CommandError(f"{index_dir}: every item was deleted, and an index of none cannot be built: add one first")
    retrain = len(source.written) > _FEW * len(source) if retrain is None else retrain
    training = "trained anew" if retrain else "its training"
    return build_version(
        index_dir,
        dataclasses.replace(
            source.build_source(), embeddings_fingerprint=_JOB.format(base.manifest.version, training, source.upto)
        ),
        spec_like(base.manifest, len(source), len(source.label_names)),
        inherited=_inherited(base, source.upto, retrain=retrain),
        resources=resources,
    )


def compact_all(
    index_dir: Path, *, retrain: bool | None = None, resources: Resources = Resources()
) -> IndexVersion | None:
    """Like `compact`, but return only when a version holds all that the journal held at the time of the call.

    A compaction that was stopped is continued, up to the journal entry that it was begun for. If that was not the last one,
    another compaction follows.
    """
    with Journal.open(index_dir) as journal:
        goal = journal.sequence()
    made = latest = compact(index_dir, retrain=retrain, resources=resources)
    while latest and latest.manifest.journal_sequence < goal:
        latest = compact(index_dir, retrain=retrain, resources=resources)
        made = latest or made
    return made


@dataclass(frozen=True)
class MergedGallery:
    """The gallery that a version and the journal make together."""

    base: IndexVersion
    kept: NDArray[np.int64]
    """Rows of the version that are still in the gallery, ascending."""
    written: Sequence[tuple[str, StoredItem]]
    """Ids and items that the journal added or replaced, in the order of their last write."""
    upto: int
    """Number of the last journal entry that is in the gallery."""

    def __len__(self) -> int:
        return len(self.kept) + len(self.written)

    @cached_property
    def label_names(self) -> set[str]:
        labels = self.base.items.labels
        of_kept = {labels[position].label for position in np.unique(self.base.items.label_of[self.kept]).tolist()}
        return of_kept | {item.label for _, item in self.written}

    def build_source(self) -> BuildSource:
        """Return the photos to build an index from."""
        items = self.base.items
        kept = self.kept.tolist()
        ids, uris = items.take(kept)
        labels = [items.labels[position] for position in items.label_of[self.kept].tolist()]
        return BuildSource(
            model=self.base.manifest.model,
            model_name=self.base.manifest.model_name,
            embeddings=self._embeddings(),
            rows=np.arange(len(self)),
            item_ids=[*ids, *(item_id for item_id, _ in self.written)],
            uris=[*uris, *(item.uri for _, item in self.written)],
            labels=[*labels, *map(_label_reader(items), (item.label for _, item in self.written))],
            batch_ids=[*map(items.batch_id, kept), *(item.batch_id for _, item in self.written)],
            attributes=[*map(items.attributes, kept), *(item.attributes for _, item in self.written)],
            cuts=self._cuts(),
        )

    def _cuts(self) -> Cuts:
        before = self.base.items.cuts
        kept = Cuts.unknown(len(self.kept)) if before is None else before.take(self.kept)
        return kept.joined(Cuts.of(item.cut for _, item in self.written))

    def _embeddings(self) -> "_JoinedRows":
        dimension = self.base.manifest.dimension
        rows = [np.frombuffer(item.embedding, "<f2") for _, item in self.written]
        written = np.stack(rows) if rows else np.empty((0, dimension), np.float16)
        return _JoinedRows(self.base.embeddings, self.kept, written)


@dataclass(frozen=True)
class _JoinedRows:
    """Some rows of one array, then all rows of another, as one array. The first is read from the disk when it is asked for."""

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
    """Return the last journal entry to take in. If a compaction was stopped it is that one's, so that its draft is continued."""
    stopped = _BEGUN.fullmatch(begun(index_dir).get("embeddings", ""))
    last = max(journal.sequence(), base.manifest.journal_sequence)  # the version holds what a deleted journal held
    return min(int(stopped[2]), last) if stopped and stopped[1] == base.manifest.version else last


def merge_journal(base: IndexVersion, journal: Journal, upto: int) -> MergedGallery:
    """Return the gallery of the version and the journal up to that entry.

    Raises ArtifactError if the journal is not of this index, or damaged.
    """
    if upto > base.manifest.journal_sequence and journal.model != base.manifest.model:
        raise of_another_model(journal.path, journal.model, base.manifest.model)
    last: dict[str, Entry] = {}
    for some in read_through(journal, base.manifest.journal_sequence, upto):
        for entry in some:
            if entry.sequence <= upto:  # `upto` is the last entry of a write, so no write is taken in by half
                last.pop(entry.item_id, None)
                last[entry.item_id] = entry
    written = [(entry.item_id, entry.item) for entry in last.values() if entry.item is not None]
    return MergedGallery(base, _untouched(base.items, last), written, upto)


def _untouched(items: Items, touched: Mapping[str, Entry]) -> NDArray[np.int64]:
    """Return the rows of the version whose items the journal has not touched."""
    ids, _ = items.take(range(len(items))) if touched else ([], [])
    gone = np.zeros(len(items), np.bool_)
    gone[[row for row, item_id in enumerate(ids) if item_id in touched]] = True
    return np.flatnonzero(~gone)


def _label_reader(items: Items) -> Callable[[str], Label]:
    """Return a function from a label's name to the label. Labels of the version stay as they are."""
    known = {label.label: label for label in items.labels}

    def label(name: str) -> Label:
        return known.setdefault(name, parse(name, items.makes))

    return label


def spec_like(made: VersionManifest, items: int, labels: int) -> IndexSpec:
    """Return the spec of an index of the same kind, in as many shards, or as many as so few items or labels allow."""
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
        calibrate=partial(_extend_calibration, base),
        verify=verify,
    )


def _extend_calibration(base: IndexVersion, items: Items, embeddings: NDArray[np.float16]) -> Calibration | None:
    """Return the version's calibration, with typical scores for labels that it has not seen."""
    fitted = base.calibration
    if fitted is None:
        return None
    mean = mean_of(fitted.typical, base.items.sizes)
    typical = {
        label.label: fitted.typical[label.label]
        if label.label in fitted.typical
        else typical_score(embeddings[items.label_of == position], mean, base.manifest.metric, base.manifest.seed)
        for position, label in enumerate(items.labels)
    }
    return dataclasses.replace(fitted, typical=typical)


def verify(version: IndexVersion) -> None:
    """Raise CommandError if searches for some of the items do not find what a comparison by numpy finds."""
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
    """Return the best score of each query, (Q,), by numpy, over a part of the gallery at a time."""
    best = np.full(len(queries), -np.inf, np.float32)
    for start in range(0, len(version.items), _READ_AT_ONCE):
        part = version.embeddings[start : start + _READ_AT_ONCE].astype(np.float32)
        scores = queries @ part.T
        if version.manifest.metric == "l2":
            scores = 2 * scores - np.square(queries).sum(axis=1)[:, None] - np.square(part).sum(axis=1)
        best = np.maximum(best, scores.max(axis=1))
    return best
