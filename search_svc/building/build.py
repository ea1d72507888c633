"""From embeddings and an index spec to an index version."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from search_svc.building.build_source import Gallery, copied, copy_embeddings
from search_svc.building.shard_files import left_behind, write_shards
from search_svc.building.sharding import balanced, by_label
from search_svc.building.spec import IndexSpec, Resources, create_index, train_sample_size
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
    IndexVersion,
    SearchParams,
    ShardInfo,
    VersionManifest,
    write_version_manifest,
)
from search_svc.voting.calibration import Calibration
from svckit.artifact import read_manifest
from svckit.cli import CommandError, progress

DEFAULT_K = 5
_TEMPERATURE = {"ip": 0.05, "l2": 0.1}


@dataclass(frozen=True)
class Inherited:
    """What a version takes over from the one before, whose gallery is nearly the same."""

    version: str
    """Its name. It is the current one still, or nothing is built."""
    journal_sequence: int
    """Of the last journal entry that the gallery holds."""
    train_sample: int
    """Embeddings that the index was trained on; 0 if it needs no training."""
    trained: Path | None
    """A shard whose training is taken over; None: it is trained anew, if it needs training."""
    calibrate: Callable[[Items, NDArray[np.float16]], Calibration | None]
    """Of the new items and their embeddings."""
    verify: Callable[[IndexVersion], None]
    """Raises CommandError if the version, which is not in its place yet, does not answer as it should."""


def build_version(
    index_dir: Path,
    gallery: Gallery,
    spec: IndexSpec,
    *,
    held: HeldOutPhotos | None = None,
    inherited: Inherited | None = None,
    drop_changes: bool = False,
    resources: Resources = Resources(),
) -> IndexVersion:
    """Build the next version of `index_dir`, make it the current one, and return it.

    With `held`, if these are enough, it is calibrated. An earlier build of the same that was stopped is gone on with. Raises
    CommandError before any work if the spec or the gallery makes no sense, or if what was written to the gallery while it
    served could not be laid over it: the version is without it with `drop_changes`.
    """
    gallery.check()
    journal_sequence = (
        inherited.journal_sequence if inherited else _journal_sequence(index_dir, gallery.model, drop_changes)
    )
    train_sample = _train_sample(spec, gallery, resources, inherited)
    gallery, parts = _divided(gallery, spec)
    with new_version(index_dir, _job(gallery, spec, train_sample)) as draft:
        if inherited:
            _check_current(index_dir, inherited.version)
        _tell(draft, len(parts))
        mean_square = copy_embeddings(draft.files / EMBEDDINGS_FILE, gallery, draft.work)
        _write_items(draft.files, gallery)
        matrix = np.load(draft.files / EMBEDDINGS_FILE, mmap_mode="r")
        trained = inherited.trained if inherited else None
        manifest = dataclasses.replace(
            _manifest(gallery, spec, mean_square),
            version=draft.version,
            shards=_write_shards(draft, matrix, spec, parts, resources=resources, trained=trained),
            train_sample=train_sample,
            journal_sequence=journal_sequence,
        )
        if held and held.enough:
            manifest = _calibrate(draft.files, manifest, matrix, held, spec)
        if inherited:
            _calibrate_as_before(draft.files, manifest, matrix, inherited)
        write_version_manifest(draft.files, manifest)
        _check_journal(index_dir, manifest)
        if inherited:
            read_manifest(draft.files)
            inherited.verify(_drafted(draft.files, manifest, matrix))
    return IndexVersion.open(index_dir, draft.version, verify=False)


def _manifest(gallery: Gallery, spec: IndexSpec, mean_square: float) -> VersionManifest:
    """Return what is known before anything is built; `mean_square` is the embeddings' mean squared length."""
    return VersionManifest(
        version="",
        model=gallery.model,
        model_name=gallery.model_name,
        dimension=gallery.dimension,
        items=len(gallery),
        labels=len(set(gallery.labels)),
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
    )


def _check_current(index_dir: Path, version: str) -> None:
    """Nobody else changes it now, but somebody may have since the gallery was read of it, and pruned the journal."""
    if (now := current(index_dir)) != version:
        raise BuildRunningError(index_dir, f"version {now} took the place of {version} meanwhile")


def _journal_sequence(index_dir: Path, model: str, drop_changes: bool) -> int:
    """Of the entries that a version built from photos stands for: none, and so all of the journal is laid over it."""
    with Journal.open(index_dir) as journal:
        last = journal.sequence()
        if drop_changes or not last:
            return last
        text = f"{index_dir} was written to while it served, {last} times"
        remedy = "--drop-changes lets go of all that, or --out names another index"
        if journal.model != model:
            raise CommandError(f"{text}, with embeddings of another model: {remedy}")
        if journal.pruned:
            raise CommandError(f"{text}, and versions hold the first {journal.pruned} changes: {remedy}")
    return 0


def _check_journal(index_dir: Path, manifest: VersionManifest) -> None:
    """What was written while the version was built is to be laid over it."""
    with Journal.open(index_dir) as journal:
        if journal.sequence() > manifest.journal_sequence and journal.model != manifest.model:
            text = f"{index_dir} was written to meanwhile, with embeddings of another model"
            raise CommandError(f"{text}: nothing is lost; stop its servers, and build again with --drop-changes")


def _train_sample(spec: IndexSpec, gallery: Gallery, resources: Resources, inherited: Inherited | None) -> int:
    """Return how many embeddings the index is trained on, or was; 0 if it needs no training."""
    if inherited and inherited.trained:
        return inherited.train_sample
    index = create_index(spec, len(gallery), gallery.dimension, resources.memory_bytes)
    return train_sample_size(spec, index, len(gallery), resources.memory_bytes)


def _divided(gallery: Gallery, spec: IndexSpec) -> tuple[Gallery, tuple[range, ...]]:
    """The gallery, in the order of its rows, and the rows of each shard."""
    if spec.shard_by == "balanced":
        return gallery, balanced(len(gallery), spec.shards)
    if spec.shards > (labels := len(set(gallery.labels))):
        raise CommandError(f"--shards must be 1 to {labels}, the number of labels, got {spec.shards}")
    ordered = gallery.by_label()
    return ordered, by_label(ordered.label_of, spec.shards)


def _job(gallery: Gallery, spec: IndexSpec, train_sample: int) -> dict[str, str]:
    """Return all that the files of a draft depend on."""
    index = (spec.factory, spec.metric, spec.shards, spec.shard_by, train_sample, spec.seed)
    return {
        "embeddings": gallery.value_fingerprint,
        "gallery": gallery.fingerprint,
        "index": " ".join(map(str, index)),
        "faiss": faiss.__version__,
    }


def _write_items(files: Path, gallery: Gallery) -> None:
    write_items(
        files / ITEMS_FILE,
        gallery.item_ids,
        gallery.labels,
        gallery.uris,
        batch_ids=gallery.batch_ids,
        attributes=gallery.attributes,
    )


def _tell(draft: Draft, shards: int) -> None:
    """Says what becomes of what an earlier build has left."""
    if draft.discarded:
        what = " and ".join(draft.discarded)
        print(f"discarding what a build of another {what} left when it was stopped", file=sys.stderr)
    trained, added = left_behind(draft.work, shards)
    if rows := copied(draft.work):
        training = ", the index trained" if trained else ""
        print(
            f"going on with a build that was stopped: {rows} embeddings copied{training}, {added} photos indexed",
            file=sys.stderr,
        )


def _write_shards(
    draft: Draft,
    gallery: NDArray[np.float16],
    spec: IndexSpec,
    parts: Sequence[range],
    *,
    resources: Resources,
    trained: Path | None,
) -> tuple[ShardInfo, ...]:
    _, added = left_behind(draft.work, len(parts))
    with progress(initial=added, total=len(gallery), desc="index", unit="photo") as bar:
        return write_shards(
            draft.files,
            gallery,
            spec,
            parts=parts,
            resources=resources,
            work=draft.work,
            trained=trained,
            on_added=bar.update,
        )


def _calibrate(
    draft: Path, manifest: VersionManifest, gallery: NDArray[np.float16], held: HeldOutPhotos, spec: IndexSpec
) -> VersionManifest:
    """Writes the calibration; returns the manifest with what was fitted."""
    version = _drafted(draft, manifest, gallery)
    with LocalEngine.open(version) as shards:
        fitted = fit(version, shards, held, k=spec.k, temperature=spec.temperature)
    fitted.write(draft / CALIBRATION_FILE)
    return dataclasses.replace(manifest, k=fitted.k, temperature=fitted.temperature)


def _calibrate_as_before(
    draft: Path, manifest: VersionManifest, gallery: NDArray[np.float16], inherited: Inherited
) -> None:
    version = _drafted(draft, manifest, gallery)
    if calibration := inherited.calibrate(version.items, gallery):
        calibration.write(draft / CALIBRATION_FILE)


def _drafted(draft: Path, manifest: VersionManifest, gallery: NDArray[np.float16]) -> IndexVersion:
    """The version, not yet in its place."""
    return IndexVersion(draft, manifest, gallery, Items.open(draft / ITEMS_FILE))
