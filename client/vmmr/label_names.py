"""The names of labels: how two are compared, and how make, model and year are read from one.

Two forms are understood: that of VMMRdb (`mercedes benz_e320_2001`, `dodge_ram_1500_2005`) and that of Stanford Cars
(`Land Rover LR2 SUV 2012`, or its folder `land_rover_lr2_suv_2012`). A label of any other form has no make, model and year:
nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import NamedTuple

from vmmr.photo_names import name_fault

YEARS = range(1908, 2050)
"""Model years that are believed. Any other year, such as VMMRdb's 1900, means "not known"."""
NO_YEAR = "0000"
"""What stands in a label in the place of a year that is not known."""

MAKES = frozenset(
    {
        "alfa romeo",
        "am general",
        "ashok leyland",
        "aston martin",
        "austin healey",
        "de soto",
        "de tomaso",
        "great wall",
        "hindustan motors",
        "land rover",
        "lynk & co",
        "maruti suzuki",
        "mercedes benz",
        "rolls royce",
    }
)
"""Makes of several words, for labels that do not show where the make ends. `vmmr-search split --makes` adds others."""

_SAME_MAKE = {"lynk co": "lynk & co", "lynk and co": "lynk & co", "lynk&co": "lynk & co"}
_MOST_WORDS = 4
"""The most words that a make has."""
_RANGE_ROVER = "range rover"
"""A name that stands where makes do, and is Land Rover's."""
_CALLED_LIKE_YEARS = frozenset({("peugeot", "2008")})
"""Models whose names could be the first of two years."""

_ACCENTS = re.compile("[\u0300-\u036f]")
_NOT_A_WORD = re.compile(r"[\s_\-‐‑‒–./,]+")  # noqa: RUF001 - hyphens and dashes of all kinds
_YEAR = re.compile(r"[0-9]{4}")


class Car(NamedTuple):
    """What a label names. Make and model are `normalise`d words, empty if not known."""

    make: str
    model: str
    year: int | None
    problem: str | None
    """What could not be read from the label, as a clause; None if everything could."""


def canonical(label: str) -> str:
    """Return the label in Unicode's form NFC, so that labels that look the same are the same."""
    return label if label.isascii() else unicodedata.normalize("NFC", label)


def label_fault(label: str) -> str | None:
    """Return why a text can't be a label; None if it can be."""
    if fault := name_fault(label):
        return fault.replace("its name", "its label")
    if not any(character.isalnum() for character in label):
        return "its label has no letter and no digit"
    if any(part in (".", "..") for part in label.split("/")):
        return "its label has a part that is . or .., as of a path"
    return None


def normalise(words: str) -> str:
    """Return the words in lower case, with one space for any run of spaces, underscores, hyphens, dots, commas and slashes.

    So `Mercedes-Benz`, `mercedes_benz` and `mercedes benz` are one make. `&`, `+` and `'` stay as they are.
    """
    return _NOT_A_WORD.sub(" ", unicodedata.normalize("NFC", words).lower()).strip()


def plain(words: str) -> str:
    """Return normalised words without accents and without characters that nobody sees. Names that are then the same are hardly two."""
    letters = _ACCENTS.sub("", unicodedata.normalize("NFD", normalise(words)))
    return letters if letters.isprintable() else "".join(each for each in letters if unicodedata.category(each) != "Cf")


def plain_car(car: Car) -> tuple[str, str, int | None]:
    """Return make, model and year as they are compared to find one car with two labels."""
    return plain(car.make), plain(car.model), car.year


def read(label: str, makes: Collection[str] = ()) -> Car:
    """Read make, model and year from a label. `makes` are makes of several words beyond MAKES, normalised."""
    parts = _parts(label)
    names, years = _apart(parts)
    if years is None:
        return _unread()
    make, model = _make_and_model(names, makes)
    if not make or not model:
        return _unread(years)
    first, last = years[0], years[-1]
    if first != last:
        problem = f"it names the years {first} to {last}, and a label has one"
        return Car(make, model, None, problem)
    if first not in YEARS:
        return Car(make, model, None, f"no year from {YEARS[0]} to {YEARS[-1]} can be read from the name")
    return Car(make, model, first, None)


def shown_makes(labels: Iterable[str]) -> frozenset[str]:
    """Return the makes of several words that labels show to be such: `maruti suzuki_swift_2015` does, by its underscores."""
    makes = (_parts(label)[0] for label in labels if label.count("_") >= 2 and read(label).make)
    return frozenset(make for make in makes if " " in make)


def doubtful_makes(labels: Iterable[str], makes: Collection[str] = ()) -> dict[str, int]:
    """Return words that may be a make of two words, with the number of labels that begin with them.

    They are the first two words of several labels, and no other label has the first of them for its make.
    """
    follow: dict[str, list[str]] = {}
    for label in labels:
        car = read(label, makes)
        if car.make and " " not in car.make:
            follow.setdefault(car.make, []).append(car.model)
    found = {}
    for make, models in follow.items():
        seconds = {model.split(" ", 1)[0] for model in models}
        if len(seconds) == 1 and len(set(models)) > 1 and all(" " in model for model in models):
            found[f"{make} {seconds.pop()}"] = len(models)
    return found


def _parts(label: str) -> list[str]:
    """Split a label at its underscores, for then the make may hold spaces; at its spaces if it has no underscore."""
    parts = label.split("_") if "_" in label else label.split()
    words = [words for words in map(normalise, parts) if words]
    return words or [""]


def _apart(parts: list[str]) -> tuple[list[str], tuple[int, ...] | None]:
    """Return the names of a label without its year, and its year: one, two if it names a range, or None."""
    ending = parts[-1].split()
    if not all(map(_YEAR.fullmatch, ending)) or not ending:
        return parts, None
    words = [*parts[:-1], *ending]
    last = int(words[-1])
    before = int(words[-2]) if len(words) > 1 and _YEAR.fullmatch(words[-2]) else 0
    is_range = before in YEARS and last in YEARS and before <= last
    if is_range and tuple(words[:-1]) not in _CALLED_LIKE_YEARS and " ".join(words[:-2]) not in MAKES:
        return words[:-2], (before, last)
    return words[:-1], (last,)


def _make_and_model(names: list[str], makes: Collection[str]) -> tuple[str, str]:
    whole = " ".join(names)
    if whole == _RANGE_ROVER or whole.startswith(f"{_RANGE_ROVER} "):
        return "land rover", whole
    for count in range(min(_MOST_WORDS, len(names)), 0, -1):
        make = " ".join(names[:count])
        if count == 1 or make in MAKES or make in _SAME_MAKE or make in makes:
            return _SAME_MAKE.get(make, make), " ".join(names[count:])
    return "", ""


def _unread(years: tuple[int, ...] = ()) -> Car:
    if years and years[0] != years[-1]:
        problem = f"no make and model can be read from the name beside the years {years[0]} to {years[-1]}"
    else:
        problem = "no make, model and year can be read from the name"
    return Car("", "", None, problem)
