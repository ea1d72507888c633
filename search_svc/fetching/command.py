"""`vmmr-search fetch`: a data set that others host, in the folders that `vmmr-search split` reads."""

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from search_svc.fetching import layouts, sources
from search_svc.fetching.download import DownloadError, download
from search_svc.fetching.sources import Dataset, Source
from search_svc.fetching.unpacking import Unpacked, unpack
from svckit.artifact import atomic_write, refuse_existing, sha256
from svckit.cli import CommandError, tell_next
from svckit.redaction import without_secrets

RECORD = "fetched.json"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "fetch",
        help="fetch a data set of labelled photos",
        description="Downloads a data set, or takes archives that are on the disk already, and lays its photos out as `split` reads"
        " them: DIR/<label>/<file>. What has arrived is kept: run it again, and it goes on where it was stopped.",
    )
    parser.add_argument("dataset", metavar="DATASET", choices=sorted(layouts.LAYOUTS), help="stanford-cars or vmmrdb")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the folder to make; must not be there")
    parser.add_argument(
        "--archive",
        metavar="FILE",
        nargs="+",
        type=Path,
        help="take these archives, folders that they were unpacked to, and files of annotations, in place of a download",
    )
    parser.add_argument(
        "--from", dest="source", metavar="SOURCE", help="the source to download from; else the first that answers"
    )
    parser.add_argument("--whole", action="store_true", help="keep photos whole, where they would be cut to their car")
    parser.add_argument(
        "--accept-terms", action="store_true", help="accept the data set's terms, in place of being asked"
    )
    parser.add_argument(
        "--sources",
        metavar="JSON",
        type=Path,
        default=sources.SHIPPED,
        help="sources, in place of those that vmmr knows",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    dataset = _dataset(args.sources, args.dataset)
    refuse_existing(args.directory)
    _accept_terms(dataset, accepted=args.accept_terms)
    origin: dict[str, object] = {"dataset": args.dataset}
    if args.archive:
        archives = args.archive
    else:
        source, archives = _download(args, dataset)
        origin |= {
            "source": source.name,
            "files": [_described(file.url, path) for file, path in zip(source.files, archives, strict=True)],
        }
    place = layouts.LAYOUTS[args.dataset](archives, whole=args.whole)
    done = unpack(archives, place, args.directory, partial(_finish, origin=origin))
    print(f"{args.directory}: {done.photos.total()} photos of {len(done.photos)} labels")
    _tell(args.directory, done, None if args.archive else archives[0].parent)


def _dataset(path: Path, name: str) -> Dataset:
    known = sources.read(path)
    if name not in known:
        raise CommandError(f"{path}: has no sources of {name}")
    return known[name]


def _accept_terms(dataset: Dataset, *, accepted: bool) -> None:
    """Show the terms, and return once they are accepted. Raise CommandError if they are not."""
    print(dataset.about, *dataset.terms, sep="\n", file=sys.stderr)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise CommandError("--accept-terms must be given where nobody can be asked")
    print("Do you accept these terms? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandError("the terms were not accepted: nothing was fetched")


def _download(args: argparse.Namespace, dataset: Dataset) -> tuple[Source, list[Path]]:
    """Return the first source that has everything, and its files, downloaded. Raise CommandError if none has."""
    failures = []
    for source in _wanted(dataset, args.source):
        folder = args.directory.with_name(f"{args.directory.name}.archives") / source.name
        print(f"from {source.name}: {source.about}", file=sys.stderr)
        _check_space(source, folder)
        try:
            return source, [download(file, folder) for file in source.files]
        except DownloadError as error:
            failures.append(f"{source.name}: {error}")
            print(failures[-1], file=sys.stderr)
    raise CommandError("\n  ".join([f"{args.dataset} could not be fetched", *failures, *_alternatives(dataset)]))


def _wanted(dataset: Dataset, name: str | None) -> list[Source]:
    if name is None:
        return [source for source in dataset.sources if source.gone is None]
    if found := [source for source in dataset.sources if source.name == name]:
        return found
    raise CommandError(f"--from must be one of {', '.join(source.name for source in dataset.sources)}, got {name!r}")


def _alternatives(dataset: Dataset) -> list[str]:
    gone = [f"{source.name} ({source.about}) {source.gone}" for source in dataset.sources if source.gone]
    by_hand = [f"by hand: {each}" for each in dataset.by_hand]
    return [*gone, *by_hand, "what you have of it, give with --archive FILE ..."]


def _check_space(source: Source, folder: Path) -> None:
    """Raise CommandError if what is missing of the archives, and the photos in them, surely don't fit on the disk."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    missing = sum(file.bytes or 0 for file in source.files if not (folder / file.name).exists())
    needed, free = missing + sum(file.bytes or 0 for file in source.files), shutil.disk_usage(there).free
    if needed > free:
        raise CommandError(
            f"{folder}: {needed >> 20} MiB are needed for archives and photos, and {free >> 20} MiB are free"
        )


def _described(url: str, path: Path) -> dict[str, object]:
    return {"url": without_secrets(url), "bytes": path.stat().st_size, "sha256": sha256(path)}


def _finish(folder: Path, done: Unpacked, *, origin: dict[str, object]) -> None:
    """Write beside the photos where they are from. Raise CommandError if there are none."""
    if not done.photos:
        raise CommandError(
            f"the archives hold no photo that can be taken: {_reasons(done) or 'none that is one of the data set'}"
        )
    about = {
        **origin,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "photos": done.photos.total(),
        "labels": len(done.photos),
        "left_out": dict(done.left_out.most_common()),
    }
    atomic_write(folder / RECORD, f"{json.dumps(about, indent=2)}\n".encode())


def _tell(directory: Path, done: Unpacked, downloads: Path | None) -> None:
    if done.left_out:
        print(f"{done.left_out.total()} photos left out: {_reasons(done)}", file=sys.stderr)
    if downloads:
        print(f"{downloads}: holds the archives, which are not needed any more", file=sys.stderr)
    tell_next("vmmr-search", "split", directory, "--out", "manifest.csv")


def _reasons(done: Unpacked) -> str:
    return "; ".join(f"{reason} ({count})" for reason, count in done.left_out.most_common())
