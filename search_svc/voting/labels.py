"""Labels, and how make, model and year are read from them.

Two forms are understood: that of VMMRdb (`mercedes benz_e320_2001`, `dodge_ram_1500_2005`) and that of Stanford Cars
(`Land Rover LR2 SUV 2012`, or its folder `land_rover_lr2_suv_2012`). A label of any other form has no make, model and year:
nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

YEARS = range(1908, 2050)
"""Model years that are believed. Any other year, such as VMMRdb's 1900, means "not known"."""

TWO_WORD_MAKES = frozenset(
    {
        "alfa romeo",
        "am general",
        "aston martin",
        "austin healey",
        "de soto",
        "de tomaso",
        "great wall",
        "land rover",
        "mercedes benz",
        "rolls royce",
    }
)
"""Makes of two words, for labels that do not show where the make ends."""

_NOT_A_WORD = re.compile(r"[\s_\-./,]+")
_YEAR = re.compile(r"[0-9]{4}")


@dataclass(frozen=True)
class Label:
    """A class of car, named by the string `label`. Make and model are `normalise`d words, empty if not known."""

    label: str
    make: str
    model: str
    year: int | None

    @property
    def problem(self) -> str | None:
        """A sentence on what could not be read from the label; None if everything could."""
        if not self.make or not self.model:
            return "no make, model and year can be read from the name"
        if self.year is None:
            return f"no year from {YEARS[0]} to {YEARS[-1]} can be read from the name"
        return None

    @property
    def car(self) -> str:
        """Make, model and year in words, for messages."""
        return f"make {self.make!r}, model {self.model!r}, year {self.year or 'not known'}"


def first_contradiction(labels: Iterable[Label]) -> tuple[int, int] | None:
    """Return the places of the first two equal labels that differ in make, model or year; None if there are none."""
    first: dict[str, tuple[int, Label]] = {}
    for place, label in enumerate(labels):
        earlier, known = first.setdefault(label.label, (place, label))
        if label != known:
            return earlier, place
    return None


def normalise(words: str) -> str:
    """Return the words in lower case, with one space for any run of spaces, underscores, hyphens, dots, commas and slashes.

    So `Mercedes-Benz`, `mercedes_benz` and `mercedes benz` are one make. `&`, `+` and `'` stay as they are.
    """
    return _NOT_A_WORD.sub(" ", unicodedata.normalize("NFC", words).lower()).strip()


def parse(label: str) -> Label:
    """Read make, model and year from a label. `Label.problem` says what could not be read."""
    parts = _parts(label)
    if len(parts) < 3 or not _YEAR.fullmatch(parts[-1]):
        return Label(label, "", "", None)
    make_parts = 2 if " ".join(parts[:2]) in TWO_WORD_MAKES else 1
    model = " ".join(parts[make_parts:-1])
    if not model:
        return Label(label, "", "", None)
    year = int(parts[-1])
    return Label(label, " ".join(parts[:make_parts]), model, year if year in YEARS else None)


def _parts(label: str) -> list[str]:
    """Split a label at its underscores, for then the make may hold spaces; at its spaces if it has no underscore."""
    parts = label.split("_") if "_" in label else label.split()
    return [words for words in map(normalise, parts) if words]
