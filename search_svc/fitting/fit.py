"""Fits the calibration of a gallery to held-out photos: photos of its labels that are not in it.

No photos of unknown cars are needed: a held-out photo stands for one once its own label is left out of its neighbours.
docs/calibration.md has the formulas.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.local import LocalEngine
from search_svc.fitting import logistic
from search_svc.fitting.calibration_metrics import ece
from search_svc.fitting.cases import Case, cases, strangers
from search_svc.fitting.held_out import LEAST_LABELS, HeldOutPhotos, search_held_out
from search_svc.fitting.trials import ThinnedTrials, Trial, thinned
from search_svc.fitting.typical import typical_scores
from search_svc.fitting.weighing import KS, Voters, fit_weighting
from search_svc.index.version import IndexVersion
from search_svc.voting.answer import DEFAULT_YEAR_RATIO, confidences
from search_svc.voting.calibration import Calibration, Ece, LogisticModel, sigmoid
from search_svc.voting.labels import Label
from search_svc.voting.vote import LEVELS, Weighting
from search_svc.voting.years import Years

FALSE_ALARM_RATE = 0.05

_LEAST_GROUPS = 40
_FOLDS = LEAST_LABELS
_SHARE_ITSELF = (1.0, 0.0, 0.0)
"""Slopes with which a confidence equals the share of the vote."""
_YEAR_RATIOS = (*(step / 20 for step in range(1, 21)), 2.0)
"""Year ratios that are tried. With 2, no range is wider than a year."""
_YEAR_PRICE = 0.25
"""The cost of each year beyond the first in a range, where missing the right year costs 1."""
_LEAST_YEAR_PHOTOS = 50


def fit(
    version: IndexVersion, shards: LocalEngine, held_out: HeldOutPhotos, *, k: int | None, temperature: float | None
) -> Calibration:
    """Fit a calibration for a version that has none. `held_out` must be enough; `k` and `temperature`, if given, are kept."""
    manifest, items = version.manifest, version.items
    rng = np.random.default_rng(manifest.seed)
    neighbours = search_held_out(version, shards, held_out, max(*KS, k or 0), rng)
    typical = typical_scores(version.embeddings, items.label_of, len(items.labels), manifest.metric, manifest.seed)
    whole = Trial(neighbours, items.labels, items.counts, version.means, typical)
    thin = thinned(version, whole, rng)
    voters = Voters.of([*thin.new, *thin.others], max(*KS, k or 0))
    k, weighting = fit_weighting(voters, items.labels, _mean_square(version.embeddings), k=k, temperature=temperature)
    groups = cases(whole, k, weighting, rng)
    singles, every = groups[0], [case for group in groups for case in group]
    known = _fit_known(singles, whole, thin, k, weighting)
    cuts = [_cut(group, known) for group in groups]
    ratio, year_photos = _year_ratio(singles, items.labels)
    return Calibration(
        photos=len(singles),
        k=k,
        temperature=weighting.temperature,
        prior=weighting.prior,
        levels=_levels(every),
        known=known,
        known_offsets=_offsets(cuts),
        false_alarm_rate=FALSE_ALARM_RATE,
        unknown_threshold=0.0 if cuts[0] is None else sigmoid(cuts[0]),
        year_ratio=ratio,
        year_photos=year_photos,
        typical=dict(zip(whole.names, typical.tolist(), strict=True)),
        errors=_errors(every, rng),
        mean_weight=weighting.mean_weight,
    )


def _mean_square(embeddings: NDArray[np.float16]) -> float:
    """Return the mean squared length of some hundreds of the embeddings, spread evenly over all."""
    some = embeddings[:: max(1, len(embeddings) // 500)].astype(np.float64)
    return float(np.square(some).sum(axis=1).mean())


def _levels(every: Sequence[Case]) -> dict[str, LogisticModel]:
    """Fit, for each level, the chance that the answer is right."""
    return {
        level: _logistic(
            [case.evidence.confidence_features(level) for case in every],
            [case.right(level) for case in every],
            _SHARE_ITSELF,
        )
        for level in LEVELS
    }


def _fit_known(
    singles: Sequence[Case], whole: Trial, thin: ThinnedTrials, k: int, weighting: Weighting
) -> LogisticModel:
    """Fit what tells known cars, those of thinned labels too, from unknown ones. With few unknown ones it is closeness alone."""
    known = [case.evidence for case in singles]
    for trial in thin.new:
        known += [case.evidence for case in cases(trial, k, weighting, np.random.default_rng(0), (1,))[0]]
    unknown = [each for trial in (whole, *thin.others) for each in strangers(trial, k, weighting)]
    if len(unknown) < _LEAST_GROUPS:
        return LogisticModel(0.0, (1.0, 0.0, 0.0, 0.0))
    features = [each.known_features for each in (*known, *unknown)]
    return _logistic(features, [True] * len(known) + [False] * len(unknown), (0.0, 0.0, 0.0, 0.0))


def _logistic(features: Sequence[tuple[float, ...]], right: Sequence[bool], slopes: Sequence[float]) -> LogisticModel:
    return LogisticModel(*logistic.fit(np.array(features), np.array(right), slopes))


def _cut(group: Sequence[Case], known: LogisticModel) -> float | None:
    """Return the known score's logit that a new photo of a known car is below with FALSE_ALARM_RATE at most.

    Of n photos, it is the one at FALSE_ALARM_RATE * (n + 1) from below, as in conformal prediction (Vovk et al. 2005).
    Return None if the group is small.
    """
    if len(group) < _LEAST_GROUPS:
        return None
    logits = sorted(known.logit(case.evidence.known_features) for case in group)
    return logits[max(0, math.floor(FALSE_ALARM_RATE * (len(logits) + 1)) - 1)]


def _offsets(cuts: Sequence[float | None]) -> tuple[float, ...]:
    """Return what must be added to each cut to bring it to that of single photos, up to the first cut that is missing."""
    offsets = [0.0]
    for cut in cuts[1:]:
        if cut is None or cuts[0] is None:
            break
        offsets.append(cuts[0] - cut)
    return tuple(offsets)


def _year_ratio(singles: Sequence[Case], labels: Sequence[Label]) -> tuple[float, int]:
    """Return the ratio whose ranges of years cost least, and the number of photos that it was fitted on."""
    years = Years(labels)
    judged = [case for case in singles if case.right("model") and years.several(case.evidence.vote.answer)]
    if len(judged) < _LEAST_YEAR_PHOTOS:
        return DEFAULT_YEAR_RATIO, 0
    return min(_YEAR_RATIOS, key=lambda ratio: (_cost(judged, years, ratio), -ratio)), len(judged)


def _cost(judged: Sequence[Case], years: Years, ratio: float) -> float:
    """Return the cost of the ranges: 1 for each that misses the right year, _YEAR_PRICE for each year beyond the first."""
    cost = 0.0
    for case in judged:
        found = years.range(case.evidence.vote, ratio)
        if found:
            missed = case.truth.year is None or not found.first <= case.truth.year <= found.last
            cost += missed + _YEAR_PRICE * (found.years - 1)
    return cost


def _errors(every: Sequence[Case], rng: np.random.Generator) -> dict[str, Ece]:
    """Return the calibration errors of single photos by level, cross-validated over labels."""
    names = sorted({case.truth.label for case in every})
    fold_of = dict(zip(names, (rng.permutation(len(names)) % _FOLDS).tolist(), strict=True))
    judged: list[tuple[Case, tuple[float, float, float]]] = []
    for fold in range(_FOLDS):
        levels = _levels([case for case in every if fold_of[case.truth.label] != fold])
        judged += [
            (case, confidences(case.evidence, levels))
            for case in every
            if case.evidence.photos == 1 and fold_of[case.truth.label] == fold
        ]
    return {level: _error(judged, level, place) for place, level in enumerate(LEVELS)}


def _error(judged: Sequence[tuple[Case, tuple[float, float, float]]], level: str, place: int) -> Ece:
    right = np.array([case.right(level) for case, _ in judged])
    shares = np.array([confidences(case.evidence, None)[place] for case, _ in judged])
    return Ece(ece(shares, right), ece(np.array([given[place] for _, given in judged]), right))
