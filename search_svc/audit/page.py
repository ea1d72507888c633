"""The findings as a page that shows the owner's photos, from where they are. Names are anybody's text: all is escaped."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from search_svc.audit.findings import Finding
from search_svc.dataset.photo_list import Photo
from svckit.page.html import render

MOST_SHOWN = 500
"""Of each part: a page of more is slow to look through, and all are in audit.csv."""


def page(findings: Sequence[Finding], excluded: set[str], folder: Path, page_at: Path) -> str:
    """`folder` holds the photos, `page_at` is where the page will be: photos are linked from one to the other."""
    prefix = os.path.relpath(folder.resolve(), page_at.parent.resolve())

    def url(photo: Photo) -> str:
        return quote(os.fsencode(f"{prefix}/{photo.path}"))

    values = {"parts": _parts(findings), "most": MOST_SHOWN, "url": url, "excluded": excluded}
    return render(Path(__file__).with_name("page.html"), values)


def _parts(findings: Sequence[Finding]) -> list[tuple[str, str, list[Finding]]]:
    """(title, what it is, findings): what spoils figures or labels first."""
    copies = [each for each in findings if each.kind == "copy"]
    torn = [each for each in copies if each.other and each.other.label != each.photo.label]
    leaks = [each for each in copies if each not in torn and each.other and each.other.split != each.photo.split]
    return [
        ("Copies with different labels", "One photo, two labels: at least one is wrong.", torn),
        ("Copies in different splits", "What is asked for is in the gallery: figures are too good.", leaks),
        ("Other copies", "In one split, with one label.", [each for each in copies if each not in [*torn, *leaks]]),
        (
            "Labels that look wrong",
            "Photos of another label are nearer than those of its own; beside it, one of them.",
            [each for each in findings if each.kind == "label"],
        ),
        (
            "Like no car here",
            "Far from its label and from every other: interiors, parts, no car. Beside it, the nearest photo.",
            [each for each in findings if each.kind == "odd"],
        ),
    ]
