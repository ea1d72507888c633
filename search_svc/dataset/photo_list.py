"""`manifest.csv`: the photos of a collection, one a line, with their labels and splits."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from search_svc.voting.labels import Label, first_contradiction
from svckit.artifact import ArtifactError, atomic_write
from svckit.cli import CommandError

Split = Literal["train", "dev", "test", "unseen-dev", "unseen-test"]
"""The unseen ones hold all photos of their labels: cars that no gallery of the others knows."""
SPLITS: tuple[Split, ...] = get_args(Split)
COLUMNS = ("path", "label", "make", "model", "year", "split")


@dataclass(frozen=True, slots=True)
class Photo:
    """A line. Its strings are printable."""

    path: str
    """Relative to the folder of the collection, with `/`."""
    label: Label
    split: Split


def split_names(names: str) -> set[str]:
    """Of a list with commas, as --split takes it. Raises CommandError if one is none."""
    splits = set(names.split(","))
    if unknown := sorted(splits - set(SPLITS)):
        raise CommandError(f"--split must be of {', '.join(SPLITS)}, got {unknown[0]!r}")
    return splits


def write(path: Path, photos: Iterable[Photo]) -> None:
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(COLUMNS)
    for photo in photos:
        label = photo.label
        year = "" if label.year is None else label.year
        writer.writerow((photo.path, label.label, label.make, label.model, year, photo.split))
    atomic_write(path, content.getvalue().encode())


def read(path: Path) -> list[Photo]:
    """Columns beyond `COLUMNS` are passed over. Raises ArtifactError, with the line, if something is wrong.

    All photos of one label have one make, model and year.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = dict(_photos(path, csv.DictReader(file)))
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(path, f"not a CSV file in UTF-8: {error}") from error
    _check_labels(path, lines)
    return list(lines.values())


def _photos(path: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[int, Photo]]:
    """Each with the number of its line."""
    if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
        raise ArtifactError(path, f"has no column {', '.join(missing)}")
    labels: dict[Label, Label] = {}
    for row in reader:
        try:
            yield reader.line_num, _photo(row, labels)
        except ValueError as error:
            raise ArtifactError(path, f"line {reader.line_num}: {error}") from error


def _check_labels(path: Path, lines: Mapping[int, Photo]) -> None:
    if places := first_contradiction(photo.label for photo in lines.values()):
        numbers, photos = list(lines), list(lines.values())
        one, other = (f"{photos[place].label.car} in line {numbers[place]}" for place in places)
        raise ArtifactError(path, f"the label {photos[places[0]].label.label!r} has {one}, but {other}")


def _photo(row: Mapping[str, str | None], labels: dict[Label, Label]) -> Photo:
    """Photos share the `labels` that are equal, and the names of splits: there may be millions."""
    values = [row[column] for column in COLUMNS]
    path, label, make, model, year, split = values
    if None in values or not path or not label:
        raise ValueError("needs a path, a label and every other column")
    if (within := PurePosixPath(path)).is_absolute() or ".." in within.parts:
        raise ValueError(f"path must lead to a file within the folder of photos, got {path!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if year and not year.isdecimal():
        raise ValueError(f"year must be a number or nothing, got {year!r}")
    car = Label(label, make or "", model or "", int(year) if year else None)
    return Photo(path, labels.setdefault(car, car), SPLITS[SPLITS.index(split)])
