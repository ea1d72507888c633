"""`vmmr-search evaluate`: how well an index recognises photos whose labels are known."""

import argparse
import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_svc.accuracy import LEVELS, MEASURES, Score, Tally
from search_svc.embeddings import Embeddings
from search_svc.examiner import Examiner
from search_svc.manifest import SPLITS
from search_svc.shards import ShardSet
from search_svc.version import IndexVersion
from svckit.artifact import atomic_write
from svckit.cli import CommandError, progress

_BATCH = 64
_SEED = 0


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure how well an index recognises photos",
        description="Asks the index for photos whose labels are known, and prints how often it is right.",
    )
    parser.add_argument("embeddings", metavar="EMBEDDINGS", type=Path, help="what `vmmr-embedder embed` wrote")
    parser.add_argument("--index", metavar="INDEX", type=Path, required=True, help="index data directory")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the photos to ask for (default: test)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the report there, as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    version = IndexVersion.open(args.index)
    with ShardSet.open(version) as shards:
        report = evaluate(Embeddings.open(args.embeddings), version, shards, args.split)
    print(_table(report))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(args.json, f"{json.dumps(dataclasses.asdict(report), indent=2)}\n".encode())


@dataclass(frozen=True)
class Report:
    """How well an index version recognises the photos of a split."""

    index_version: str
    model: str
    model_name: str
    factory: str
    metric: str
    k: int
    temperature: float
    gallery: int
    """Photos in the index."""
    split: str
    photos: int
    """Photos that were asked for."""
    in_gallery: int
    """Those that are in the index themselves; each was left out of its own neighbours."""
    unknown_label: int
    """Those of a label that the index does not have: their label cannot be found."""
    scores: list[Score]


def evaluate(embeddings: Embeddings, version: IndexVersion, shards: ShardSet, split: str) -> Report:
    """Asks for every photo of a split, as a caller of the service would.

    Raises CommandError if the embeddings are of another model than the index, or hold no photo of the split.
    """
    rows = np.array([row for row, photo in enumerate(embeddings.photos) if photo.split == split], np.int64)
    _check(embeddings, version, rows, split)
    examiner = Examiner(version, shards)
    labels = [embeddings.photos[row].label for row in rows]
    own = examiner.rows_of([embeddings.photos[row].path for row in rows])
    tally = Tally()
    with progress(total=len(rows), desc="evaluate", unit="photo") as bar:
        for batch in np.array_split(np.arange(len(rows)), math.ceil(len(rows) / _BATCH)):
            answers = examiner.answers(embeddings.matrix[rows[batch]].astype(np.float32), own[batch])
            for position, answer in zip(batch, answers, strict=True):
                tally.add(labels[position], answer)
            bar.update(len(batch))
    manifest, known = version.manifest, {label.label for label in version.items.labels}
    return Report(
        index_version=manifest.version,
        model=manifest.model,
        model_name=manifest.model_name,
        factory=manifest.factory,
        metric=manifest.metric,
        k=manifest.k,
        temperature=manifest.temperature,
        gallery=manifest.items,
        split=split,
        photos=len(rows),
        in_gallery=int(np.count_nonzero(own >= 0)),
        unknown_label=sum(label.label not in known for label in labels),
        scores=tally.scores(_SEED),
    )


def _check(embeddings: Embeddings, version: IndexVersion, rows: NDArray[np.int64], split: str) -> None:
    if embeddings.model != version.manifest.model:
        raise CommandError(
            f"the photos were embedded with model {embeddings.model[:12]} ({embeddings.model_name}), "
            f"the index with {version.manifest.model[:12]} ({version.manifest.model_name})"
        )
    if not len(rows):
        raise CommandError(f"there is no photo of the split {split} among the embeddings")


def _table(report: Report) -> str:
    cells = {(score.measure, score.level): _cell(score) for score in report.scores}
    lines = [
        f"{report.photos} photos of the split {report.split}, against {report.gallery} of index {report.index_version}",
        f"index: {report.factory} ({report.metric}), k {report.k}, temperature {report.temperature:.3g}",
        f"model: {report.model_name} ({report.model[:12]})",
        "",
        _line("% right [95 % interval]", LEVELS),
        *(_line(measure, [cells.get((measure, level), "-") for level in LEVELS]) for measure in MEASURES),
    ]
    if report.in_gallery:
        lines.append(f"{report.in_gallery} are in the index themselves; each was left out of its own neighbours")
    if report.unknown_label:
        lines.append(f"{report.unknown_label} have a label that the index does not have, and cannot be right there")
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str]) -> str:
    return f"{name:<24}{''.join(f'{cell:>22}' for cell in cells)}"


def _cell(score: Score) -> str:
    return f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
