"""CSV files with a heading: how they are read, with errors that name the file and the line, and how they are written."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from svckit.artifact import ArtifactError

Row = Mapping[str, str | None]


def read_rows(path: Path, columns: Sequence[str], *, strict: bool = False) -> Iterator[tuple[int, Row]]:
    """Yield each row with the number of its line. Other columns than `columns` may be there.

    `strict` also refuses quotation marks that CSV does not allow. Raises ArtifactError if the file cannot be read, is not
    CSV in UTF-8, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=strict)
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise ArtifactError(path, f"has no column {', '.join(missing)}")
            yield from ((reader.line_num, row) for row in reader)
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(path, f"not a CSV file in UTF-8: {error}") from error


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Return whether the file has all of these columns, rather than none. Raises ArtifactError if it has some of them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = set(next(csv.reader(file), ())) & set(columns)
    except OSError as error:
        raise ArtifactError(path, error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(path, f"not a CSV file in UTF-8: {error}") from error
    if found and (missing := [column for column in columns if column not in found]):
        raise ArtifactError(path, f"has no column {', '.join(missing)} beside {', '.join(sorted(found))}")
    return bool(found)


def text_of(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return the text of a CSV file with these columns and rows."""
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return content.getvalue()
