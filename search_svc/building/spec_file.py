"""Spec files: `vmmr-search select` writes what it chose, and `vmmr-search build --spec` reads it.

A spec file is a JSON object with the `FIELDS`, of which only `factory` is required (null counts as not given), and with
`reason`, which is for people.
"""

from pathlib import Path
from typing import Any, get_args

from search_svc.index.version import Metric
from svckit.artifact import ArtifactError, read_object

FIELDS = ("factory", "metric", "nprobe", "ef_search", "rerank")
_NUMBERS = FIELDS[2:]


def read(path: Path) -> dict[str, Any]:
    """Return the fields of an IndexSpec that the file gives. Raises ArtifactError if it is no spec file."""
    content = read_object(path)
    if content.get("factory") is None:
        raise ArtifactError(path, "is not an index spec: has no `factory`; `vmmr-search select` writes one")
    if unknown := sorted(content.keys() - {*FIELDS, "reason"}):
        raise ArtifactError(path, f"has a field {unknown[0]!r} that no index spec has: those are {', '.join(FIELDS)}")
    given = {name: value for name, value in content.items() if name != "reason" and value is not None}
    for name, value in given.items():
        if problem := _problem(name, value):
            raise ArtifactError(path, f"{name} must be {problem}, got {value!r}")
    return given


def _problem(name: str, value: object) -> str | None:
    """Return what the value must be if it is of the wrong kind, or None. Ranges are checked with the spec."""
    if name in _NUMBERS:
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number, or null"
    if name == "metric":
        return None if value in get_args(Metric) else f"one of {', '.join(get_args(Metric))}"
    return None if isinstance(value, str) else "a string"
