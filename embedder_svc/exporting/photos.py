"""The photos of an export: int8 is calibrated on some, a head is fitted to all, and parity is measured on others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from embedder_svc.photos import photo_files
from embedder_svc.photos.photo_files import Pixels
from svckit.cli import progress

PARITY_PHOTOS = 64
_BATCH = 8


@dataclass(frozen=True)
class Photos:
    all: list[Path]
    labels: list[str] | None
    """The labels of `all`; None for a folder, or a manifest without the column."""
    calibration: list[Path]
    parity: list[Path]

    @classmethod
    def choose(cls, source: Path, folder: Path | None, count: int) -> Self:
        """Choose `count` photos for the calibration, spread over those of `source`, and others for parity.

        If the calibration takes all photos, parity is measured on the same ones.
        """
        paths = photo_files.find(source, folder)
        calibration = photo_files.spread(paths, count)
        chosen = set(calibration)
        others = [path for path in paths if path not in chosen]
        parity = photo_files.spread(others or calibration, PARITY_PHOTOS)
        return cls(paths, photo_files.labels(source), calibration, parity)


def batches(paths: Sequence[Path], read: Callable[[bytes], Pixels], step: str) -> Iterator[Pixels]:
    """Yield the pixels of the photos, as `read` makes them, some at a time, with a progress bar that names the step."""
    with progress(total=len(paths), desc=step, unit="photo") as bar:
        for batch in photo_files.batches(paths, read, _BATCH):
            yield batch
            bar.update(len(batch))
