"""Labels: from the name of a class to make, model and year.

Names of the VMMRdb form (`mercedes benz_e320_2001`, `dodge_ram_1500_2005`) and of the Stanford Cars form
(`Land Rover LR2 SUV 2012`, and its folder `land_rover_lr2_suv_2012`) are read. A name that is of neither form is kept
as it is, without make, model and year: nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

YEARS = range(1908, 2050)
"""Model years that are believed; others (VMMRdb has 1900) stand for "not known"."""

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
"""For the names that do not show where the make ends."""

_NOT_A_WORD = re.compile(r"[\s_\-./,]+")
_YEAR = re.compile(r"[0-9]{4}")


@dataclass(frozen=True)
class Label:
    """A class of car. Equal labels are equal strings; make and model are `normalise`d words, empty if not known."""

    label: str
    make: str
    model: str
    year: int | None

    @property
    def problem(self) -> str | None:
        """What could not be read from the name, or None."""
        if not self.make or not self.model:
            return "no make, model and year can be read from the name"
        if self.year is None:
            return f"no year from {YEARS[0]} to {YEARS[-1]} can be read from the name"
        return None

    @property
    def car(self) -> str:
        """Make, model and year, for people."""
        return f"make {self.make!r}, model {self.model!r}, year {self.year or 'not known'}"


def first_contradiction(labels: Iterable[Label]) -> tuple[int, int] | None:
    """The first two that are one label with another make, model or year each: their places; None if there are none."""
    first: dict[str, tuple[int, Label]] = {}
    for place, label in enumerate(labels):
        earlier, known = first.setdefault(label.label, (place, label))
        if label != known:
            return earlier, place
    return None


def normalise(words: str) -> str:
    """Lower case, with one space where spaces, underscores, hyphens, dots, commas and slashes were.

    So `Mercedes-Benz`, `mercedes_benz` and `mercedes benz` are one make. `&`, `+` and `'` stay as they are.
    """
    return _NOT_A_WORD.sub(" ", unicodedata.normalize("NFC", words).lower()).strip()


def parse(label: str) -> Label:
    """The label with what can be read from it; `Label.problem` says what cannot."""
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
    """Underscores separate make, model and year if there are any, for the make may hold spaces; else spaces do."""
    parts = label.split("_") if "_" in label else label.split()
    return [words for words in map(normalise, parts) if words]
