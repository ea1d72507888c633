"""Answers as tables for spreadsheets, and as lines."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter
from starlette.responses import Response, StreamingResponse

from web.api.shapes import Answer

T = TypeVar("T")

NDJSON = "application/x-ndjson"
CSV = "text/csv; charset=utf-8"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

ANSWER_COLUMNS = (
    "photo",
    "name",
    "text",
    "verdict",
    "make",
    "model",
    "year",
    "first_year",
    "last_year",
    "label",
    "make_confidence",
    "model_confidence",
    "years_confidence",
    "label_confidence",
    "no_car_found",
    "left",
    "top",
    "right",
    "bottom",
    "nearest_item",
    "nearest_label",
    "nearest_score",
    "problem",
)


def answer_row(answer: Answer) -> dict[str, Any]:
    """Return the row of an answer, by column. A column that is left out is empty."""
    row: dict[str, Any] = {"photo": answer.photo, "name": answer.name, "text": answer.text}
    if answer.problem:
        return row | {"problem": answer.problem.reason}
    found = answer.identification
    assert found is not None
    row |= {name: getattr(found, name) for name in ANSWER_COLUMNS if name.endswith("confidence")}
    row |= {"verdict": found.verdict, "no_car_found": str(found.no_car_found).lower()}
    if found.answer:
        row |= {name: getattr(found.answer, name) for name in ("make", "model", "year", "label")}
    if found.years:
        row |= {"first_year": found.years[0], "last_year": found.years[1]}
    if found.cut:
        row |= vars(found.cut.box)
    if found.neighbours:
        nearest = found.neighbours[0]
        row |= {"nearest_item": nearest.item_id, "nearest_label": nearest.label.label, "nearest_score": nearest.score}
    return row


def table(columns: tuple[str, ...], rows: AsyncIterator[Mapping[str, Any]]) -> StreamingResponse:
    """Return rows as CSV, each sent as it comes. A text that a spreadsheet would take for a formula gets an apostrophe before it."""

    async def encoded() -> AsyncIterator[str]:
        yield _line(columns, dict(zip(columns, columns, strict=True)))
        async for row in rows:
            yield _line(columns, {name: _cell(value) for name, value in row.items()})

    return StreamingResponse(encoded(), media_type=CSV)


async def each(entries: Iterable[T]) -> AsyncIterator[T]:
    """Yield entries that are there already, for `table` and `lines`."""
    for entry in entries:
        yield entry


def lines(adapter: TypeAdapter[Any], entries: AsyncIterator[Any]) -> Response:
    """Return entries as JSON, one a line, each sent as it comes."""

    async def encoded() -> AsyncIterator[bytes]:
        async for entry in entries:
            yield adapter.dump_json(entry) + b"\n"

    return StreamingResponse(encoded(), media_type=NDJSON)


def _line(columns: tuple[str, ...], row: Mapping[str, Any]) -> str:
    line = io.StringIO()
    csv.DictWriter(line, columns, restval="").writerow(row)
    return line.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
