"""Ranges of years: adjacent years of a model that the gallery cannot tell apart."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from search_svc.labels import Label
from search_svc.vote import Node, Vote, path


@dataclass(frozen=True)
class YearRange:
    first: int
    last: int
    years: int
    """That the gallery has of the model, in the range."""
    share: float
    """Of the vote: of all labels of the model with a year in the range."""


class Years:
    """The years of each model of a gallery."""

    def __init__(self, labels: Iterable[Label]) -> None:
        years: dict[Node, set[int]] = defaultdict(set)
        for label in labels:
            if label.year is not None:
                years[path(label)[:2]].add(label.year)
        self._years = {model: sorted(of_model) for model, of_model in years.items()}

    def several(self, label: Label) -> bool:
        """Whether the gallery has the label's model of several years."""
        return len(self._years.get(path(label)[:2], ())) > 1

    def range(self, vote: Vote, ratio: float) -> YearRange | None:
        """The answer's year, and those next to it with votes of `ratio` times its share or more; None without a year.

        Next to a year is the one that follows in the gallery: if it has the model of 2009 and of 2012 alone, these two.
        """
        if vote.answer.year is None:
            return None
        model = path(vote.answer)[:2]
        years, shares = self._years[model], _shares(vote, model)
        first = last = years.index(vote.answer.year)
        least = max(ratio * shares[vote.answer.year], math.ulp(0.0))
        while first > 0 and shares[years[first - 1]] >= least:
            first -= 1
        while last + 1 < len(years) and shares[years[last + 1]] >= least:
            last += 1
        within = years[first : last + 1]
        return YearRange(within[0], within[-1], len(within), math.fsum(shares[year] for year in within))


def _shares(vote: Vote, model: Node) -> defaultdict[int, float]:
    """By year, 0 where it has none."""
    shares: defaultdict[int, float] = defaultdict(float)
    for candidate in vote.labels:
        if candidate.label and candidate.label.year is not None and path(candidate.label)[:2] == model:
            shares[candidate.label.year] += candidate.confidence
    return shares
