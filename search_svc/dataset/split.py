"""`vmmr-search split`: reads a folder of photos, and writes `manifest.csv`, which says what each photo is for."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vmmr import label_names
from vmmr.photo_folders import LeftOut, tally
from vmmr.photo_names import shown

from search_svc.dataset import exclude, photo_list, schemes
from search_svc.dataset.collection import Collection, Remark, scan
from search_svc.dataset.csv_files import text_of
from search_svc.dataset.photo_list import Photo
from search_svc.dataset.schemes import PARTS
from svckit.artifact import ArtifactError, atomic_write
from svckit.cli import CommandError, tell_next
from svckit.manifests import SPLITS

SIZES_FILE = "category_sizes.txt"
REPORT_FILE = "split_report.csv"
_MOST_SHOWN = 10


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "split",
        help="divide a folder of photos into train, dev and test",
        usage="%(prog)s [-h] DIR --out CSV [--scheme blog|stratified|files [LIST ...]] [--unseen N] [--makes FILE] [--exclude CSV]",
        description=f"Writes manifest.csv, and beside it {SIZES_FILE} (photos of each label) and {REPORT_FILE} (labels"
        " that name the same car, labels that cannot be read in full, files that are not labelled photos).",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, nargs="?", help="the photos: DIR/<label>/<file>")
    parser.add_argument("--out", metavar="CSV", type=Path, required=True, help="the manifest to write")
    parser.add_argument(
        "--scheme",
        nargs="+",
        default=["blog"],
        metavar=("blog|stratified|files", "LIST"),
        help="blog (default): each label's photos are shuffled with a fixed seed and cut after 80 and 90 %%, rounded down, into"
        " train, dev and test, so a label of few photos may lack a split; stratified: a tenth to dev and to test, but every"
        " label of three photos or more is in every split; files TRAIN DEV TEST: as these lists of <label>/<file> say",
    )
    parser.add_argument(
        "--unseen",
        metavar="N",
        type=int,
        help="hold out all photos of the last N labels: a fifth of the labels as unseen-dev, the others as unseen-test",
    )
    parser.add_argument(
        "--makes",
        metavar="FILE",
        type=Path,
        help="makes of several words, one a line, for labels that do not show where the make ends (maruti_suzuki_swift_2015)",
    )
    exclude.add_flag(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    directory, scheme, lists = _arguments(args.directory, *args.scheme)
    given = _read_makes(args.makes) if args.makes else frozenset()
    collection = scan(directory)
    makes = given | label_names.shown_makes(collection.classes)
    unnamed: list[Remark] = []
    if scheme == "files":
        photos, unnamed = schemes.divide_by_lists(collection, dict(zip(PARTS, lists, strict=True)), makes)
    else:
        photos = schemes.divide(collection, schemes.CUTS[scheme], makes)
    if args.unseen is not None:
        photos = schemes.hold_out(photos, args.unseen)
    left_out = exclude.excluded(args.exclude, {photo.path for photo in photos})
    # Photos are left out after they were divided, so that no other photo moves to another split.
    photos = [photo for photo in photos if photo.path not in left_out]
    if not photos:
        raise CommandError(f"{args.exclude}: leaves no photo")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report_path = args.out.with_name(REPORT_FILE)
    report = [*_label_remarks(collection, makes), *_left_out(collection), *unnamed]
    photo_list.write(args.out, photos)
    atomic_write(args.out.with_name(SIZES_FILE), _sizes(collection).encode())
    lines = text_of(("path", "reason"), ((remark.path, remark.reason) for remark in report))
    atomic_write(report_path, lines.encode(errors="backslashreplace"))
    print(_summary(args.out, photos))
    if told := tally([*collection.left_out, *(LeftOut(each.path, each.reason) for each in unnamed)]):
        print(told, file=sys.stderr)
    expected = {each.path for each in collection.left_out if each.expected}
    _show([remark for remark in report if remark.path not in expected], report_path)
    tell_next("vmmr-embedder", "embed", args.out, "--photos", directory, "--out", "embeddings")


def _arguments(directory: Path | None, scheme: str, *rest: str) -> tuple[Path, str, list[Path]]:
    """Return the folder, the scheme and its lists. `--scheme` takes all words after it, so DIR may be the last of them."""
    if scheme not in {*schemes.CUTS, "files"}:
        raise CommandError(f"--scheme must be one of {', '.join(schemes.CUTS)}, files, got {scheme!r}")
    paths = [Path(path) for path in rest]
    lists = len(PARTS) if scheme == "files" else 0
    if len(paths) < lists:
        raise CommandError(f"--scheme files needs three lists, for train, dev and test, got {len(paths)}")
    directories = [directory, *paths[lists:]] if directory else paths[lists:]
    if len(directories) != 1:
        raise CommandError(f"needs one folder of photos, DIR, got {', '.join(map(str, directories)) or 'none'}")
    return directories[0], scheme, paths[:lists]


def _read_makes(path: Path) -> frozenset[str]:
    """Return the makes in a file, one a line, normalised. Raise ArtifactError if it can't be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(path, f"no list of makes, one a line, in UTF-8: {error}") from error
    return frozenset(make for make in map(label_names.normalise, lines) if make)


def _label_remarks(collection: Collection, makes: frozenset[str]) -> Iterator[Remark]:
    """Yield labels that name the same car as an earlier label, those that can't be read in full, and words that may be a make."""
    cars = {name: label_names.read(name, makes) for name in collection.classes}
    first: dict[tuple[str, str, int | None], str] = {}
    for name, car in cars.items():
        known = first.setdefault(label_names.plain_car(car), name)
        if car.make and known != name:
            yield Remark(_folder_of(collection, name), f"the same make, model and year as {known!r}: votes divide")
    for name, car in cars.items():
        if car.problem:
            yield Remark(_folder_of(collection, name), car.problem)
    for make, count in label_names.doubtful_makes(collection.classes, makes).items():
        yield Remark(make, f"{count} labels begin so: if that is a make of two words, name it in a file for --makes")


def _folder_of(collection: Collection, label: str) -> str:
    return str(PurePosixPath(collection.classes[label][0]).parent)


def _left_out(collection: Collection) -> Iterator[Remark]:
    for each in collection.left_out:
        yield Remark(each.path, each.reason + (f" ({each.files} files)" if each.files > 1 else ""))


def _sizes(collection: Collection) -> str:
    return "".join(f"{name} {len(files)}\n" for name, files in collection.classes.items())


def _summary(out: Path, photos: Sequence[Photo]) -> str:
    counts = Counter(photo.split for photo in photos)
    names = len({photo.label.label for photo in photos})
    shown = [f"{counts[name]} {name}" for name in SPLITS if name in PARTS or counts[name]]
    return f"{out}: {len(photos)} photos of {names} labels: {', '.join(shown)}"


def _show(report: Sequence[Remark], path: Path) -> None:
    for remark in report[:_MOST_SHOWN]:
        print(f"'{shown(remark.path)}': {remark.reason}", file=sys.stderr)
    if len(report) > _MOST_SHOWN:
        print(f"and {len(report) - _MOST_SHOWN} more: {path}", file=sys.stderr)
