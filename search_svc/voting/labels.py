"""Labels: the classes of cars that a gallery knows, each with the make, model and year that were read from its name."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vmmr import label_names


@dataclass(frozen=True)
class Label:
    """A class of car, named by the string `label`. Make and model are `normalise`d words, empty if not known."""

    label: str
    make: str
    model: str
    year: int | None

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


def parse(label: str, makes: Collection[str] = ()) -> Label:
    """Read make, model and year from a label. `makes` are makes of several words that it may begin with, normalised."""
    car = label_names.read(label, makes)
    return Label(label, car.make, car.model, car.year)
