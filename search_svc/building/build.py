"""Builds an index version from photos with their embeddings, and a spec."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.building.build_source import BuildSource, copied_rows, copy_embeddings
from search_svc.building.shard_files import progress_of, write_shards
from search_svc.building.sharding import balanced, by_label
from search_svc.building.spec import IndexSpec, Resources, create_index, train_sample_size
from search_svc.dataset.cuts import CutCounts
from search_svc.engine.local import LocalEngine
from search_svc.fitting.fit import fit
from search_svc.fitting.held_out import HeldOutPhotos
from search_svc.index.index_dir import BuildRunningError, Draft, current, new_version
from search_svc.index.items import Items, write_items
from search_svc.index.journal import Journal
from search_svc.index.version import (
    CALIBRATION_FILE,
    EMBEDDINGS_FILE,
    ITEMS_FILE,
    SUMS_FILE,
    IndexVersion,
    SearchParams,
    ShardInfo,
    VersionManifest,
    write_version_manifest,
)
from search_svc.voting.calibration import Calibration
from search_svc.voting.means import sum_by_label
from svckit.artifact import read_manifest
from svckit.cli import CommandError, progress

DEFAULT_K = 5
_TEMPERATURE = {"ip": 0.05, "l2": 0.1}


@dataclass(frozen=True)
class Inherited:
    """The parts of a version that it takes over from the version before it, whose gallery is nearly the same."""

    version: str
    """Name of the version before. If it is not the current one any more, nothing is built."""
    journal_sequence: int
    """Number of the last journal entry that the new version holds."""
    train_sample: int
    """How many embeddings the index was trained on; 0 if it needs no training."""
    trained: Path | None
    """A shard file whose training is taken over; None: the index is trained anew, if it needs training."""
    calibrate: Callable[[Items, NDArray[np.float16]], Calibration | None]
    """Returns the calibration for the new items and their embeddings, (items, dimension)."""
    verify: Callable[[IndexVersion], None]
    """Raises CommandError if the new version, which is not in its place yet, does not answer as it should."""


def build_version(
    index_dir: Path,
    source: BuildSource,
    spec: IndexSpec,
    *,
    held: HeldOutPhotos | None = None,
    inherited: Inherited | None = None,
    drop_changes: bool = False,
    resources: Resources = Resources(),
) -> IndexVersion:
    """Build the next version of `index_dir`, make it the current one, and return it.

    With enough `held` photos it is calibrated. A build of the same that was stopped is continued. Raises CommandError before
    any work if the spec or the source makes no sense, or if the journal's entries could not be applied to the version; with
    `drop_changes` the version does without those entries.
    """
    source.check()
    journal_sequence = (
        inherited.journal_sequence if inherited else _journal_sequence(index_dir, source.model, drop_changes)
    )
    train_sample = _train_sample(spec, source, resources, inherited)
    source, parts = _divide(source, spec)
    with new_version(index_dir, _job(source, spec, train_sample)) as draft:
        if inherited:
            _check_current(index_dir, inherited.version)
        _report_progress(draft, len(parts))
        trained = inherited.trained if inherited else None
        embeddings, manifest = _write_index(draft, source, spec, parts, resources=resources, trained=trained)
        manifest = dataclasses.replace(manifest, train_sample=train_sample, journal_sequence=journal_sequence)
        if held and held.enough:
            manifest = _calibrate(draft.files, manifest, embeddings, held, spec)
        if inherited:
            _inherit_calibration(draft.files, manifest, embeddings, inherited)
        write_version_manifest(draft.files, manifest)
        _check_journal(index_dir, manifest)
        if inherited:
            read_manifest(draft.files)
            inherited.verify(_open_draft(draft.files, manifest, embeddings))
    return IndexVersion.open(index_dir, draft.version, verify=False)


def _write_index(
    draft: Draft,
    source: BuildSource,
    spec: IndexSpec,
    parts: Sequence[range],
    *,
    resources: Resources,
    trained: Path | None,
) -> tuple[NDArray[np.float16], VersionManifest]:
    """Write embeddings, items and shards. Return the embeddings, mapped, and the manifest as far as it is known."""
    mean_square = copy_embeddings(draft.files / EMBEDDINGS_FILE, source, draft.work)
    _write_items(draft.files, source)
    embeddings: NDArray[np.float16] = np.load(draft.files / EMBEDDINGS_FILE, mmap_mode="r")
    _write_sums(draft.files, embeddings)
    manifest = _manifest(source, spec, mean_square)
    shards = _write_shards(draft, embeddings, spec, parts, resources=resources, trained=trained)
    return embeddings, dataclasses.replace(manifest, version=draft.version, shards=shards)


def _manifest(source: BuildSource, spec: IndexSpec, mean_square: float) -> VersionManifest:
    """Return the fields that are known before shards are built; `mean_square` is the embeddings' mean squared length."""
    return VersionManifest(
        version="",
        model=source.model,
        model_name=source.model_name,
        dimension=source.dimension,
        items=len(source),
        labels=len(set(source.labels)),
        factory=spec.factory,
        metric=spec.metric,
        shards=(),
        search=SearchParams(spec.nprobe, spec.ef_search, spec.rerank),
        k=spec.k or DEFAULT_K,
        temperature=spec.temperature or _TEMPERATURE[spec.metric] * mean_square,
        seed=spec.seed,
        train_sample=0,
        created=datetime.now(UTC),
        journal_sequence=0,
        cuts=CutCounts(unknown=len(source)) if source.cuts is None else CutCounts.of(source.cuts.kinds),
    )


def _check_current(index_dir: Path, version: str) -> None:
    # The build's lock keeps it as it is now; before that, another build may have replaced it and pruned the journal.
    if (now := current(index_dir)) != version:
        raise BuildRunningError(index_dir, f"version {now} took the place of {version} meanwhile")


def _journal_sequence(index_dir: Path, model: str, drop_changes: bool) -> int:
    """Return the last journal entry that a version built from photos stands for: 0, so that all entries are applied to it.

    With `drop_changes` it is the last entry of all. Raises CommandError if the entries cannot be applied.
    """
    with Journal.open(index_dir) as journal:
        last = journal.sequence()
        if drop_changes or not last:
            return last
        text = f"{index_dir} was written to while it served, {last} times"
        remedy = "--drop-changes lets go of all that, or --out names another index"
        if journal.model not in (None, model):
            raise CommandError(f"{text}, with embeddings of another model: {remedy}")
        if journal.pruned:
            raise CommandError(f"{text}, and versions hold the first {journal.pruned} changes: {remedy}")
    return 0


def _check_journal(index_dir: Path, manifest: VersionManifest) -> None:
    """Raise CommandError if what was written during the build cannot be applied to the version."""
    with Journal.open(index_dir) as journal:
        if journal.sequence() > manifest.journal_sequence and journal.model != manifest.model:
            text = f"{index_dir} was written to meanwhile, with embeddings of another model"
            raise CommandError(f"{text}: nothing is lost; stop its servers, and build again with --drop-changes")


def _train_sample(spec: IndexSpec, source: BuildSource, resources: Resources, inherited: Inherited | None) -> int:
    """Return how many embeddings the index is, or was, trained on; 0 if it needs no training."""
    if inherited and inherited.trained:
        return inherited.train_sample
    index = create_index(spec, len(source), source.dimension, resources.memory_bytes)
    return train_sample_size(spec, index, len(source), resources.memory_bytes)


def _divide(source: BuildSource, spec: IndexSpec) -> tuple[BuildSource, tuple[range, ...]]:
    """Return the photos in the order of their rows in the version, and the rows of each shard."""
    if spec.shard_by == "balanced":
        return source, balanced(len(source), spec.shards)
    if spec.shards > (labels := len(set(source.labels))):
        raise CommandError(f"--shards must be 1 to {labels}, the number of labels, got {spec.shards}")
    ordered = source.by_label()
    return ordered, by_label(ordered.label_of, spec.shards)


def _job(source: BuildSource, spec: IndexSpec, train_sample: int) -> dict[str, str]:
    """Return all that the files of a draft depend on: a build of another job does not continue them."""
    index = (spec.factory, spec.metric, spec.shards, spec.shard_by, train_sample, spec.seed)
    return {
        "embeddings": source.value_fingerprint,
        "gallery": source.fingerprint,
        "index": " ".join(map(str, index)),
        "faiss": faiss.__version__,
    }


def _write_items(files: Path, source: BuildSource) -> None:
    write_items(
        files / ITEMS_FILE,
        source.item_ids,
        source.labels,
        source.uris,
        batch_ids=source.batch_ids,
        attributes=source.attributes,
        cuts=source.cuts,
    )


def _write_sums(files: Path, embeddings: NDArray[np.float16]) -> None:
    items = Items.open(files / ITEMS_FILE)
    np.save(files / SUMS_FILE, sum_by_label(embeddings, items.label_of, len(items.labels)))


def _report_progress(draft: Draft, shards: int) -> None:
    """Say on stderr what an earlier build left, and whether this build continues or discards it."""
    if draft.discarded:
        what = " and ".join(draft.discarded)
        print(f"discarding what a build of another {what} left when it was stopped", file=sys.stderr)
    trained, added = progress_of(draft.work, shards)
    if rows := copied_rows(draft.work):
        training = ", the index trained" if trained else ""
        print(
            f"going on with a build that was stopped: {rows} embeddings copied{training}, {added} photos indexed",
            file=sys.stderr,
        )


def _write_shards(
    draft: Draft,
    embeddings: NDArray[np.float16],
    spec: IndexSpec,
    parts: Sequence[range],
    *,
    resources: Resources,
    trained: Path | None,
) -> tuple[ShardInfo, ...]:
    _, added = progress_of(draft.work, len(parts))
    with progress(initial=added, total=len(embeddings), desc="index", unit="photo") as bar:
        return write_shards(
            draft.files,
            embeddings,
            spec,
            parts=parts,
            resources=resources,
            work=draft.work,
            trained=trained,
            on_added=bar.update,
        )


def _calibrate(
    draft: Path, manifest: VersionManifest, embeddings: NDArray[np.float16], held: HeldOutPhotos, spec: IndexSpec
) -> VersionManifest:
    """Fit and write the calibration; return the manifest with the k and the temperature that were fitted."""
    version = _open_draft(draft, manifest, embeddings)
    with LocalEngine.open(version) as engine:
        fitted = fit(version, engine, held, k=spec.k, temperature=spec.temperature)
    fitted.write(draft / CALIBRATION_FILE)
    return dataclasses.replace(manifest, k=fitted.k, temperature=fitted.temperature)


def _inherit_calibration(
    draft: Path, manifest: VersionManifest, embeddings: NDArray[np.float16], inherited: Inherited
) -> None:
    version = _open_draft(draft, manifest, embeddings)
    if calibration := inherited.calibrate(version.items, embeddings):
        calibration.write(draft / CALIBRATION_FILE)


def _open_draft(draft: Path, manifest: VersionManifest, embeddings: NDArray[np.float16]) -> IndexVersion:
    """Return the version that is being built, which is not yet in its place."""
    sums = np.load(draft / SUMS_FILE, mmap_mode="r")
    return IndexVersion(draft, manifest, embeddings, Items.open(draft / ITEMS_FILE), sums=sums)
