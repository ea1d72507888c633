"""`vmmr-embedder fetch`: bring a model bundle from where fsspec can read, whole and verified, or not at all."""

import argparse
from pathlib import Path, PurePosixPath

import fsspec

from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo
from svckit.artifact import ArtifactError, atomic_directory, read_sealed
from svckit.cli import CommandError
from svckit.redaction import without_secrets


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "fetch",
        help="bring a model bundle from object storage",
        description="Copies a model bundle from a path, or a URL that fsspec can read (for example s3://bucket/model, with s3fs "
        "installed), and verifies every file. A bundle that is there already is verified and kept.",
    )
    parser.add_argument("source", metavar="SOURCE", help="the bundle: a path or a URL")
    parser.add_argument("model", metavar="BUNDLE", type=Path, help="directory to make")
    parser.set_defaults(run=_run)


def fetch(source: str, model: Path) -> BundleInfo:
    """Copy a bundle to a directory, unless it is there, and return what it is.

    Raise ArtifactError naming the file that is damaged, CommandError if the source can't be read.
    """
    if not model.exists():
        with atomic_directory(model) as draft:
            _copy(source, draft)
    return bundle.read(model)


def _copy(source: str, draft: Path) -> None:
    shown = without_secrets(source)
    try:
        files, root = fsspec.url_to_fs(source)
    except (ValueError, ImportError) as error:
        raise CommandError(without_secrets(f"{shown}: {error}")) from error

    def get(name: str) -> None:
        try:
            files.get_file(f"{root.rstrip('/')}/{name}", str(draft / name))
        except FileNotFoundError as error:
            raise CommandError(f"{shown}/{name}: is missing") from error
        except OSError as error:
            raise CommandError(without_secrets(f"{shown}/{name}: {error.strerror or error}")) from error
        except Exception as error:  # each library that fsspec uses has errors of its own
            raise CommandError(without_secrets(f"{shown}/{name}: {type(error).__name__}: {error}")) from error

    get(bundle.DESCRIPTION)
    for name in _listed(draft, shown):
        get(name)
    try:
        bundle.read(draft)
    except ArtifactError as error:
        raise CommandError(f"{shown}/{error.path.name}: {error.reason}") from error


def _listed(draft: Path, source: str) -> list[str]:
    """Return the names of the bundle's other files. Raise CommandError if its description is damaged, or names others than its own."""
    try:
        names = [*read_sealed(draft / bundle.DESCRIPTION).get("files", ())]
    except ArtifactError as error:
        raise CommandError(f"{source}/{bundle.DESCRIPTION}: {error.reason}") from error
    for name in names:
        if PurePosixPath(name).name != name:
            raise CommandError(f"{source}/{bundle.DESCRIPTION}: lists {name!r}, which is outside of the bundle")
    return names


def _run(args: argparse.Namespace) -> None:
    info = fetch(args.source, args.model)
    print(f"{args.model}: {info.name}, {info.fingerprint[:12]}")
