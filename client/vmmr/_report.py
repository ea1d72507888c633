"""What the `vmmr` command prints."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from vmmr._errors import CallError, VmmrError
from vmmr._types import Identification, Info, LabelCount, Neighbour


def json_line(**fields: Any) -> str:
    """An object on one line. Float32 values lose the digits that they never had."""
    return json.dumps(_rounded(fields), default=str, ensure_ascii=False)


def error_fields(error: VmmrError) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, CallError):
        fields |= {"status": error.status, "reason": error.reason, "request_id": error.request_id}
        fields["violations"] = [asdict(violation) for violation in error.violations]
    return fields


def identification_heading(width: int) -> str:
    return f"{'PHOTO':{width}}  MAKE  MODEL  LABEL  NEAREST  ANSWER"


def identification_line(name: str, found: Identification, width: int) -> str:
    """The answer, how much of the vote it had by level, and the score of the nearest photo: far from everything, a vote
    means little. The columns are as wide for every photo.
    """
    answer = "no gallery photo to compare with" if found.answer is None else str(found.answer)
    shares = f"{found.make_confidence:4.0%}  {found.model_confidence:5.0%}  {found.label_confidence:5.0%}"
    nearest = f"{found.neighbours[0].score:7.3f}" if found.neighbours else f"{'-':>7}"
    return f"{name:{width}}  {shares}  {nearest}  {answer}"


def neighbour_lines(neighbours: Iterable[Neighbour]) -> list[str]:
    rows = [(f"{n.score:.4f}", str(n.label), n.uri or n.item_id) for n in neighbours]
    return [f"  {line}" for line in table(rows)]


def info_lines(info: Info) -> list[str]:
    sections = {"model": asdict(info.model), "index": asdict(info.index)}
    return table(
        [
            (f"{section} {name.replace('_', ' ')}", str(_rounded(entry)))
            for section, fields in sections.items()
            for name, entry in (fields | fields.pop("limits")).items()
        ]
    )


def label_lines(labels: Iterable[LabelCount]) -> list[str]:
    rows = [
        (entry.label.label, entry.label.make, entry.label.model, _year(entry), str(entry.items)) for entry in labels
    ]
    return table([("LABEL", "MAKE", "MODEL", "YEAR", "PHOTOS"), *rows])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _year(entry: LabelCount) -> str:
    return "-" if entry.label.year is None else str(entry.label.year)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
