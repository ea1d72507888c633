"""Asks the two servers about photos whose labels are known, and shows their answers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import vmmr

from demo.screen import say, step, style
from search_svc.voting import labels

_BATCH = 16
_SHOWN = 72
_NEIGHBOURS_SHOWN = 3
_LEVELS = ("make", "model", "year")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Answered:
    """A photo, its label, and the answer of the servers."""

    path: str
    truth: labels.Label
    """The label of the photo's folder."""
    found: vmmr.Identification

    @property
    def wrong(self) -> str | None:
        """The first of make, model and year that is wrong in what is shown as the answer; None if nothing is.

        A range of years is right if it has the photo's year. A known car that is told as unknown is wrong, whatever is nearest to it.
        """
        answer, found = self.found.answer, self.found
        if answer is None or found.verdict == "unknown" or found.no_car_found:
            return "verdict"
        if answer.label == self.truth.label:
            return None
        level = next((level for level in _LEVELS if getattr(answer, level) != getattr(self.truth, level)), "label")
        return None if level == "year" and self._is_in_range() else level

    def _is_in_range(self) -> bool:
        year, years = self.truth.year, self.found.years
        return year is not None and years is not None and years[0] <= year <= years[1]


def identify(client: vmmr.Client, photos: Path, paths: Sequence[str]) -> list[Answered]:
    """Identify the photos through the SDK."""
    with step("identify") as asking:
        answered = []
        outcomes = client.identify_many([photos / path for path in paths], batch=_BATCH)
        for path, outcome in zip(paths, outcomes, strict=True):
            answered.append(Answered(path, labels.parse(PurePosixPath(path).parent.name), outcome.result()))
            asking.progress(f"{len(answered)} of {len(paths)} photos")
        asking.result = f"{len(answered)} held-out photos, through the SDK: {_tally(answered)}"
    return answered


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` of the items, evenly spread over the sequence."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def show(answered: Sequence[Answered]) -> None:
    """Print the answers, or an even selection if there are many, each with the nearest photos of the gallery."""
    chosen = spread(answered, _SHOWN)
    names = max(len(_name(each.path)) for each in chosen)
    answers = max(len(str(each.found)) for each in chosen)
    if len(chosen) < len(answered):
        say(f"  {len(chosen)} of the {len(answered)} photos\n")
    say(f"  {'photo':{names + 4}}{'answer':{answers + 2}}{'make':>6}{'model':>7}{'label':>7}")
    for each in chosen:
        for line in _lines(each, names, answers):
            say(line)


def _lines(each: Answered, names: int, answers: int) -> Iterator[str]:
    found, wrong = each.found, each.wrong
    mark = style("good", "✓") if wrong is None else style("bad", "✗")
    shares = f"{found.make_confidence:6.0%}{found.model_confidence:7.0%}{found.label_confidence:7.0%}"
    note = "" if wrong is None else style("bad", f"   wrong {wrong}")
    answer = style("bold", f"{found!s:{answers + 2}}")
    yield f"  {mark} {_name(each.path):{names + 2}}{answer}{shares}{note}"
    nearest = (
        f"{neighbour.score:.3f} {_name(neighbour.item_id)}" for neighbour in found.neighbours[:_NEIGHBOURS_SHOWN]
    )
    yield style("dim", f"      {'   '.join(nearest)}")


def _name(path: str) -> str:
    """Return the label and the file name of a photo."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _tally(answered: Sequence[Answered]) -> str:
    wrong = Counter(each.wrong for each in answered)
    return f"{wrong[None]} right, {wrong['year']} more but for the year"
