"""Ranges of years: adjacent years of a model that the gallery cannot tell apart."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_svc.voting.labels import Label
from search_svc.voting.vocabulary import Vocabulary
from search_svc.voting.vote import Node, Vote, path


@dataclass(frozen=True)
class YearRange:
    first: int
    last: int
    years: int
    """That the gallery has of the model, in the range."""
    share: float
    """Of the vote: of all labels of the model with a year in the range."""


class Years:
    """The years of each model that a gallery's labels have."""

    def __init__(self, labels: Iterable[Label]) -> None:
        years: dict[Node, set[int]] = defaultdict(set)
        for label in labels:
            if label.year is not None:
                years[path(label)[:2]].add(label.year)
        self._years = {model: sorted(of_model) for model, of_model in years.items()}

    def of(self, model: Node) -> Sequence[int]:
        """Ascending."""
        return self._years.get(model, ())

    def several(self, label: Label) -> bool:
        """Whether the gallery has the label's model of several years."""
        return len(self.of(path(label)[:2])) > 1

    def range(self, vote: Vote, ratio: float) -> YearRange | None:
        """The answer's year, and those next to it with votes of `ratio` times its share or more; None without a year.

        Next to a year is the one that follows in the gallery: if it has the model of 2009 and of 2012 alone, these two.
        """
        if vote.answer.year is None:
            return None
        model = path(vote.answer)[:2]
        years, shares = self.of(model), _shares(vote, model)
        first = last = years.index(vote.answer.year)
        least = max(ratio * shares[vote.answer.year], math.ulp(0.0))
        while first > 0 and shares[years[first - 1]] >= least:
            first -= 1
        while last + 1 < len(years) and shares[years[last + 1]] >= least:
            last += 1
        within = years[first : last + 1]
        return YearRange(within[0], within[-1], len(within), math.fsum(shares[year] for year in within))


class YearsNow(Years):
    """Of the labels that have photos, in a gallery whose labels come and go."""

    def __init__(self, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
        """`counts` (labels,) are the photos that each of the first labels has."""
        self._vocabulary = vocabulary
        self._counts = counts

    def of(self, model: Node) -> Sequence[int]:
        known = (place for place in self._vocabulary.of_model(model) if place < len(self._counts))
        labels = (self._vocabulary.labels[place] for place in known if self._counts[place])
        return sorted({label.year for label in labels if label.year is not None})


def _shares(vote: Vote, model: Node) -> defaultdict[int, float]:
    """By year, 0 where it has none."""
    shares: defaultdict[int, float] = defaultdict(float)
    for candidate in vote.labels:
        if candidate.label and candidate.label.year is not None and path(candidate.label)[:2] == model:
            shares[candidate.label.year] += candidate.confidence
    return shares
