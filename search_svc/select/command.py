"""The command `vmmr-search select`: reads embeddings, and writes a spec for `vmmr-search build --spec` with its reasons."""

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

from search_svc.building.build_source import BuildSource
from search_svc.dataset import exclude
from search_svc.dataset.embeddings import Embeddings
from search_svc.index.items import Items
from search_svc.index.version import Metric
from search_svc.select.choice import MIN_RECALL, Limits, human, nearest_miss, reason
from search_svc.select.division import Division, divide
from search_svc.select.exam import K
from search_svc.select.grid import Grid, grid
from search_svc.select.points import Point, Store
from search_svc.select.result import Result
from search_svc.select.sweep import Sweep
from search_svc.select.table import table
from search_svc.select.trial_indexes import TrialIndexes
from svckit.artifact import atomic_write
from svckit.cli import CommandError, progress
from svckit.extras import needing

SPEC_FILE, POINTS_FILE, PAGE_FILE, PICTURE_FILE = "spec.json", "points.json", "select.html", "select.png"
_WORK = ".select-work"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)

Grids = Callable[[int, int, Metric], Grid]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "select",
        help="choose an index by how well and how fast it finds dev photos",
        description=f"Builds many kinds of index over the train photos, asks each for the dev photos, and writes {SPEC_FILE},"
        f" which `vmmr-search build --spec` reads, with {POINTS_FILE}, {PAGE_FILE} and {PICTURE_FILE}. The same command"
        " resumes a run that was stopped. Test photos are never looked at.",
    )
    parser.add_argument(
        "embeddings", metavar="EMBEDDINGS", type=Path, help="the folder that `vmmr-embedder embed` wrote"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--shards", metavar="N", type=int, default=1, help="shards that the index will have (default: 1)"
    )
    _add_limits(parser)
    parser.add_argument(
        "--budget-minutes",
        metavar="MINUTES",
        type=_positive,
        help="begin no index after so many minutes (default: no limit)",
    )
    exclude.add_flag(parser)
    parser.set_defaults(run=run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=_size,
        help="the most that all shard files may take together, for example 500M or 2GiB (default: no limit)",
    )
    parser.add_argument(
        "--max-p99-ms",
        metavar="MS",
        type=_positive,
        help="the most milliseconds that 99 of 100 queries may take, one at a time (default: no limit)",
    )
    parser.add_argument(
        "--min-recall",
        metavar="SHARE",
        type=_share,
        default=MIN_RECALL,
        help=f"the least recall@10 against exact search, 0 to 1 (default: {MIN_RECALL})",
    )


def run(args: argparse.Namespace, grids: Grids = grid) -> None:
    """Run the command. `grids` makes the grid from the number of photos, the dimension and the metric."""
    out_of_time = _alarm(args.budget_minutes)
    page, picture = _page_makers()
    embeddings = Embeddings.open(args.embeddings)
    left_out = exclude.excluded(args.exclude, {photo.path for photo in embeddings.photos})
    division = divide(embeddings, left_out)
    gallery = division.gallery
    if not 1 <= args.shards <= len(gallery):
        raise CommandError(f"--shards must be 1 to {len(gallery)}, the number of train photos, got {args.shards}")
    metric: Metric = "ip" if embeddings.normalized else "l2"
    tried = grids(len(gallery), gallery.dimension, metric)
    _refuse_foreign(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    store = Store(args.out / POINTS_FILE, _measured(embeddings, gallery, args.shards))
    indexes = TrialIndexes.create(args.out / _WORK, gallery, args.shards)
    limits = Limits(args.max_memory, args.max_p99_ms, args.min_recall)
    queries = embeddings.matrix[division.asked].astype(np.float32)
    truth = _truth(embeddings, division.asked, indexes.items)
    sweep = Sweep(indexes, tried, store, limits, queries, truth, dict(tried.skipped))
    try:
        with progress(total=len(tried.settings), initial=len(sweep.points), desc="select", unit="point") as bar:
            sweep.run(out_of_time, bar.update)
        chosen = sweep.choose()
    except KeyboardInterrupt:
        there = f"{len(store.points)} of {len(tried.settings)} points are measured"
        print(f"stopped: {there}, and kept in {args.out}; the same command goes on from there", file=sys.stderr)
        raise
    result = _result(sweep, chosen, embeddings, division)
    atomic_write(args.out / PAGE_FILE, page(result).encode())
    atomic_write(args.out / PICTURE_FILE, picture(result))
    _write_spec(args.out / SPEC_FILE, chosen, result.reason)
    indexes.clear()
    print(table(result))
    if chosen is None:
        raise CommandError(result.reason)


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / POINTS_FILE).is_file() and not (out / _WORK).is_dir():
        raise CommandError(f"{out}: holds something else than a selection: name a new or empty folder")


def _page_makers() -> tuple[Callable[[Result], str], Callable[[Result], bytes]]:
    with needing("report", CommandError, f"{PAGE_FILE} needs {{library}}"):
        from search_svc.select.page import page, picture  # noqa: PLC0415 - see needing
    return page, picture


def _measured(embeddings: Embeddings, gallery: BuildSource, shards: int) -> dict[str, Any]:
    """Describe what is measured: points that were measured of anything else cannot be compared with these."""
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
    """Return the label (Q,) of each dev photo, as its place among the labels of the gallery."""
    place = {label: number for number, label in enumerate(items.labels)}
    return np.array([place[embeddings.photos[row].label] for row in asked.tolist()], np.int32)


def _result(sweep: Sweep, chosen: Point | None, embeddings: Embeddings, division: Division) -> Result:
    points, items, limits, asked = sweep.points, len(division.gallery), sweep.limits, len(division.asked)
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
        labels=len(sweep.indexes.items.labels),
        asked=asked,
        unknown=division.unknown,
        dimension=division.gallery.dimension,
        shards=sweep.indexes.shards,
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
    """Write the spec of the chosen point. If there is none, delete the spec of an earlier run."""
    if chosen is None:
        path.unlink(missing_ok=True)
        return
    setting = chosen.setting
    fields = {"factory": setting.factory, "metric": setting.metric, **asdict(setting.params), "reason": why}
    atomic_write(path, f"{json.dumps(fields, indent=2)}\n".encode())


def _alarm(minutes: float | None) -> Callable[[], bool]:
    """Start a timer, and return a function that says whether so many minutes have passed; without a limit, never."""
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    return lambda: time.monotonic() > end


def _size(text: str) -> int:
    """Read a size like `500M`, `1.5 GiB` or `800000` as bytes. K, M, G and T are powers of 1024."""
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
