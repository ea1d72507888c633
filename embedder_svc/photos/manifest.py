"""`manifest.csv`: one photo a line. Embedding uses the column `path` alone; the other columns are checked, and handed on as they are."""

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from vmmr.label_names import canonical

from svckit import manifests
from svckit.artifact import ArtifactError


@dataclass(frozen=True)
class Manifest:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each row has as many cells as there are columns."""
    sha256: str
    """The sha256 of the file."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest. Raise ArtifactError, with the number of the photo, if a row is wrong or a path is there twice."""
        try:
            content = path.read_bytes()
            columns, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        except OSError as error:
            raise ArtifactError(path, error.strerror or str(error)) from error
        except (ValueError, csv.Error) as error:
            raise ArtifactError(path, f"not a CSV file in UTF-8 with a line of column names: {error}") from error
        manifest = cls(tuple(columns), tuple(tuple(row) for row in rows if row), hashlib.sha256(content).hexdigest())
        manifest._check(path)
        return manifest

    @property
    def paths(self) -> tuple[str, ...]:
        """The photos' paths, relative to the folder of the collection, with `/`. None leaves it."""
        return self.column("path")

    def column(self, name: str) -> tuple[str, ...]:
        number = self.columns.index(name)
        return tuple(row[number] for row in self.rows)

    def _check(self, path: Path) -> None:
        if "path" not in self.columns:
            raise ArtifactError(path, f"has no column `path`; it has {', '.join(self.columns)}")
        if not self.rows:
            raise ArtifactError(path, "lists no photos")
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ArtifactError(path, f"photo {number} has {len(row)} columns, there are {len(self.columns)}")
        seen: set[str] = set()
        for number, name in enumerate(self.paths, start=1):
            if not name or name in seen:
                raise ArtifactError(path, f"photo {number}: its path is {f'there twice: {name}' if name else 'empty'}")
            if PurePosixPath(name).is_absolute() or ".." in re.split(
                r"[/\\]", name
            ):  # to some storage a backslash is a slash
                raise ArtifactError(path, f"photo {number}: its path leaves the folder of photos: {name}")
            seen.add(name)
        self._check_cars(path)

    def _check_cars(self, path: Path) -> None:
        """Raise ArtifactError if a row says what the steps after this one refuse: all would have to be embedded again."""
        cars: dict[str, tuple[int, tuple[str | None, ...]]] = {}
        for number, cells in enumerate(self.rows, start=1):
            row = dict(zip(self.columns, cells, strict=True))
            if problem := manifests.fault(row):
                raise ArtifactError(path, f"photo {number}: {problem}")
            if label := canonical(row.get("label", "")):
                car = (canonical(row.get("make", "")), canonical(row.get("model", "")), row.get("year"))
                first, other = cars.setdefault(label, (number, car))
                if (car[:2], manifests.number(car[2])) != (other[:2], manifests.number(other[2])):
                    raise ArtifactError(
                        path,
                        f"photo {number}: the label {label!r} has another make, model or year than in photo {first}",
                    )
