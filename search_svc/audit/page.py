"""The findings as a page that shows the photos from where they lie. Names are text from outside: everything is escaped."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from search_svc.audit.findings import Finding
from search_svc.dataset.photo_list import Photo
from svckit.page.html import render

MOST_SHOWN = 500
"""Findings shown in each part of the page, at most. audit.csv has them all."""


def page(findings: Sequence[Finding], excluded: set[str], folder: Path, page_at: Path) -> str:
    """Return the page. Photos are linked by their path from the page's own place, `page_at`, to the `folder` of photos."""
    prefix = os.path.relpath(folder.resolve(), page_at.parent.resolve())

    def url(photo: Photo) -> str:
        return quote(os.fsencode(f"{prefix}/{photo.path}"))

    values = {"parts": _parts(findings), "most": MOST_SHOWN, "url": url, "excluded": excluded}
    return render(Path(__file__).with_name("page.html"), values)


def _parts(findings: Sequence[Finding]) -> list[tuple[str, str, list[Finding]]]:
    """Return the parts of the page as (title, explanation, findings), the most harmful kinds first."""
    copies = [each for each in findings if each.kind == "copy"]
    torn = [each for each in copies if each.other and each.other.label != each.photo.label]
    leaks = [each for each in copies if each not in torn and each.other and each.other.split != each.photo.split]
    return [
        ("Copies with different labels", "One picture under two labels: the pixels agree. Which label is right?", torn),
        (
            "Copies in different splits",
            "A photo that figures are of is in the gallery, too: figures are too good.",
            leaks,
        ),
        ("Other copies", "In one split, with one label.", [each for each in copies if each not in [*torn, *leaks]]),
        (
            "May be copies",
            "Alike in small and grey, but the pixels differ in places: another colour, another car, or a copy that was edited.",
            [each for each in findings if each.kind == "alike"],
        ),
        (
            "Labels that look wrong",
            "Photos of another label are nearer than those of its own; beside it, one of them.",
            [each for each in findings if each.kind == "label"],
        ),
        (
            "Unlike the other photos",
            "Far from every label: a part, an interior, no car, or a car seen as no other. Beside it, the nearest photo.",
            [each for each in findings if each.kind == "odd"],
        ),
        (
            "No car found",
            "The detector found none, so they were embedded whole.",
            [each for each in findings if each.kind == "no-car"],
        ),
        (
            "Several cars",
            "The main one was embedded, which may not be the one that the label names. The score is the number of cars.",
            [each for each in findings if each.kind == "cars"],
        ),
    ]
