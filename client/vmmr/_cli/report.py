"""Format and print what the `vmmr` command shows."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from vmmr._errors import CallError, InvalidPhotoError, InvalidRequestError, PhotoError, VmmrError
from vmmr._mistaken import shortened
from vmmr._served import Info, LabelCount
from vmmr._types import Box, Cut, Detection, Identification, Neighbour
from vmmr.photo_names import shown

_FLAGS = {
    "filter.makes": "--make",
    "filter.models": "--model",
    "filter.labels": "--label",
    "filter.min_year": "--min-year",
    "filter.max_year": "--max-year",
    "options.filter.makes": "--make",
    "options.filter.models": "--model",
    "options.filter.labels": "--label",
    "options.filter.min_year": "--min-year",
    "options.filter.max_year": "--max-year",
    "options.k": "--k",
    "options.nprobe": "--nprobe",
    "options.ef_search": "--ef-search",
    "options.rerank": "--rerank",
    "options.shard_timeout_ms": "--shard-timeout",
    "min_confidence": "--min-confidence",
}
"""The flags for the fields of a request."""

_ONE_MODEL = (
    "have the embedder serve that of the index, or embed the gallery anew for the embedder's with `vmmr-search migrate`"
)

_WORDS = {
    "allow_private=True permits": "--allow-private permits",
    "give cert and key of tls": "give --tls-cert and --tls-key",
    "give both cert and key, or neither": "give both --tls-cert and --tls-key, or neither",
    "connect without tls,": "connect without --tls,",
    "give the ca that signed it": "give the CA that signed it with --tls-ca",
    "give tls": "give --tls or --tls-ca",
    "give vmmr.URL(...), which fetches it": "give it as it is",
    "give the photos in it": "give the photos in it, FOLDER/*.jpg",
}
"""What a program is told to give, in the words of the command line."""


def json_line(**fields: Any) -> str:
    """Return a JSON object on one line. Numbers are rounded to the digits that a float32 has."""
    return json.dumps(_rounded(fields), default=str, ensure_ascii=False)


def show(text: str) -> None:
    """Print and flush, so that a program that reads a pipe gets each answer when it is there."""
    print(text, flush=True)


def photo_error(name: str, error: PhotoError, *, as_json: bool) -> None:
    """Print the error of a photo on standard error, or as a JSON object among the others.

    Of a call, it must have been the only photo.
    """
    if isinstance(error, InvalidPhotoError) and error.photos:
        error = error.of(0)
    if as_json:
        show(json_line(photo=name, error=error_fields(error)))
    else:
        short = shortened(name)
        said = in_flags(str(error).removeprefix("photos[0]: ").removeprefix(f"{short}: "))
        print(f"vmmr: {shown(short)}: {said}", file=sys.stderr)


def error_fields(error: VmmrError) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, CallError):
        fields |= {"status": error.status, "reason": error.reason, "request_id": error.request_id}
        fields["violations"] = [asdict(violation) for violation in error.violations]
    return fields


def explained(error: VmmrError) -> str:
    """Return the error's message, with flags in place of fields if flags for all of them exist, and when to try again if that is known."""
    retry_after_s = error.retry_after_s if isinstance(error, CallError) else None
    when = "" if retry_after_s is None else f"; try again in {_duration(retry_after_s)}"
    return _with_flags(error) + when


def _with_flags(error: VmmrError) -> str:
    violations = error.violations if isinstance(error, InvalidRequestError) else ()
    if not violations or not all(violation.field in _FLAGS for violation in violations):
        return in_flags(str(error))
    return "; ".join(f"{_FLAGS[v.field]}: {v.description or v.reason}" for v in violations)


def _duration(seconds: float) -> str:
    """Return a duration for people, rounded up: who comes too soon is refused again."""
    for unit, length in (("hour", 3600), ("minute", 60)):
        if seconds > 2 * length:
            return f"{math.ceil(seconds / length)} {unit}s"
    count = max(1, math.ceil(seconds))
    return f"{count} second{'s' if count > 1 else ''}"


def in_flags(said: str) -> str:
    """Return a message of the client with the command's flags in place of the names that programs use."""
    for name, flag in _WORDS.items():
        said = said.replace(name, flag)
    return said


def mistake(error: OSError | ValueError) -> str:
    """Return, for people, what makes no sense in a command line: of a file, its name and what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return in_flags(str(error))


def identification_heading(width: int) -> str:
    return f"{'PHOTO':{width}}  MAKE  MODEL  LABEL  NEAREST  {'CAR':>4}  {'BOX':19}  ANSWER"


def identification_line(name: str, found: Identification, width: int) -> str:
    """Return a line with the answer, how sure each level is, the score of the nearest photo, and what was looked at.

    The columns have the same width for every photo.
    """
    known = found.answer is not None and found.verdict != "unknown"
    levels = (found.make_confidence, found.model_confidence, found.years_confidence)
    confidences = [f"{level:.0%}" if known else "-" for level in levels]
    nearest = f"{found.neighbours[0].score:.3f}" if found.neighbours else "-"
    numbers = map(str.rjust, [*confidences, nearest, _car(found.cut)], (4, 5, 5, 7, 4))
    return "  ".join([f"{shortened(name):{width}}", *numbers, f"{_box_of(found.cut):19}", str(found)])


def detection_heading(width: int) -> str:
    return f"{'PHOTO':{width}}  {'CAR':>4}  BOX"


def detection_lines(name: str, cars: Sequence[Detection], width: int) -> list[str]:
    """Return a line for each car of a photo, or one that says that there is none."""
    shown = f"{shortened(name):{width}}"
    if not cars:
        return [f"{shown}  none  -"]
    return [f"{shown}  {car.score:>4.0%}  {_fractions(car.box)}" for car in cars]


def drawn_text(found: Identification) -> str:
    """Return what is drawn into a photo: the answer, and how sure it is where that means something."""
    known = found.answer is not None and found.verdict != "unknown"
    return f"{found} {found.years_confidence:.0%}" if known else str(found)


def _car(cut: Cut | None) -> str:
    """Return how sure the detector is of the car: `none` if it found none, `-` if it was not asked."""
    if cut is None or (cut.car_score is None and not cut.no_car_found):
        return "-"
    return "none" if cut.car_score is None else f"{cut.car_score:.0%}"


def _box_of(cut: Cut | None) -> str:
    """Return the box as --crop takes it; `-` if the embedder did not say."""
    return _fractions(cut.box) if cut else "-"


def _fractions(box: Box) -> str:
    if (box.left, box.top, box.right, box.bottom) == (0, 0, 1, 1):
        return "whole"
    return ",".join(f"{side:.2f}" for side in (box.left, box.top, box.right, box.bottom))


def neighbour_lines(neighbours: Iterable[Neighbour]) -> list[str]:
    rows = [(f"{n.score:.4f}", str(n.label), n.uri or n.item_id) for n in neighbours]
    return [f"  {line}" for line in table(rows)]


def info_lines(info: Info) -> list[str]:
    same = "the embedder's" if info.same_model else "another than the embedder's"
    index = asdict(info.index) | {"model": f"{info.index.model} ({same})"}
    fitted = index.pop("calibration") or "none: confidences are shares of the vote, and there are no verdicts"
    sections = {"model": asdict(info.model), "index": index, "calibration": fitted}
    return table([row for section, fields in sections.items() for row in _info_rows(section, fields)])


def _info_rows(section: str, fields: dict[str, Any] | str) -> list[tuple[str, str]]:
    if isinstance(fields, str):
        return [(section, fields)]
    flat = fields | fields.pop("limits", {})
    return [
        (f"{section} {_spaced(name)}", _in_words(entry))
        for name, entry in flat.items()
        if entry is not None and entry != ""
    ]


def _in_words(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(_rounded(entry))
    return ", ".join(f"{_spaced(name)} {_rounded(value)}" for name, value in entry.items())


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def mismatch(info: Info) -> str:
    ours, theirs = info.model.fingerprint[:12], info.index.model[:12]
    return (
        f"the embedder serves the model {ours} (model fingerprint), but the index was built with {theirs} (index model): photos "
        f"can't be identified until both are of one model: {_ONE_MODEL}"
    )


def not_addable(info: Info) -> str:
    ours, theirs = info.model.fingerprint, info.index.model
    return (
        f"the embedder serves model {ours[:12]}, but the gallery holds embeddings of {theirs[:12]}: photos can only be added "
        f"with an embedder that serves the model {theirs}; `vmmr-search migrate` embeds the gallery anew for the other"
    )


def label_lines(labels: Iterable[LabelCount]) -> list[str]:
    rows = [
        (entry.label.label, entry.label.make, entry.label.model, _year(entry), str(entry.items)) for entry in labels
    ]
    return table([("LABEL", "MAKE", "MODEL", "YEAR", "PHOTOS"), *rows])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines with aligned columns, without what would disturb a terminal: names come from anywhere."""
    rows = [tuple(map(shown, row)) for row in rows]
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
