"""Makes a folder of drawn photos, with a subfolder for each class, unless it is there already."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from demo.drawn_cars import LABELS, jpeg
from svckit.artifact import ArtifactError, atomic_directory, read_manifest, write_manifest
from svckit.cli import CommandError, progress

MAX_PHOTOS = 1000

_KIND = "drawn cars"
_MANIFEST = ".drawn.json"


def provide(out: Path, *, classes: int, photos: int, seed: int) -> None:
    """Make `out` hold `photos` photos of each of the first `classes` classes.

    Nothing is drawn if the folder is complete already; if it is incomplete, damaged, or was drawn by other code, all of it is
    drawn again. Raises CommandError if a number is out of bounds, or `out` holds something that was not drawn here.
    """
    _check("classes", classes, 1, len(LABELS))
    _check("photos", photos, 1, MAX_PHOTOS)
    _check("seed", seed, 0, 2**32 - 1)
    wanted = {"kind": _KIND, "classes": classes, "photos": photos, "seed": seed, "drawn_by": _fingerprint()}
    if not _is_there(out, wanted):
        _clear(out)
        _draw_all(out, wanted)


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise CommandError(f"{name} must be from {least} to {most}, got {value}")


def _is_there(out: Path, wanted: dict[str, Any]) -> bool:
    try:
        found = read_manifest(out, _MANIFEST)
    except ArtifactError:
        return False
    return {name: found.get(name) for name in wanted} == wanted


def _clear(out: Path) -> None:
    """Remove what was drawn before. Raises CommandError if there is anything else."""
    if not out.exists():
        return
    if any(out.iterdir()) and not _is_ours(out):
        raise CommandError(f"{out}: exists, and was not drawn by this command; choose another folder")
    shutil.rmtree(out)


def _is_ours(out: Path) -> bool:
    try:
        return f'"kind": "{_KIND}"' in (out / _MANIFEST).read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _draw_all(out: Path, wanted: dict[str, Any]) -> None:
    labels = LABELS[: wanted["classes"]]
    with (
        atomic_directory(out) as draft,
        progress(total=len(labels) * wanted["photos"], desc="draw", unit="photo") as bar,
    ):
        for label in labels:
            (draft / label).mkdir()
            for number in range(wanted["photos"]):
                (draft / label / f"{number:03}.jpg").write_bytes(jpeg(label, wanted["seed"] * MAX_PHOTOS + number))
                bar.update()
        write_manifest(draft, wanted, _MANIFEST)


def _fingerprint() -> str:
    """Return a hash of the code that draws, so that photos that other code drew are not reused."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
