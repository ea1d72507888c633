"""`vmmr-search build`: from embeddings and an index spec to an index version."""

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from search_svc import exclude
from search_svc.calibration import Calibration
from search_svc.embeddings import Embeddings
from search_svc.fit import fit
from search_svc.held import LEAST_LABELS, LEAST_PHOTOS, Held
from search_svc.index_dir import new_version
from search_svc.items import Items, write_items
from search_svc.labels import Label, first_contradiction
from search_svc.local import LocalEngine
from search_svc.manifest import split_names
from search_svc.shard_files import write_shards
from search_svc.spec import IndexSpec, create_index, train_sample_size
from search_svc.version import (
    CALIBRATION_FILE,
    EMBEDDINGS_FILE,
    ITEMS_FILE,
    IndexVersion,
    Metric,
    SearchParams,
    ShardInfo,
    VersionManifest,
    write_version_manifest,
)
from svckit.cli import CommandError, progress

_CHUNK_ROWS = 8192
_K = 5
_TEMPERATURE = {"ip": 0.05, "l2": 0.1}


def build_version(
    index_dir: Path,
    *,
    embeddings: NDArray[Any],
    item_ids: Sequence[str],
    labels: Sequence[Label],
    uris: Sequence[str],
    model: str,
    model_name: str,
    spec: IndexSpec,
    rows: NDArray[np.int64] | None = None,
    held: Held | None = None,
) -> IndexVersion:
    """Builds the next version of `index_dir` and makes it the current one.

    `rows` are the rows of the `(M, dimension)` embeddings that make the gallery, all by default; ids, labels and uris
    are aligned with them. With `held`, if these are enough, it is calibrated. Raises CommandError before any work if the
    spec or the gallery makes no sense.
    """
    rows = np.arange(len(embeddings)) if rows is None else rows
    _check_gallery(rows, item_ids, labels, uris)
    index = create_index(spec, len(rows), embeddings.shape[1])
    with new_version(index_dir) as (version, draft):
        gallery, mean_square = _copy_embeddings(draft / EMBEDDINGS_FILE, embeddings, rows, item_ids)
        write_items(draft / ITEMS_FILE, item_ids, labels, uris)
        shards = _write_shards(draft, gallery, spec)
        manifest = VersionManifest(
            version=version,
            model=model,
            model_name=model_name,
            dimension=embeddings.shape[1],
            items=len(rows),
            labels=len(set(labels)),
            factory=spec.factory,
            metric=spec.metric,
            shards=shards,
            search=SearchParams(spec.nprobe, spec.ef_search),
            k=spec.k or _K,
            temperature=spec.temperature or _TEMPERATURE[spec.metric] * mean_square,
            seed=spec.seed,
            train_sample=train_sample_size(spec, index, len(rows)),
            created=datetime.now(UTC),
        )
        if held and held.enough:
            manifest = _calibrate(draft, manifest, gallery, held, spec)
        write_version_manifest(draft, manifest)
    return IndexVersion.open(index_dir, version, verify=False)


def _check_gallery(
    rows: NDArray[np.int64], item_ids: Sequence[str], labels: Sequence[Label], uris: Sequence[str]
) -> None:
    if not len(rows):
        raise CommandError("there is no photo to index")
    if not len(rows) == len(item_ids) == len(labels) == len(uris):
        counts = f"{len(rows)} embeddings, {len(item_ids)} ids, {len(labels)} labels, {len(uris)} uris"
        raise CommandError(f"the gallery is out of line: {counts}")
    if repeated := _first_repeated(item_ids):
        raise CommandError(f"two photos have the id {repeated!r}")
    if places := first_contradiction(labels):
        one, other = (f"{labels[place].car} for {item_ids[place]!r}" for place in places)
        raise CommandError(f"the label {labels[places[0]].label!r} has {one}, but {other}")


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _copy_embeddings(
    path: Path, embeddings: NDArray[Any], rows: NDArray[np.int64], item_ids: Sequence[str]
) -> tuple[NDArray[np.float16], float]:
    """Writes the gallery's embeddings as float16; returns them, memory-mapped, and their mean squared length."""
    gallery = np.lib.format.open_memmap(path, "w+", np.float16, (len(rows), embeddings.shape[1]))
    squares = 0.0
    for start in range(0, len(rows), _CHUNK_ROWS):
        with np.errstate(over="ignore"):
            chunk = np.asarray(embeddings[rows[start : start + _CHUNK_ROWS]]).astype(np.float16)
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            bad = item_ids[start + int(np.argmin(finite))]
            raise CommandError(f"the embedding of {bad!r} has a value that is no number, or too large for float16")
        squares += float(np.square(chunk, dtype=np.float64).sum())
        gallery[start : start + len(chunk)] = chunk
    if squares == 0:
        raise CommandError("all embeddings are zero")
    gallery.flush()
    return gallery, squares / len(rows)


def _write_shards(draft: Path, gallery: NDArray[np.float16], spec: IndexSpec) -> tuple[ShardInfo, ...]:
    with progress(total=len(gallery), desc="index", unit="photo") as bar:
        edges = [len(gallery) * shard // spec.shards for shard in range(spec.shards + 1)]
        parts = [range(*edge) for edge in pairwise(edges)]  # until shards are read with their step
        return write_shards(draft, gallery, spec, parts=parts, on_added=bar.update)


def _calibrate(
    draft: Path, manifest: VersionManifest, gallery: NDArray[np.float16], held: Held, spec: IndexSpec
) -> VersionManifest:
    """Writes the calibration; returns the manifest with what was fitted."""
    version = IndexVersion(draft, manifest, gallery, Items.open(draft / ITEMS_FILE))
    with LocalEngine.open(version) as shards:
        fitted = fit(version, shards, held, k=spec.k, temperature=spec.temperature)
    fitted.write(draft / CALIBRATION_FILE)
    return dataclasses.replace(manifest, k=fitted.k, temperature=fitted.temperature)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "build",
        help="build an index version from embeddings",
        description="Builds the next version of an index from embeddings, and makes it the current one.",
    )
    spec = IndexSpec()
    parser.add_argument("embeddings", metavar="EMBEDDINGS", type=Path, help="what `vmmr-embedder embed` wrote")
    parser.add_argument("--out", metavar="INDEX", type=Path, required=True, help="the index data directory")
    parser.add_argument(
        "--split", default="train", help="splits that make the gallery, for example train,dev (default: train)"
    )
    exclude.add_flag(parser)
    parser.add_argument("--factory", default=spec.factory, help=f"faiss factory string (default: {spec.factory})")
    parser.add_argument("--metric", choices=get_args(Metric), default=spec.metric, help=f"default: {spec.metric}")
    parser.add_argument(
        "--shards", type=int, default=spec.shards, help=f"parts, searched in parallel (default: {spec.shards})"
    )
    parser.add_argument(
        "--train-sample", type=int, help="embeddings to train on (default: 39 a list, and 65536 at least)"
    )
    parser.add_argument("--nprobe", type=int, help="inverted lists a search visits, for IVF (default: faiss', 1)")
    parser.add_argument("--ef-search", type=int, help="candidates a search keeps, for HNSW (default: faiss', 16)")
    parser.add_argument("--k", type=int, help=f"neighbours that vote (default: fitted on dev photos, or {_K})")
    parser.add_argument(
        "--temperature", type=float, help="of the vote (default: fitted on dev photos, or from the embeddings' length)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=spec.seed,
        help=f"of the training sample, and of what fitting draws (default: {spec.seed})",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    embeddings = Embeddings.open(args.embeddings)
    spec = IndexSpec(
        factory=args.factory,
        metric=args.metric,
        shards=args.shards,
        train_sample=args.train_sample,
        nprobe=args.nprobe,
        ef_search=args.ef_search,
        k=args.k,
        temperature=args.temperature,
        seed=args.seed,
    )
    splits = split_names(args.split)
    left_out = exclude.excluded(args.exclude, {photo.path for photo in embeddings.photos})
    rows = np.array(
        [row for row, photo in enumerate(embeddings.photos) if photo.split in splits and photo.path not in left_out],
        np.int64,
    )
    if not len(rows):
        raise CommandError(f"{args.embeddings}: holds no photo of the split {args.split}")
    if args.metric == "ip" and not embeddings.normalized:
        print("warning: the embeddings are not of unit length; with --metric ip the longest win", file=sys.stderr)
    gallery = [embeddings.photos[row] for row in rows]
    paths = [photo.path for photo in gallery]
    held = _held(embeddings, rows, left_out)
    version = build_version(
        args.out,
        embeddings=embeddings.matrix,
        item_ids=paths,
        labels=[photo.label for photo in gallery],
        uris=paths,
        model=embeddings.model,
        model_name=embeddings.model_name,
        spec=spec,
        rows=rows,
        held=held,
    )
    print(_summary(version))
    print(_calibrated(version.calibration, held))


def _held(embeddings: Embeddings, gallery: NDArray[np.int64], left_out: set[str]) -> Held:
    """The dev photos of the gallery's labels that are not in the gallery, and not left out."""
    photos, indexed = embeddings.photos, set(gallery.tolist())
    labels = {photos[row].label.label for row in indexed}
    rows = [
        row
        for row, photo in enumerate(photos)
        if photo.split == "dev" and row not in indexed and photo.label.label in labels and photo.path not in left_out
    ]
    return Held(embeddings.matrix, np.array(rows, np.int64), [photos[row].label for row in rows])


def _summary(version: IndexVersion) -> str:
    made = version.manifest
    what = f"{made.items} photos of {made.labels} labels, {made.dimension}-d"
    return f"{version.path}: {what}, {made.factory} ({made.metric}), shards: {len(made.shards)}"


def _calibrated(fitted: Calibration | None, held: Held) -> str:
    if fitted is None:
        there = f"{len(held.rows)} of {len(set(held.labels))} labels"
        needed = f"that takes {LEAST_PHOTOS} dev photos of {LEAST_LABELS} labels outside the gallery, there are {there}"
        return f"not calibrated, so it never says unknown, and confidences are shares of the vote: {needed}"
    vote = f"k {fitted.k}, temperature {fitted.temperature:.3g}, prior {fitted.prior:g}"
    error = fitted.errors["label"]
    errors = f"calibration error of the label {error.before:.1%}, calibrated {error.after:.1%}"
    return f"calibrated on {fitted.photos} dev photos: {vote}; {errors}"
