"""The report as one self-contained HTML page. Labels and ids are text from outside, so everything is escaped."""

import re
from pathlib import Path

from markupsafe import Markup

from search_svc.evaluation.accuracy import CLASSES, MEASURES, RECALL_AT
from search_svc.evaluation.report import plots
from search_svc.evaluation.report.content import Report
from search_svc.fitting.calibration_metrics import BINS
from svckit.page.html import render


def page(report: Report) -> str:
    values = {
        "report": report,
        "score": {(each.measure, each.level): each for each in report.scores},
        "plots": plots,
        "levels": list(CLASSES),
        "measures": MEASURES,
        "bins": BINS,
        "recall_at": RECALL_AT,
    }
    return render(Path(__file__).with_name("page.html"), values, {"breakable": _breakable})


def _breakable(name: str) -> Markup:
    """Return the name, escaped, with places where the browser may break the line."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/-])", name))
