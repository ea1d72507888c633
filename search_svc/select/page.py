"""The result of a sweep as one self-contained page."""

from pathlib import Path

from search_svc.select import plots
from search_svc.select.result import Result
from search_svc.select.table import cells
from svckit.page import html

_TEMPLATE = Path(__file__).with_name("page.html")


def page(result: Result) -> str:
    return html.render(_TEMPLATE, {"result": result, "plots": plots.svgs(result), "cells": cells})


def picture(result: Result) -> bytes:
    """Return the plots of the page as one PNG file."""
    return plots.png(result)
