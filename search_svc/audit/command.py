"""The command `vmmr-search audit`."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_svc.audit import copies, findings, neighbours
from search_svc.audit.copies import Thumbnails
from search_svc.audit.doubts import doubts, numbered
from search_svc.audit.findings import Exclusion, Finding, Kind
from search_svc.dataset.embeddings import Embeddings
from svckit.artifact import atomic_write
from svckit.cli import CommandError, progress
from svckit.extras import needing

FINDINGS_FILE, PAGE_FILE, EXCLUDE_FILE = "audit.csv", "audit.html", "exclude.csv"
_NEIGHBOURS = 20
_LEAST_PHOTOS = 2


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "audit",
        help="find copies, wrong labels, and photos of no car or several",
        description="Looks through a collection for photos that are there twice, labels that look wrong, and pictures that"
        " may show no car; and, if the model has a detector, for photos in which it found none, or several. Writes"
        f" {FINDINGS_FILE}, {PAGE_FILE} (to look at), and {EXCLUDE_FILE}, which split and build take with --exclude: of what"
        " was found, only what the flags below name.",
    )
    parser.add_argument(
        "embeddings", metavar="EMBEDDINGS", type=Path, help="the folder that `vmmr-embedder embed` wrote"
    )
    parser.add_argument("--photos", metavar="DIR", type=Path, required=True, help="the folder that was embedded")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write to")
    parser.add_argument(
        "--drop-copies",
        action="store_true",
        help="exclude copies: all but one of those with one label, all of those with several (default: none)",
    )
    parser.add_argument(
        "--drop-labels",
        metavar="SCORE",
        type=float,
        help="exclude photos whose label looks wrong, with this score or more (default: none)",
    )
    parser.add_argument(
        "--drop-odd",
        metavar="SCORE",
        type=float,
        help="exclude pictures that are unlike the others, with this score or more, and in which no car was found (default:"
        " none)",
    )
    parser.set_defaults(run=_run)


@dataclass(frozen=True)
class Audit:
    findings: Sequence[Finding]
    groups: Sequence[Sequence[int]]
    """Groups of copies, as the rows of the photos."""
    unreadable: Sequence[str]
    """The paths of photos that could not be read."""


def _run(args: argparse.Namespace) -> None:
    if args.out.resolve().is_relative_to(args.photos.resolve()):
        raise CommandError(f"--out {args.out} lies in the folder of photos {args.photos}, which is left as it is")
    page = _page_maker()
    embeddings = Embeddings.open(args.embeddings)
    result = audit(embeddings, args.photos)
    drop: dict[Kind, float | None] = {"label": args.drop_labels, "odd": args.drop_odd}
    groups = result.groups if args.drop_copies else ()
    excluded = findings.exclusions(embeddings.photos, groups, result.findings, drop)
    paths = {each.path for each in excluded}
    args.out.mkdir(parents=True, exist_ok=True)
    atomic_write(args.out / FINDINGS_FILE, findings.findings_csv(result.findings))
    atomic_write(args.out / EXCLUDE_FILE, findings.exclusions_csv(excluded))
    html = page(result.findings, paths, args.photos, args.out / PAGE_FILE)
    atomic_write(args.out / PAGE_FILE, html.encode())
    print(_summary(args.out, embeddings, result, excluded))


def _page_maker() -> Callable[[Sequence[Finding], set[str], Path, Path], str]:
    with needing("report", CommandError, "{library} is missing"):
        from search_svc.audit.page import page  # noqa: PLC0415 - see needing
    return page


def audit(embeddings: Embeddings, folder: Path) -> Audit:
    """Audit a collection. Raises CommandError if its photos are not in `folder`, or if there are too few to compare."""
    photos, matrix = embeddings.photos, embeddings.matrix
    if len(photos) < _LEAST_PHOTOS:
        raise CommandError(f"there is nothing to compare: {len(photos)} photos")
    pictures = Thumbnails([folder / photo.path for photo in photos])
    if pictures.of(0) is None:
        raise CommandError(f"{folder / photos[0].path}: {pictures.unreadable[0]}; is {folder} what was embedded?")
    with progress(total=len(photos), desc="neighbours", unit="photo") as bar:
        near = neighbours.nearest(matrix, _NEIGHBOURS, bar.update)
    with progress(total=len(photos), desc="copies", unit="photo") as bar:
        pairs = copies.find(near, pictures, bar.update)
    alike = copies.groups(pairs)
    labels = numbered([photo.label.label for photo in photos])
    own = neighbours.nearest_of_label(matrix, labels, _NEIGHBOURS)
    near = copies.without_copies(near, alike)
    doubted = doubts(matrix, labels, near, copies.without_copies(own, alike))
    unreadable = [photos[row].path for row in sorted(pictures.unreadable)]
    groups = copies.groups(pair for pair in pairs if pair.same)
    return Audit(findings.found(photos, pairs, doubted, near), groups, unreadable)


def _summary(out: Path, embeddings: Embeddings, result: Audit, excluded: Sequence[Exclusion]) -> str:
    counts = Counter(each.kind for each in result.findings)
    if result.unreadable:
        print(
            f"warning: {len(result.unreadable)} photos cannot be read, the first is {result.unreadable[0]!r}: no copies"
            " of them are found",
            file=sys.stderr,
        )
    looked = any(photo.cars is not None for photo in embeddings.photos)
    with_car = sum(each.kind == "odd" and bool(each.photo.cars) for each in result.findings)
    odd = f" ({with_car} of them with a car)" if looked else ""
    found = f", {counts['no-car']} without a car, {counts['cars']} with several" if looked else ""
    hint = (
        ""
        if excluded
        else f": look at {PAGE_FILE}, and say with --drop-copies, --drop-labels and --drop-odd what to exclude"
    )
    return (
        f"{out}: {len(embeddings.photos)} photos: {counts['copy']} pairs of copies, {counts['alike']} pairs that may be copies,"
        f" {counts['label']} labels that look wrong, {counts['odd']} unlike the others{odd}{found};"
        f" {len(excluded)} photos in {EXCLUDE_FILE}{hint}"
    )
