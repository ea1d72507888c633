"""Gathers pictures that show no car, to measure what the index says of them: `python -m bench.quality.not_cars DIR`, a new one.

They come from Debian packages (apt-get download, unpacked, not installed): wallpapers, and Tux Paint's stamps of animals, plants,
food, clothes and household things. Drawn ones, and anything of traffic, are left out. They stay where they are put, beside
a manifest.csv for `vmmr-embedder embed`; none belongs into this repository.
"""

import argparse
import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "gnome-backgrounds",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "sway-backgrounds",
    "tuxpaint-stamps-default",
    "ukui-wallpapers",
)
LEFT_OUT = {"screenshot", "cartoon", "symbols", "vehicles", "military", "town", "space", "naturalforces"}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LEAST_BYTES = 10_000
COLUMNS = ("path", "label", "make", "model", "year", "split")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        names = [name for package in PACKAGES for name in gather(package, Path(folder), out)]
    with (out / "manifest.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [COLUMNS, *((name, "no car", "", "", "", "test") for name in names)]
        )
    print(f"{out}: {len(names)} pictures")


def gather(package: str, work: Path, out: Path) -> Iterator[str]:
    """Copy a package's pictures to a folder of `out`. Return their paths from `out`."""
    subprocess.run(["apt-get", "download", "-qq", package], cwd=work, check=True)
    [archive] = work.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "-x", archive, work / package], check=True)
    (out / package).mkdir()
    for picture in sorted(pictures(work / package)):
        name = f"{package}/{'-'.join(picture.parts[-4:])}"
        shutil.copyfile(picture, out / name)
        yield name


def pictures(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = {*path.relative_to(folder).parts, path.stem}
        wanted = path.suffix.lower() in SUFFIXES and not LEFT_OUT & parts
        if wanted and path.is_file() and not path.is_symlink() and path.stat().st_size >= LEAST_BYTES:
            yield path


if __name__ == "__main__":
    main()
