"""Fits the calibration of a gallery to held-out photos: photos of its labels that are not in it.

No photos of unknown cars are needed: a held-out photo stands for one once its own label is left out of its neighbours.
docs/calibration.md has the formulas.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.local import LocalEngine
from search_svc.fitting import logistic
from search_svc.fitting.calibration_metrics import ece
from search_svc.fitting.cases import FOLDS, Case, cases, folds
from search_svc.fitting.held_out import HeldOutNeighbours, HeldOutPhotos, search_held_out
from search_svc.fitting.known import FALSE_ALARM_RATE, Examples, cut_of, offsets
from search_svc.fitting.trials import Trial, thinned
from search_svc.fitting.typical import typical_scores
from search_svc.fitting.weighing import KS, Voters, fit_weighting
from search_svc.index.version import IndexVersion
from search_svc.voting.answer import DEFAULT_YEAR_RATIO, confidences
from search_svc.voting.calibration import Calibration, Ece, LogisticModel, sigmoid
from search_svc.voting.labels import Label
from search_svc.voting.vote import LEVELS
from search_svc.voting.years import Years

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
    examples = Examples.of(singles, whole, thin, k, weighting)
    known = examples.fit()
    cuts = [cut_of(group, known) for group in groups]
    ratio, year_photos = _year_ratio(singles, items.labels)
    return Calibration(
        photos=len(singles),
        k=k,
        temperature=weighting.temperature,
        prior=weighting.prior,
        levels=_levels(every),
        known=known,
        known_offsets=offsets(cuts),
        false_alarm_rate=FALSE_ALARM_RATE,
        unknown_threshold=0.0 if cuts[0] is None else sigmoid(cuts[0]),
        year_ratio=ratio,
        year_photos=year_photos,
        typical=dict(zip(whole.names, typical.tolist(), strict=True)),
        errors=_errors(every, rng),
        mean_weight=weighting.mean_weight,
        strangers=examples.cross_validated(rng),
        nearest=deciles(neighbours),
    )


def deciles(neighbours: HeldOutNeighbours) -> tuple[float, ...]:
    """Return the nine deciles of the similarity of held-out photos with their nearest photo of the gallery."""
    return tuple(np.quantile(neighbours.scores[:, 0], np.arange(1, 10) / 10).tolist())


def _mean_square(embeddings: NDArray[np.float16]) -> float:
    """Return the mean squared length of some hundreds of the embeddings, spread evenly over all."""
    some = embeddings[:: max(1, len(embeddings) // 500)].astype(np.float64)
    return float(np.square(some).sum(axis=1).mean())


def _levels(every: Sequence[Case]) -> dict[str, LogisticModel]:
    """Fit, for each level, the chance that the answer is right."""
    return {
        level: logistic.fitted(
            [case.evidence.confidence_features(level) for case in every],
            [case.right(level) for case in every],
            _SHARE_ITSELF,
        )
        for level in LEVELS
    }


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
    fold_of = folds(every, rng)
    judged: list[tuple[Case, tuple[float, float, float]]] = []
    for fold in range(FOLDS):
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
