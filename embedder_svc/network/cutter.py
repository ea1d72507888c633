"""The part of each photo of a collection that is embedded: the main car, if the model has a detector, or the whole photo."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network import cars
from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.cars import WHOLE, Cut, Subject
from embedder_svc.network.detector import Detector, View
from embedder_svc.network.model import Model
from embedder_svc.photos import preprocess
from embedder_svc.photos.photo_files import LIMITS
from embedder_svc.photos.preprocess import Decoded
from svckit.cli import CommandError

COLUMNS = ("left", "top", "right", "bottom", "car_score", "no_car_found", "cars")
"""The columns of items.csv that say which part of the photo an embedding is of, and how many cars were found in the photo."""
_NO_CAR_FOUND = COLUMNS.index("no_car_found")

Part = tuple[NDArray[np.uint8], list[str]]
"""Pixels (side, side, 3) for the network, and the cells of COLUMNS; none if the model has no detector."""


def refuse_columns(columns: Sequence[str]) -> None:
    """Raise CommandError if a manifest with these columns has one of COLUMNS: what it says would be taken for what was found here."""
    if taken := [name for name in COLUMNS if name in columns]:
        raise CommandError(
            f"the manifest has a column `{taken[0]}` already, which in items.csv says what was found in the photo: rename it"
        )


@dataclass(frozen=True)
class Cutting:
    """What of each photo is embedded, as far as it is known without a network in memory."""

    subject: str
    """`whole` or `main car`."""
    columns: Sequence[str]
    """Those of COLUMNS that items.csv has: none if the model has no detector."""

    @classmethod
    def of(cls, info: BundleInfo, *, whole: bool) -> Self:
        subject = Subject.MAIN_CAR if info.detector and not whole else Subject.WHOLE
        return cls(subject.value, COLUMNS if info.detector else ())

    def counts(self, cuts: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Return the entries of the artifact's manifest that say how its photos were cut; `cuts` has the cells of each."""
        if not self.columns:
            return {}
        boxes = [cells[:4] for cells in cuts]
        whole = _edges(Cut(WHOLE))
        return {
            "subject": self.subject,
            "cut": sum(box != whole for box in boxes),
            "no_car_found": sum(cells[_NO_CAR_FOUND] == "true" for cells in cuts),
        }


class Cutter:
    """Makes of a photo the part that is embedded, with the code that the server runs. `part` may be called from several threads."""

    def __init__(self, model: Model, *, whole: bool) -> None:
        self.model = model
        self._resize = model.info.resizing
        self._whole = Cutting.of(model.info, whole=whole).subject == Subject.WHOLE.value

    def part(self, content: bytes) -> Part:
        """Return the part of an encoded photo. Raise PhotoError."""
        if self.model.detector is None:
            return preprocess.decode(content, resize=self._resize, limits=LIMITS), []
        if self._whole:
            return preprocess.decode(content, resize=self._resize, limits=LIMITS), _cells(Cut(WHOLE), cars_found=None)
        return _main_car(Decoded(content, resize=self._resize, limits=LIMITS), self.model.detector)


def _main_car(photo: Decoded, detector: Detector) -> Part:
    (found,) = detector.find([View(photo.view(detector.info.input_size), photo.size)])
    (cut,) = cars.cuts(found[:1], photo.size, detector.info)
    return photo.cut(cut.box), _cells(cut, cars_found=len(found))


def _cells(cut: Cut, *, cars_found: int | None) -> list[str]:
    """Return the cells of COLUMNS. `cars_found` is None if no car was looked for."""
    score = "" if cut.car_score is None else f"{cut.car_score:.9g}"
    found = "" if cars_found is None else str(cars_found)
    return [*_edges(cut), score, "true" if cut.no_car_found else "false", found]


def _edges(cut: Cut) -> list[str]:
    """Return the edges of a part with as many digits as a float32 has, so that they name the same pixels."""
    return [f"{edge:.9g}" for edge in astuple(cut.box)]
