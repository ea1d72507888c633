"""Show a result as one HTML page that needs no other file."""

from pathlib import Path
from typing import Any

from loadtest import plots, table
from loadtest.result import Result
from svckit.page import html

_TEMPLATE = Path(__file__).with_name("page.html")


def page(result: Result) -> str:
    steps = table.in_order(result.steps)
    names = table.stage_names(steps)
    values: dict[str, Any] = {
        "result": result,
        "head": [line.strip() for line in table.head(result)[1:]],
        "steps": steps,
        "rows": table.rows(result),
        "stages": names,
        "both": table.both,
        "doubts": table.doubts(result),
        "errors": table.error_rows(steps),
        "knee": table.knee_lines(result.knee, result.plan["slo_p99_ms"]) if result.knee else [],
        "notes": table.notes(result),
        "advice": table.advice(result),
        "plots": plots.svgs(result),
    }
    return html.render(_TEMPLATE, values)
