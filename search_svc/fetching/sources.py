"""Where data sets can be had: a file of sources and mirrors, one that comes with vmmr or one of the user's."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from svckit.artifact import ArtifactError, read_object

SHIPPED = Path(__file__).with_name("sources.json")

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file that is hosted somewhere."""

    name: str
    """Its name once it is here."""
    url: str
    bytes: int | None
    """Its exact size; None if that is not known."""
    sha256: str | None
    """None if that is not known."""


@dataclass(frozen=True)
class Source:
    """One place that hosts a whole data set."""

    name: str
    about: str
    gone: str | None
    """How it answers today, if it has gone; it is then used only by its name."""
    files: Sequence[RemoteFile]


@dataclass(frozen=True)
class Dataset:
    about: str
    terms: Sequence[str]
    sources: Sequence[Source]
    """Where to have it, the best first."""
    by_hand: Sequence[str]
    """Where it is for people with a browser or an account."""


def read(path: Path) -> Mapping[str, Dataset]:
    """Return the data sets of a file of sources, by name. Raise ArtifactError if it can't be read, or says something that makes no sense."""
    content = read_object(path)
    try:
        return {name: _dataset(fields) for name, fields in content.items()}
    except (KeyError, TypeError, ValueError) as error:
        what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(path, f"is no file of sources: {what}") from error


def _dataset(fields: Mapping[str, Any]) -> Dataset:
    sources = tuple(map(_source, fields["sources"]))
    return Dataset(fields["about"], tuple(fields["terms"]), sources, tuple(fields["by_hand"]))


def _source(fields: Mapping[str, Any]) -> Source:
    return Source(fields["name"], fields["about"], fields.get("gone"), tuple(map(_file, fields["files"])))


def _file(fields: Mapping[str, Any]) -> RemoteFile:
    file = RemoteFile(fields["name"], fields["url"], fields["bytes"], fields["sha256"])
    if not file.name or Path(file.name).name != file.name or file.name.startswith("."):
        raise ValueError(f"the name {file.name!r} is not that of a file")
    if urlsplit(file.url).scheme not in ("http", "https"):
        raise ValueError(f"{file.url!r} is not an http:// or https:// URL")
    if file.bytes is not None and not (isinstance(file.bytes, int) and file.bytes > 0):
        raise ValueError(f"{file.bytes!r} is no size")
    if file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"{file.sha256!r} is no sha256")
    return file
