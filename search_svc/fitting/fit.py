"""Fitting a calibration: what a gallery's votes are worth, from photos of its labels that are not in it.

Cars that the gallery lacks are not needed: a photo whose own label is left out of its neighbours is one.
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
from search_svc.fitting.held_out import LEAST_LABELS, Held, ask
from search_svc.fitting.weighing import KS, fit_weighting
from search_svc.index.typical import typical_scores
from search_svc.index.version import IndexVersion
from search_svc.voting.answer import DEFAULT_YEAR_RATIO, confidences
from search_svc.voting.calibration import LEVELS, Calibration, Error, Line, sigmoid
from search_svc.voting.evidence import Evidence, VoteContext
from search_svc.voting.labels import Label
from search_svc.voting.years import Years

FALSE_ALARM_RATE = 0.05

_LEAST_GROUPS = 40
_FOLDS = LEAST_LABELS
_SHARE_ITSELF = (1.0, 0.0, 0.0)
"""Slopes by which a confidence is the share of the vote."""
_YEAR_RATIOS = (*(step / 20 for step in range(1, 21)), 2.0)
_YEAR_PRICE = 0.25
"""One more year in a range must be the right one for so many of the photos that get it."""
_LEAST_YEAR_PHOTOS = 50


def fit(
    version: IndexVersion, shards: LocalEngine, held: Held, *, k: int | None, temperature: float | None
) -> Calibration:
    """The calibration of a version that has none yet, if there are photos enough; k and temperature are fitted unless they are given."""
    manifest, items = version.manifest, version.items
    rng = np.random.default_rng(manifest.seed)
    asked = ask(version, shards, held, max(*KS, k or 0), rng)
    photos = items.sizes
    unit = _mean_square(version.embeddings)
    k, weighting = fit_weighting(asked, items.labels, list(photos.values()), unit, k=k, temperature=temperature)
    typical = typical_scores(version.embeddings, items.label_of, len(items.labels), manifest.metric, manifest.seed)
    context = VoteContext(weighting, photos, dict(zip(photos, typical.tolist(), strict=True)))
    groups = cases(asked, items.labels, k, context, rng)
    singles, every = groups[0], [case for group in groups for case in group]
    known = _known(singles, strangers(asked, items.labels, k, context))
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
        typical=context.typical,
        errors=_errors(every, rng),
    )


def _mean_square(embeddings: NDArray[np.float16]) -> float:
    """Of some hundreds of embeddings, spread over all."""
    some = embeddings[:: max(1, len(embeddings) // 500)].astype(np.float64)
    return float(np.square(some).sum(axis=1).mean())


def _levels(of: Sequence[Case]) -> dict[str, Line]:
    """For each level, the chance that it is right."""
    return {
        level: _line(
            [case.evidence.confidence_features(level) for case in of],
            [case.right(level) for case in of],
            _SHARE_ITSELF,
        )
        for level in LEVELS
    }


def _known(singles: Sequence[Case], unknown: Sequence[Evidence]) -> Line:
    """What tells them apart; closeness alone if there are few strangers."""
    if len(unknown) < _LEAST_GROUPS:
        return Line(0.0, (1.0, 0.0))
    features = [case.evidence.known_features for case in singles] + [each.known_features for each in unknown]
    return _line(features, [True] * len(singles) + [False] * len(unknown), (0.0, 0.0))


def _line(features: Sequence[tuple[float, ...]], right: Sequence[bool], slopes: Sequence[float]) -> Line:
    return Line(*logistic.fit(np.array(features), np.array(right), slopes))


def _cut(group: Sequence[Case], known: Line) -> float | None:
    """The logit that a new photo of a known car is below with FALSE_ALARM_RATE at most; None if the group is small.

    As in conformal prediction (Vovk et al. 2005), of n photos the one at FALSE_ALARM_RATE * (n + 1) from below.
    """
    if len(group) < _LEAST_GROUPS:
        return None
    logits = sorted(known.logit(case.evidence.known_features) for case in group)
    return logits[max(0, math.floor(FALSE_ALARM_RATE * (len(logits) + 1)) - 1)]


def _offsets(cuts: Sequence[float | None]) -> tuple[float, ...]:
    """What brings every cut to that of single photos, for as many photos as there are cuts."""
    offsets = [0.0]
    for cut in cuts[1:]:
        if cut is None or cuts[0] is None:
            break
        offsets.append(cuts[0] - cut)
    return tuple(offsets)


def _year_ratio(singles: Sequence[Case], labels: Sequence[Label]) -> tuple[float, int]:
    """The ratio that makes ranges pay best, and how many photos say so."""
    years = Years(labels)
    judged = [case for case in singles if case.right("model") and years.several(case.evidence.vote.answer)]
    if len(judged) < _LEAST_YEAR_PHOTOS:
        return DEFAULT_YEAR_RATIO, 0
    return min(_YEAR_RATIOS, key=lambda ratio: (_cost(judged, years, ratio), -ratio)), len(judged)


def _cost(judged: Sequence[Case], years: Years, ratio: float) -> float:
    """Of ranges: the right year missed costs 1, each year but one costs _YEAR_PRICE."""
    cost = 0.0
    for case in judged:
        found = years.range(case.evidence.vote, ratio)
        if found:
            missed = case.truth.year is None or not found.first <= case.truth.year <= found.last
            cost += missed + _YEAR_PRICE * (found.years - 1)
    return cost


def _errors(every: Sequence[Case], rng: np.random.Generator) -> dict[str, Error]:
    """By cross-validation over labels."""
    names = sorted({case.truth.label for case in every})
    fold_of = dict(zip(names, (rng.permutation(len(names)) % _FOLDS).tolist(), strict=True))
    judged: list[tuple[Case, tuple[float, float, float]]] = []
    for fold in range(_FOLDS):
        lines = _levels([case for case in every if fold_of[case.truth.label] != fold])
        judged += [
            (case, confidences(case.evidence, lines))
            for case in every
            if case.evidence.photos == 1 and fold_of[case.truth.label] == fold
        ]
    return {level: _error(judged, level, place) for place, level in enumerate(LEVELS)}


def _error(judged: Sequence[tuple[Case, tuple[float, float, float]]], level: str, place: int) -> Error:
    right = np.array([case.right(level) for case, _ in judged])
    shares = np.array([confidences(case.evidence, None)[place] for case, _ in judged])
    return Error(ece(shares, right), ece(np.array([given[place] for _, given in judged]), right))
