"""What is known of Stanford Cars' photos: the class of each, the part that it is of, and the box around the car.

The data set goes around with its annotations in three forms: the devkit's `cars_train_annos.mat` and
`cars_test_annos_withlabels.mat` beside `cars_meta.mat`; `cars_annos.mat`, which numbers all photos anew, in a folder `car_ims`; and
`anno_train.csv`, `anno_test.csv` and `names.csv`, for photos in folders of classes.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from svckit.cli import CommandError
from svckit.extras import needing

Box = tuple[int, int, int, int]
"""Left and top pixel of the car, and the first ones to its right and below it."""
Key = tuple[str, str]
"""The folder that a photo lies in, and its name; of photos in folders of classes the folder around these."""

FILES = frozenset(
    {
        "anno_test.csv",
        "anno_train.csv",
        "cars_annos.mat",
        "cars_meta.mat",
        "cars_test_annos_withlabels.mat",
        "cars_train_annos.mat",
        "names.csv",
    }
)
"""The files that have annotations, wherever they lie."""
MOST_BYTES = 4 << 20
"""Bytes of one of them; the largest has 394,471."""

_PARTS = {"cars_train_annos.mat": "train", "cars_test_annos_withlabels.mat": "test"}
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Annotation:
    label: str
    part: str
    """The official part that the photo is of: `train` or `test`."""
    box: Box


def label_of(name: str) -> str:
    """Return the label of a class, as the gallery that ships has it: `Acura TL Type-S 2008` is `acura_tl_type_s_2008`."""
    return _NOT_A_WORD.sub("_", name.lower()).strip("_")


def read(files: Mapping[str, bytes]) -> dict[Key, Annotation]:
    """Return what the files of these names and contents say of each photo. Raise CommandError if one can't be read."""
    found: dict[Key, Annotation] = {}
    if "cars_annos.mat" in files:
        found |= _of_all(_matlab(files, "cars_annos.mat"))
    for name, part in _PARTS.items():
        if name in files:
            labels = _labels(_matlab(files, "cars_meta.mat"), "cars_meta.mat")
            found |= _of_part(_matlab(files, name), name, labels, part)
    for part in ("train", "test"):
        if f"anno_{part}.csv" in files:
            found |= _of_table(files, part)
    return found


def _of_all(content: Mapping[str, Any]) -> Iterator[tuple[Key, Annotation]]:
    name = "cars_annos.mat"
    labels = _labels(content, name)
    with _making_sense(name):
        for row in np.atleast_1d(content["annotations"]):
            part = "test" if int(row["test"]) else "train"
            path = PurePosixPath(str(row["relative_im_path"]))
            yield (path.parent.name, path.name), Annotation(_label(labels, row["class"]), part, _box(row))


def _of_part(
    content: Mapping[str, Any], name: str, labels: Sequence[str], part: str
) -> Iterator[tuple[Key, Annotation]]:
    with _making_sense(name):
        for row in np.atleast_1d(content["annotations"]):
            yield (f"cars_{part}", str(row["fname"])), Annotation(_label(labels, row["class"]), part, _box(row))


def _of_table(files: Mapping[str, bytes], part: str) -> Iterator[tuple[Key, Annotation]]:
    name = f"anno_{part}.csv"
    if "names.csv" not in files:
        raise CommandError(f"{name} is there without names.csv, which has the names of its classes")
    labels = [label_of(row[0]) for row in _rows(files["names.csv"], "names.csv")]
    rows = _rows(files[name], name)
    with _making_sense(name):
        for file, *numbers in rows[_has_heading(rows) :]:
            left, top, right, bottom, car = map(int, numbers)
            yield (part, file), Annotation(_label(labels, car), part, (left - 1, top - 1, right, bottom))


def _has_heading(rows: Sequence[Sequence[str]]) -> bool:
    return bool(rows) and not any(cell.strip().isdecimal() for cell in rows[0][1:])


def _label(labels: Sequence[str], number: Any) -> str:
    if not 1 <= int(number) <= len(labels):
        raise ValueError(f"class {number} is none of the {len(labels)} that have a name")
    return labels[int(number) - 1]


@contextmanager
def _making_sense(name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CommandError(f"{name}: is not what Stanford Cars' file of that name is: {error}") from error


def _rows(content: bytes, name: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{name}: is not CSV in UTF-8: {error}") from error


def _labels(content: Mapping[str, Any], name: str) -> list[str]:
    with _making_sense(name):
        return [label_of(str(car)) for car in np.atleast_1d(content["class_names"])]


def _box(row: Mapping[str, Any]) -> Box:
    """Return the box; MATLAB counts pixels from 1, and the last ones are in it."""
    return int(row["bbox_x1"]) - 1, int(row["bbox_y1"]) - 1, int(row["bbox_x2"]), int(row["bbox_y2"])


def _matlab(files: Mapping[str, bytes], name: str) -> Mapping[str, Any]:
    if name not in files:
        raise CommandError(f"the annotations need {name}, too")
    with needing("matlab", CommandError, "Stanford Cars' annotations are MATLAB files, and {library} is not installed"):
        from scipy.io import loadmat  # noqa: PLC0415 - nobody else needs it
    try:
        content: Mapping[str, Any] = loadmat(io.BytesIO(files[name]), squeeze_me=True)
    except Exception as error:  # on damaged bytes scipy raises nearly anything
        raise CommandError(f"{name}: is no MATLAB file that can be read: {error}") from error
    return content
