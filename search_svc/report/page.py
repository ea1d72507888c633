"""The report as one HTML page that needs nothing beside itself. Labels and ids are anybody's text: all is escaped."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search_svc.accuracy import LEVELS, MEASURES, RECALL_AT
from search_svc.report import plots
from search_svc.report.content import Report
from search_svc.report.metrics import BINS

_TEMPLATE = "page.html"


def page(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    score = {(each.measure, each.level): each for each in report.scores}
    return environment.get_template(_TEMPLATE).render(
        report=report, score=score, plots=plots, levels=list(LEVELS), measures=MEASURES, bins=BINS, recall_at=RECALL_AT
    )


def _breakable(name: str) -> Markup:
    """The name, escaped, with places where a line may end."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/-])", name))
