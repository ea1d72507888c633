"""Ranges of years: neighbouring years of a model that the gallery cannot tell apart."""

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
    """How many years of the range the gallery has of the model."""
    share: float
    """The share of the vote that the model's labels within the range have together."""


class Years:
    """The years that a gallery has of each model."""

    def __init__(self, labels: Iterable[Label]) -> None:
        years: dict[Node, set[int]] = defaultdict(set)
        for label in labels:
            if label.year is not None:
                years[path(label)[:2]].add(label.year)
        self._years = {model: sorted(of_model) for model, of_model in years.items()}

    def of(self, model: Node) -> Sequence[int]:
        """Return the years of a (make, model), ascending."""
        return self._years.get(model, ())

    def several(self, label: Label) -> bool:
        """Return whether the gallery has several years of the label's model."""
        return len(self.of(path(label)[:2])) > 1

    def range(self, vote: Vote, ratio: float) -> YearRange | None:
        """Return the answer's year, widened by neighbouring years with at least `ratio` times its share of the vote.

        Years are neighbours if the gallery has none of the model between them, as 2009 and 2012 may be. Return None if the
        answer has no year.
        """
        if vote.answer.year is None:
            return None
        model = path(vote.answer)[:2]
        years, shares = self.of(model), shares_by_year(vote, model)
        first = last = years.index(vote.answer.year)
        least = max(ratio * shares[vote.answer.year], math.ulp(0.0))
        while first > 0 and shares[years[first - 1]] >= least:
            first -= 1
        while last + 1 < len(years) and shares[years[last + 1]] >= least:
            last += 1
        within = years[first : last + 1]
        return YearRange(within[0], within[-1], len(within), math.fsum(shares[year] for year in within))


class YearsNow(Years):
    """The years of each model in a gallery that is written to: those of the labels that have photos at the moment."""

    def __init__(self, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
        """Take the number of photos `counts` (n,) of each of the first n labels."""
        self._vocabulary = vocabulary
        self._counts = counts

    def of(self, model: Node) -> Sequence[int]:
        known = (place for place in self._vocabulary.of_model(model) if place < len(self._counts))
        labels = (self._vocabulary.labels[place] for place in known if self._counts[place])
        return sorted({label.year for label in labels if label.year is not None})


def shares_by_year(vote: Vote, model: Node) -> defaultdict[int, float]:
    """Return the share of the vote that each year of a (make, model) has; 0 for years without votes."""
    shares: defaultdict[int, float] = defaultdict(float)
    for candidate in vote.labels:
        if candidate.label and candidate.label.year is not None and path(candidate.label)[:2] == model:
            shares[candidate.label.year] += candidate.confidence
    return shares
