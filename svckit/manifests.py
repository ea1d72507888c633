"""What `manifest.csv` may say of a photo: the one rule of the steps that read it, so that none takes what a later one refuses."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from vmmr.photo_names import name_fault

Split = Literal["train", "dev", "test", "unseen-dev", "unseen-test"]
"""An unseen split holds all photos of its labels, so that a gallery of the other splits does not know these cars."""
SPLITS: tuple[Split, ...] = get_args(Split)

_NUMBER = re.compile(r"([0-9]{1,9})(\.0*)?")
"""Numbers that the index and the messages can hold."""


def fault(row: Mapping[str, str | None]) -> str | None:
    """Return what is wrong with a photo's label, year, split or number of cars, as far as there are such columns; None if nothing is."""
    label, split = row.get("label"), row.get("split")
    if label and (problem := name_fault(label)):
        return f"label: {problem}, got {label[:40]!r}"
    if split is not None and split not in SPLITS:
        return f"split must be one of {', '.join(SPLITS)}, got {split!r}"
    for name in ("year", "cars"):
        text = row.get(name) or ""
        if text and not _NUMBER.fullmatch(text):
            return f"{name} must be a number or nothing, got {text!r}"
    return None


def number(text: str | None) -> int | None:
    """Return the number in a cell in which `fault` found nothing wrong: `2019`, or `2019.0` as pandas writes it; None for nothing."""
    found = _NUMBER.fullmatch(text or "")
    return int(found[1]) if found else None
