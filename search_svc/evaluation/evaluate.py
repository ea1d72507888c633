"""`vmmr-search evaluate`: how well an index recognises photos whose labels are known."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset import exclude
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import split_names
from search_svc.engine.local import LocalEngine
from search_svc.evaluation.enrolment import DRAWS, Enroller, Enrolment, Photos
from search_svc.evaluation.examiner import ExaminedPhoto, Examiner
from search_svc.evaluation.report.assembly import SEED, assemble
from search_svc.evaluation.report.content import Report
from search_svc.evaluation.report.table import table
from search_svc.evaluation.report.unknown import UNKNOWN, VERDICT_SCORE
from search_svc.fitting import verdicts
from search_svc.index.version import IndexVersion
from search_svc.live.view import Opened
from search_svc.voting.calibration import Calibration
from svckit.artifact import atomic_write
from svckit.cli import CommandError, count, progress
from svckit.extras import needing

_BATCH = 64


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure how well an index recognises photos",
        description="Asks the index for photos whose labels are known, and reports how often it is right, and how well it "
        "recognises that it does not know a car.",
    )
    parser.add_argument(
        "embeddings", metavar="EMBEDDINGS", type=Path, help="the folder that `vmmr-embedder embed` wrote"
    )
    parser.add_argument("--index", metavar="INDEX", type=Path, required=True, help="index data directory")
    parser.add_argument(
        "--split",
        metavar="SPLITS",
        default="test",
        help="the photos to ask for, for example test,unseen-test (default: test)",
    )
    parser.add_argument(
        "--not-cars", metavar="EMBEDDINGS", type=Path, help="embeddings of pictures that show no car, of any split"
    )
    parser.add_argument(
        "--enrol",
        metavar="COUNTS",
        type=_counts,
        default=(),
        help="add so many photos of each label that the index lacks, and ask for its others, for example 1,2,5,10,20",
    )
    parser.add_argument(
        "--enrol-from",
        metavar="EMBEDDINGS",
        type=Path,
        help="embeddings of the cars to enrol, of any split (default: those of --split whose labels the index lacks)",
    )
    exclude.add_flag(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the report there, as JSON")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write the report there, as one standalone page")
    parser.set_defaults(run=_run)


def _counts(text: str) -> tuple[int, ...]:
    """Return the numbers of photos to enrol, ascending. Raise ArgumentTypeError if the text does not list such numbers."""
    return tuple(sorted({count(each.strip()) for each in text.split(",")}))


def _run(args: argparse.Namespace) -> None:
    if args.enrol_from and not args.enrol:
        raise CommandError("--enrol-from needs --enrol, the numbers of photos to add of each car")
    page = _page_maker() if args.html else None
    version = IndexVersion.open(args.index)
    embeddings = Embeddings.open(args.embeddings)
    not_cars = Embeddings.open(args.not_cars) if args.not_cars else None
    cars = Embeddings.open(args.enrol_from) if args.enrol_from else None
    left_out = exclude.excluded(args.exclude, {photo.path for photo in embeddings.photos})
    with LocalEngine.open(version) as shards:
        report = evaluate(
            embeddings,
            version,
            shards,
            args.split,
            not_cars=not_cars,
            left_out=left_out,
            enrol=args.enrol,
            enrol_from=cars,
        )
    print(table(report))
    if warning := verdict_warning(report, version.calibration):
        print(warning, file=sys.stderr)
    if args.json:
        _write(args.json, f"{json.dumps(dataclasses.asdict(report), indent=2, allow_nan=False)}\n")
    if page:
        _write(args.html, page(report))


def verdict_warning(report: Report, fitted: Calibration | None) -> str:
    """Return a warning if the verdict `unknown` is worth little: by the unknown cars asked for, or else as it was when the index was built."""
    for kind in report.unknown:
        if kind.kind == UNKNOWN and kind.called_unknown:
            (told,) = (score for score in kind.detectors if score.score == VERDICT_SCORE)
            photos = f"{kind.photos} photos of labels that the index lacks"
            return verdicts.little(told.auroc.value, kind.called_unknown.value, photos)
    return verdicts.warning(fitted)


def evaluate(
    embeddings: Embeddings,
    version: IndexVersion,
    shards: LocalEngine,
    split: str,
    *,
    not_cars: Embeddings | None = None,
    left_out: Collection[str] = (),
    enrol: Sequence[int] = (),
    enrol_from: Embeddings | None = None,
) -> Report:
    """Ask an index for all photos of the splits in `split` (separated by commas), as a caller of the service would.

    Photos with the paths `left_out` are not asked for. For each number in `enrol`, so many photos of each car that the index
    lacks are added, and the car's others are asked for; the cars are those of `enrol_from`, or else of the splits. Raises
    CommandError if embeddings are of another model than the index, if there is no photo of a split, if no photo has a label
    that the index knows, or if no new label has more photos than are to be enrolled.
    """
    rows = _rows(embeddings, split, left_out)
    _check(embeddings, "photos", version)
    if not_cars:
        _check(not_cars, "pictures of --not-cars", version)
    if enrol_from:
        _check(enrol_from, "photos of --enrol-from", version)
    examiner = Examiner(version, shards)
    with progress(total=len(rows) + (len(not_cars.photos) if not_cars else 0), desc="evaluate", unit="photo") as bar:
        photos = _examine(examiner, embeddings, rows, bar)
        others = _examine(examiner, not_cars, np.arange(len(not_cars.photos)), bar, cars=False) if not_cars else []
    if not any(photo.known for photo in photos):
        raise CommandError(_nothing_known(version, split, photos))
    enrolled: list[Enrolment] = []
    if enrol:
        known = _photos(embeddings, rows, [photo.known and not photo.in_gallery for photo in photos])
        new = _new_photos(version, *((enrol_from, None) if enrol_from else (embeddings, rows)))
        enrolled = _enrolled(Opened(version, shards), known, new, enrol)
    return assemble(version, examiner.answerer, split, photos, others, enrolment=enrolled)


def _nothing_known(version: IndexVersion, split: str, photos: Sequence[ExaminedPhoto]) -> str:
    labels = sorted({photo.truth.label for photo in photos})
    if any(photo.in_gallery for photo in photos):
        why = "all that it has of their labels are these photos themselves"
    else:
        why = f"it has other labels ({version.items.labels[0].label!r}...) than they ({labels[0]!r}...)"
    return (
        f"the index can be right on none of the {len(photos)} photos of the split {split}: {why}. Ask for photos of cars that it"
        " knows: build it from the train photos of the same manifest, or name another --split"
    )


def _page_maker() -> Callable[[Report], str]:
    with needing("report", CommandError, "--html needs {library}"):
        from search_svc.evaluation.report.page import page  # noqa: PLC0415 - see needing
    return page


def _rows(embeddings: Embeddings, split: str, left_out: Collection[str]) -> NDArray[np.int64]:
    names = split_names(split)
    asked = {row: photo.split for row, photo in enumerate(embeddings.photos) if photo.path not in left_out}
    if missing := sorted(names - set(asked.values())):
        raise CommandError(f"there is no photo of the split {missing[0]} among the embeddings")
    return np.array([row for row, of in asked.items() if of in names], np.int64)


def _check(embeddings: Embeddings, what: str, version: IndexVersion) -> None:
    if embeddings.model != version.manifest.model:
        raise CommandError(
            f"the {what} were embedded with model {embeddings.model[:12]} ({embeddings.model_name}), "
            f"the index with {version.manifest.model[:12]} ({version.manifest.model_name})"
        )
    if not embeddings.photos:
        raise CommandError(f"there are no {what} among the embeddings")


def _examine(
    examiner: Examiner, embeddings: Embeddings, rows: NDArray[np.int64], bar: Any, *, cars: bool = True
) -> list[ExaminedPhoto]:
    examined: list[ExaminedPhoto] = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        photos = [embeddings.photos[row] for row in batch.tolist()]
        examined += examiner.examine(embeddings.matrix[batch].astype(np.float32), photos, cars=cars)
        bar.update(len(batch))
    return examined


def _photos(embeddings: Embeddings, rows: NDArray[np.int64], wanted: Sequence[bool]) -> Photos:
    kept = rows[np.array(wanted, np.bool_)]
    return Photos([embeddings.photos[row] for row in kept.tolist()], embeddings.matrix[kept].astype(np.float32))


def _new_photos(version: IndexVersion, embeddings: Embeddings, rows: NDArray[np.int64] | None) -> Photos:
    """Return the photos in `rows`, or all, whose labels the index lacks. Raise CommandError if there are none."""
    rows = np.arange(len(embeddings.photos)) if rows is None else rows
    sizes = version.items.sizes
    new = _photos(embeddings, rows, [not sizes.get(embeddings.photos[row].label.label, 0) for row in rows.tolist()])
    if not new.photos:
        raise CommandError(
            "--enrol needs photos of labels that the index lacks: ask for a split that has some, or give --enrol-from"
        )
    return new


def _enrolled(opened: Opened, known: Photos, new: Photos, counts: Sequence[int]) -> list[Enrolment]:
    """Enrol the new photos. Raise CommandError if no label has more than so many photos."""
    once = len(known.photos) + len(new.photos)
    with progress(total=once * (1 + DRAWS * len(counts)), desc="enrol", unit="photo") as bar:
        enroller = Enroller(opened, known, new, seed=SEED, asked=bar.update)
        return [enroller.enrol(each) for each in counts]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.encode())
