"""`manifest.csv`: the photos of a collection, one a line, with their labels and splits."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmmr.label_names import canonical

from search_svc.dataset.csv_files import Row, read_rows, text_of
from search_svc.voting.labels import Label, first_contradiction
from svckit.artifact import ArtifactError, atomic_write
from svckit.cli import CommandError
from svckit.manifests import SPLITS, Split, fault, number

COLUMNS = ("path", "label", "make", "model", "year", "split")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the collection."""

    path: str
    """The path relative to the folder of the collection, with `/`."""
    label: Label
    split: Split
    no_car_found: bool = False
    """The embedder looked for a car and found none; False also where it is not known."""
    cars: int | None = None
    """How many cars the embedder found; None where it is not known."""


def split_names(names: str) -> set[str]:
    """Return the splits of a list like `dev,test`. Raises CommandError if one of the names is not a split."""
    splits = set(names.split(","))
    if unknown := sorted(splits - set(SPLITS)):
        raise CommandError(f"--split must be of {', '.join(SPLITS)}, got {unknown[0]!r}")
    return splits


def write(path: Path, photos: Iterable[Photo]) -> None:
    atomic_write(path, text_of(COLUMNS, map(_row, photos)).encode())


def read(path: Path) -> list[Photo]:
    """Read the photos; columns beyond `COLUMNS` are ignored, but for `no_car_found` and `cars`, which `items.csv` may have.

    Raises ArtifactError, with the line, if something is wrong: also if two photos of one label differ in make, model or
    year.
    """
    lines = dict(_photos(path))
    _check_labels(path, lines)
    return list(lines.values())


def _row(photo: Photo) -> tuple[str, ...]:
    label = photo.label
    year = "" if label.year is None else str(label.year)
    return (photo.path, label.label, label.make, label.model, year, photo.split)


def _photos(path: Path) -> Iterator[tuple[int, Photo]]:
    """Yield each photo with the number of its line."""
    labels: dict[Label, Label] = {}
    for line, row in read_rows(path, COLUMNS):
        try:
            yield line, _photo(row, labels)
        except ValueError as error:
            raise ArtifactError(path, f"line {line}: {error}") from error


def _check_labels(path: Path, lines: Mapping[int, Photo]) -> None:
    if places := first_contradiction(photo.label for photo in lines.values()):
        numbers, photos = list(lines), list(lines.values())
        one, other = (f"{photos[place].label.car} in line {numbers[place]}" for place in places)
        raise ArtifactError(path, f"the label {photos[places[0]].label.label!r} has {one}, but {other}")


def _photo(row: Row, labels: dict[Label, Label]) -> Photo:
    """Return the photo of a row. Raises ValueError if a value is wrong.

    Equal labels become one object, kept in `labels`, and so do the names of splits: there may be millions of photos.
    """
    values = [row[column] for column in COLUMNS]
    path, label, make, model, year, split = values
    if None in values or not path or not label:
        raise ValueError("needs a path, a label and every other column")
    if (within := PurePosixPath(path)).is_absolute() or ".." in within.parts:
        raise ValueError(f"path must lead to a file within the folder of photos, got {path!r}")
    if problem := fault(row):
        raise ValueError(problem)
    car = Label(canonical(label), canonical(make or ""), canonical(model or ""), number(year))
    return Photo(
        path,
        labels.setdefault(car, car),
        next(known for known in SPLITS if known == split),
        no_car_found=(row.get("no_car_found") or "").lower() == "true",
        cars=number(row.get("cars")),
    )
