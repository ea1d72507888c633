"""The command: from embeddings to a spec for `vmmr-search build --spec`, and what speaks for it."""

import argparse
import importlib.metadata
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.building.build_source import Gallery
from search_svc.dataset import exclude
from search_svc.dataset.embeddings import Embeddings
from search_svc.index.items import Items
from search_svc.index.version import Metric
from search_svc.select.choice import MIN_RECALL, Limits, human, nearest_miss, reason
from search_svc.select.exam import K
from search_svc.select.grid import Grid, grid
from search_svc.select.points import Point, Store
from search_svc.select.result import Result
from search_svc.select.sweep import Sweep
from search_svc.select.table import table
from search_svc.select.workshop import Workshop
from svckit.artifact import atomic_write
from svckit.cli import CommandError, progress
from svckit.extras import install

SPEC_FILE, POINTS_FILE, PAGE_FILE, PICTURE_FILE = "spec.json", "points.json", "select.html", "select.png"
_WORK = ".select-work"
_MOST_ASKED = 4096
"""Dev photos: more tell little, and take long with every index."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)

Grids = Callable[[int, int, Metric], Grid]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "select",
        help="choose an index by what it does to dev photos",
        description=f"Builds many kinds of index over the train photos, asks each for the dev photos, and writes {SPEC_FILE},"
        f" which `vmmr-search build --spec` reads, with {POINTS_FILE}, {PAGE_FILE} and {PICTURE_FILE}. A run that was"
        " stopped is gone on with by the same command. Test photos are never looked at.",
    )
    parser.add_argument("embeddings", metavar="EMBEDDINGS", type=Path, help="what `vmmr-embedder embed` wrote")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write")
    parser.add_argument("--shards", metavar="N", type=int, default=1, help="shards that will be built (default: 1)")
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=_size,
        help="of all shard files together, for example 500M or 2GiB (default: no limit)",
    )
    parser.add_argument(
        "--max-p99-ms", metavar="MS", type=_positive, help="of queries one at a time (default: no limit)"
    )
    parser.add_argument(
        "--min-recall",
        metavar="SHARE",
        type=_share,
        default=MIN_RECALL,
        help=f"recall@10 against exact search, 0 to 1 (default: {MIN_RECALL})",
    )
    parser.add_argument(
        "--budget-minutes", metavar="MINUTES", type=_positive, help="begin no more indexes after it (default: no limit)"
    )
    exclude.add_flag(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, grids: Grids = grid) -> None:
    """`grids` makes the grid from the number of photos, the dimension and the metric."""
    out_of_time = _alarm(args.budget_minutes)
    page, picture = _page_makers()
    embeddings = Embeddings.open(args.embeddings)
    left_out = exclude.excluded(args.exclude, {photo.path for photo in embeddings.photos})
    gallery, asked, unknown = _divide(embeddings, left_out)
    if not 1 <= args.shards <= len(gallery):
        raise CommandError(f"--shards must be 1 to {len(gallery)}, the number of train photos, got {args.shards}")
    metric: Metric = "ip" if embeddings.normalized else "l2"
    tried = grids(len(gallery), gallery.dimension, metric)
    _refuse_foreign(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / POINTS_FILE, _measured(embeddings, gallery, args.shards))
    workshop = Workshop.furnish(args.out / _WORK, gallery, args.shards)
    limits = Limits(args.max_memory, args.max_p99_ms, args.min_recall)
    queries, truth = embeddings.matrix[asked].astype(np.float32), _truth(embeddings, asked, workshop.items)
    sweep = Sweep(workshop, tried, store, limits, queries, truth, dict(tried.skipped))
    try:
        with progress(total=len(tried.settings), initial=len(sweep.points), desc="select", unit="point") as bar:
            sweep.run(out_of_time, bar.update)
        chosen = sweep.choose()
    except KeyboardInterrupt:
        there = f"{len(store.points)} of {len(tried.settings)} points are measured"
        print(f"stopped: {there}, and kept in {args.out}; the same command goes on from there", file=sys.stderr)
        raise
    result = _result(sweep, chosen, embeddings, gallery, asked=len(asked), unknown=unknown)
    atomic_write(args.out / PAGE_FILE, page(result).encode())
    atomic_write(args.out / PICTURE_FILE, picture(result))
    _write_spec(args.out / SPEC_FILE, chosen, result.reason)
    workshop.clear()
    print(table(result))
    if chosen is None:
        raise CommandError(result.reason)


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / POINTS_FILE).is_file() and not (out / _WORK).is_dir():
        raise CommandError(f"{out}: holds something else than a selection: name a new or empty folder")


def _page_makers() -> tuple[Callable[[Result], str], Callable[[Result], bytes]]:
    """Before hours of work: what is missing is told at once."""
    try:
        from search_svc.select.page import page, picture  # noqa: PLC0415 - needs the extra `report`
    except ModuleNotFoundError as error:
        library = str(error.name).split(".")[0]
        raise CommandError(f"{PAGE_FILE} needs {library}: {install('report')}") from error
    return page, picture


def _divide(embeddings: Embeddings, left_out: set[str]) -> tuple[Gallery, NDArray[np.int64], int]:
    """The train photos; the rows of the dev photos of their labels; and how many dev photos have another label."""
    rows: dict[str, list[int]] = {"train": [], "dev": []}
    for row, photo in enumerate(embeddings.photos):
        if photo.split in rows and photo.path not in left_out:
            rows[photo.split].append(row)
    for split, found in rows.items():
        if not found:
            raise CommandError(f"there is no photo of the split {split} among the embeddings")
    photos = [embeddings.photos[row] for row in rows["train"]]
    paths, labels = [photo.path for photo in photos], [photo.label for photo in photos]
    gallery = Gallery(
        model=embeddings.model,
        model_name=embeddings.model_name,
        embeddings=embeddings.matrix,
        rows=np.array(rows["train"]),
        item_ids=paths,
        labels=labels,
        uris=paths,
    )
    gallery.check()
    names = {label.label for label in labels}
    known = np.array([row for row in rows["dev"] if embeddings.photos[row].label.label in names], np.int64)
    if not len(known):
        raise CommandError("no dev photo has a label that a train photo has")
    if len(known) > _MOST_ASKED:
        asked = np.sort(np.random.default_rng(0).choice(known, _MOST_ASKED, replace=False))
    else:
        asked = known
    return gallery, asked, len(rows["dev"]) - len(known)


def _measured(embeddings: Embeddings, gallery: Gallery, shards: int) -> dict[str, Any]:
    """What points are of; those of something else are not comparable."""
    return {
        "embeddings": embeddings.fingerprint,
        "photos": gallery.fingerprint,
        "shards": shards,
        "neighbours": K,
        "faiss": _faiss_version(),
    }


def _faiss_version() -> str:
    for wheel in ("faiss-cpu", "faiss-gpu"):
        try:
            return importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _truth(embeddings: Embeddings, asked: NDArray[np.int64], items: Items) -> NDArray[np.int32]:
    """(Q,): the labels' places among those of the gallery."""
    place = {label: number for number, label in enumerate(items.labels)}
    return np.array([place[embeddings.photos[row].label] for row in asked.tolist()], np.int32)


def _result(
    sweep: Sweep, chosen: Point | None, embeddings: Embeddings, gallery: Gallery, *, asked: int, unknown: int
) -> Result:
    points, items, limits = sweep.points, len(gallery), sweep.limits
    if chosen:
        why = reason(chosen, points, sweep.exact, limits, items=items, photos=asked)
    else:
        why = nearest_miss(points, limits, items)
    measured = {point.setting for point in points}
    missing = [each for each in sweep.grid.settings if each not in measured and each.factory not in sweep.skipped]
    return Result(
        points=points,
        notes=sweep.grid.notes,
        chosen=chosen,
        reason=why,
        limits=_limits(limits),
        skipped=sweep.skipped,
        left_out=missing,
        photos=items,
        labels=len(sweep.workshop.items.labels),
        asked=asked,
        unknown=unknown,
        dimension=gallery.dimension,
        shards=sweep.workshop.shards,
        model=f"{embeddings.model_name} ({embeddings.model[:12]})",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _limits(limits: Limits) -> str:
    given = [
        f"memory {human(limits.max_bytes)}" if limits.max_bytes is not None else "",
        f"p99 {limits.max_p99_ms:g} ms" if limits.max_p99_ms is not None else "",
        f"recall@10 {limits.min_recall:g}",
    ]
    return ", ".join(filter(None, given))


def _write_spec(path: Path, chosen: Point | None, why: str) -> None:
    """Of a choice; without one, that of an earlier run goes too."""
    if chosen is None:
        path.unlink(missing_ok=True)
        return
    setting = chosen.setting
    fields = {"factory": setting.factory, "metric": setting.metric, **asdict(setting.params), "reason": why}
    atomic_write(path, f"{json.dumps(fields, indent=2)}\n".encode())


def _alarm(minutes: float | None) -> Callable[[], bool]:
    """Whether the time is up, from now on."""
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    return lambda: time.monotonic() > end


def _size(text: str) -> int:
    """Bytes: `500M`, `1.5 GiB`, `800000`. K, M and G are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"must be a size like 500M or 2GiB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def _share(text: str) -> float:
    number = _positive(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"must be at most 1, got {text!r}")
    return number
