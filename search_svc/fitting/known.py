"""Fits the known score, by which verdicts are given: what tells photos of known cars from photos of unknown ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from search_svc.fitting import logistic
from search_svc.fitting.calibration_metrics import auroc
from search_svc.fitting.cases import FOLDS, Case, cases, folds, strangers
from search_svc.fitting.trials import ThinnedTrials, Trial
from search_svc.voting.calibration import LogisticModel, Strangers
from search_svc.voting.vote import Weighting

FALSE_ALARM_RATE = 0.05

_LEAST_GROUPS = 40
_LACKING = ("label", "make")
_CLOSENESS_ALONE = LogisticModel(0.0, (1.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Examples:
    """Photos of known and of unknown cars, to which the known score is fitted."""

    singles: Sequence[Case]
    """Photos of known cars in the gallery as it is."""
    enrolled: Sequence[Case]
    """Photos of known cars of which the gallery has a handful of photos."""
    strangers: Sequence[Case]
    """Photos of unknown cars in the gallery as it is: without their own label."""
    others: Sequence[Case]
    """Photos of unknown cars in the gallery without their own make, and in galleries that have a handful of photos of some labels."""

    @classmethod
    def of(cls, singles: Sequence[Case], whole: Trial, thin: ThinnedTrials, k: int, weighting: Weighting) -> Self:
        rng = np.random.default_rng(0)  # single photos are not drawn
        return cls(
            singles,
            [case for trial in thin.new for case in cases(trial, k, weighting, rng, (1,))[0]],
            strangers(whole, k, weighting, "label"),
            [
                *strangers(whole, k, weighting, "make"),
                *(
                    case
                    for trial in thin.others
                    for level in _LACKING
                    for case in strangers(trial, k, weighting, level)
                ),
            ],
        )

    def fit(self) -> LogisticModel:
        """Fit what tells known cars from unknown ones. With few unknown ones it is closeness alone."""
        known, unknown = [*self.singles, *self.enrolled], [*self.strangers, *self.others]
        if len(unknown) < _LEAST_GROUPS:
            return _CLOSENESS_ALONE
        features = [case.evidence.known_features for case in (*known, *unknown)]
        return logistic.fitted(features, [True] * len(known) + [False] * len(unknown), (0.0, 0.0, 0.0, 0.0))

    def cross_validated(self, rng: np.random.Generator) -> Strangers | None:
        """Return how well unknown cars are told in the gallery as it is: each fifth of the labels by a fit on the others.

        Return None if there are too few to tell.
        """
        fold_of = folds(self.singles, rng)
        known: list[float] = []
        unknown: list[float] = []
        called = 0
        for fold in range(FOLDS):
            others, own = self._labels(fold_of, fold, inside=False), self._labels(fold_of, fold, inside=True)
            model = others.fit()
            cut = cut_of(others.singles, model)
            if cut is None:
                return None
            scores = [model.logit(case.evidence.known_features) - cut for case in own.strangers]
            known += [model.logit(case.evidence.known_features) - cut for case in own.singles]
            unknown += scores
            called += sum(score < 0 for score in scores)
        if not unknown:
            return None
        return Strangers(auroc(np.array(known), np.array(unknown)), called / len(unknown))

    def _labels(self, fold_of: dict[str, int], fold: int, *, inside: bool) -> "Examples":
        """Return the examples whose labels are in a fold, or not in it."""
        parts = (self.singles, self.enrolled, self.strangers, self.others)
        return Examples(
            *([case for case in part if (fold_of.get(case.truth.label) == fold) == inside] for part in parts)
        )


def cut_of(group: Sequence[Case], known: LogisticModel) -> float | None:
    """Return the known score's logit that a new photo of a known car is below with FALSE_ALARM_RATE at most.

    Of n photos, it is the one at FALSE_ALARM_RATE * (n + 1) from below, as in conformal prediction (Vovk et al. 2005).
    Return None if the group is small.
    """
    if len(group) < _LEAST_GROUPS:
        return None
    logits = sorted(known.logit(case.evidence.known_features) for case in group)
    return logits[max(0, math.floor(FALSE_ALARM_RATE * (len(logits) + 1)) - 1)]


def offsets(cuts: Sequence[float | None]) -> tuple[float, ...]:
    """Return what must be added to each cut to bring it to that of single photos, up to the first cut that is missing."""
    offsets = [0.0]
    for cut in cuts[1:]:
        if cut is None or cuts[0] is None:
            break
        offsets.append(cuts[0] - cut)
    return tuple(offsets)
