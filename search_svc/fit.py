"""Fitting a calibration: what a gallery's votes are worth, from photos of its labels that are not in it.

Cars that the gallery lacks are not needed: a photo whose own label is left out of its neighbours is one.
docs/calibration.md has the formulas.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_svc import logistic
from search_svc.answer import DEFAULT_YEAR_RATIO, confidences, sizes
from search_svc.calibration import LEVELS, Calibration, Error, Line, sigmoid
from search_svc.evidence import Evidence, Scale, gather
from search_svc.labels import Label
from search_svc.report.metrics import ece
from search_svc.searcher import Found
from search_svc.shards import ShardSet
from search_svc.typical import typical_scores
from search_svc.version import IndexVersion
from search_svc.vote import path
from search_svc.weighing import KS, Asked, fit_weighting
from search_svc.years import Years

LEAST_PHOTOS = 100
LEAST_LABELS = 5
MOST_PHOTOS = 4000
"""Drawn at random from more."""
FALSE_ALARM_RATE = 0.05

_DEEPEST = 1024
_BATCH = 256
_GROUPS = (1, 2, 3, 4, 5)
"""Photos that are fused, to learn what fused votes are worth."""
_LEAST_GROUPS = 40
_SHARE_ITSELF = (1.0, 0.0, 0.0)
"""Slopes by which a confidence is the share of the vote."""
_YEAR_RATIOS = (*(step / 20 for step in range(1, 21)), 2.0)
_YEAR_PRICE = 0.25
"""One more year in a range must be the right one for so many of the photos that get it."""
_LEAST_YEAR_PHOTOS = 50


@dataclass(frozen=True)
class Held:
    """Photos of a gallery's labels that are not in the gallery."""

    embeddings: NDArray[Any]  # (M, dimension)
    rows: NDArray[np.int64]
    """(Q,) of the embeddings: the photos."""
    labels: Sequence[Label]
    """(Q,) theirs; each is one of the gallery's."""


@dataclass(frozen=True)
class Case:
    """A car whose label is known, and the evidence of some photos of it."""

    truth: Label
    evidence: Evidence

    def right(self, level: str) -> bool:
        depth = {"make": 1, "model": 2, "label": 3}[level]
        return path(self.truth)[:depth] == path(self.evidence.vote.answer)[:depth]


def fit(
    version: IndexVersion, shards: ShardSet, held: Held, *, k: int | None, temperature: float | None
) -> Calibration:
    """The calibration of a version that has none yet; k and temperature are fitted unless they are given."""
    rng = np.random.default_rng(version.manifest.seed)
    asked = _ask(version, shards, held, rng, k)
    labels, photos = version.items.labels, sizes(version.items)
    counts = np.array([photos[label.label] for label in labels], np.int64)
    unit = _mean_square(version.embeddings)
    k, weighting = fit_weighting(asked, labels, counts, unit, k=k, temperature=temperature)
    typical = typical_scores(
        version.embeddings, version.items.label_of, len(labels), version.manifest.metric, version.manifest.seed
    )
    scale = Scale(
        weighting, photos, {label.label: value for label, value in zip(labels, typical.tolist(), strict=True)}
    )
    found = [
        (labels[truth], _found(scores[:k], positions[:k], labels))
        for scores, positions, truth in zip(asked.scores, asked.positions, asked.truth.tolist(), strict=True)
    ]
    groups = [_cases(found, scale, size, rng) for size in _GROUPS]
    singles, cases = groups[0], [case for group in groups for case in group]
    known = _known(singles, _strangers(asked, labels, k, scale))
    cuts = [_cut(group, known) for group in groups]
    ratio, year_photos = _year_ratio(singles, labels)
    return Calibration(
        photos=len(singles),
        k=k,
        temperature=weighting.temperature,
        prior=weighting.prior,
        levels=_levels(cases),
        known=known,
        known_offsets=_offsets(cuts),
        false_alarm_rate=FALSE_ALARM_RATE,
        unknown_threshold=sigmoid(cuts[0] or 0.0),
        year_ratio=ratio,
        year_photos=year_photos,
        typical=scale.typical,
        errors=_errors(cases, rng),
    )


def _ask(version: IndexVersion, shards: ShardSet, held: Held, rng: np.random.Generator, k: int | None) -> Asked:
    """Deep enough that most photos have neighbours left without those of their own make."""
    place = {label.label: position for position, label in enumerate(version.items.labels)}
    chosen = np.sort(rng.choice(len(held.rows), min(len(held.rows), MOST_PHOTOS), replace=False))
    depth = min(len(version.items), max(*KS, k or 0) + _DEEPEST)
    hits = [
        shards.search(held.embeddings[held.rows[chosen[start : start + _BATCH]]].astype(np.float32), depth)
        for start in range(0, len(chosen), _BATCH)
    ]
    ids = np.concatenate([each.ids for each in hits])
    scores = np.concatenate([each.scores for each in hits]).astype(np.float64)
    positions = np.where(ids >= 0, version.items.label_of[ids], -1).astype(np.int64)
    answered = ids[:, 0] >= 0
    truth = np.array([place[held.labels[row].label] for row in chosen], np.int64)
    return Asked(scores[answered], positions[answered], truth[answered])


def _mean_square(embeddings: NDArray[np.float16]) -> float:
    """Of some hundreds of embeddings, spread over all."""
    some = embeddings[:: max(1, len(embeddings) // 500)].astype(np.float64)
    return float(np.square(some).sum(axis=1).mean())


def _cases(found: Sequence[tuple[Label, Found]], scale: Scale, size: int, rng: np.random.Generator) -> list[Case]:
    """Of groups of photos of one label: about as many groups as photos, no two the same."""
    photos_of: dict[Label, list[Found]] = defaultdict(list)
    for truth, each in found:
        photos_of[truth].append(each)
    return [
        Case(truth, evidence)
        for truth, photos in photos_of.items()
        for group in _groups(len(photos), size, rng)
        if (evidence := gather([photos[place] for place in group], scale))
    ]


def _groups(photos: int, size: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    if photos < size:
        return []
    if size == 1:
        return [(place,) for place in range(photos)]
    return sorted({tuple(sorted(rng.choice(photos, size, replace=False).tolist())) for _ in range(photos)})


def _strangers(asked: Asked, labels: Sequence[Label], k: int, scale: Scale) -> list[Evidence]:
    """What photos would find in a gallery without their label, or their make; where k neighbours are known for that."""
    makes = [path(label)[0] for label in labels]
    number = np.unique(makes, return_inverse=True)[1]
    strangers = []
    for scores, positions, truth in zip(asked.scores, asked.positions, asked.truth, strict=True):
        for foreign in (positions != truth, number[positions] != number[truth]):
            others = np.flatnonzero((positions >= 0) & foreign)[:k]
            if len(others) == k and (evidence := gather([_found(scores[others], positions[others], labels)], scale)):
                strangers.append(evidence)
    return strangers


def _found(scores: NDArray[np.float64], positions: NDArray[np.int64], labels: Sequence[Label]) -> Found:
    kept = positions >= 0
    return Found([], [labels[position] for position in positions[kept].tolist()], scores[kept].tolist())


def _levels(cases: Sequence[Case]) -> dict[str, Line]:
    """For each level, the chance that it is right."""
    return {
        level: _line(
            [case.evidence.confidence_features(level) for case in cases],
            [case.right(level) for case in cases],
            _SHARE_ITSELF,
        )
        for level in LEVELS
    }


def _known(singles: Sequence[Case], strangers: Sequence[Evidence]) -> Line:
    """What tells them apart; closeness alone if there are few strangers."""
    if len(strangers) < _LEAST_GROUPS:
        return Line(0.0, (1.0, 0.0))
    features = [case.evidence.known_features for case in singles] + [each.known_features for each in strangers]
    return _line(features, [True] * len(singles) + [False] * len(strangers), (0.0, 0.0))


def _line(features: Sequence[tuple[float, ...]], right: Sequence[bool], slopes: Sequence[float]) -> Line:
    return Line(*logistic.fit(np.array(features), np.array(right), slopes))


def _cut(cases: Sequence[Case], known: Line) -> float | None:
    """The logit that a new photo of a known car is below with FALSE_ALARM_RATE at most; None if there are few cases.

    As in conformal prediction (Vovk et al. 2005), of n photos the one at FALSE_ALARM_RATE * (n + 1) from below.
    """
    if len(cases) < _LEAST_GROUPS:
        return None
    logits = sorted(known.logit(case.evidence.known_features) for case in cases)
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
    cases = [case for case in singles if case.right("model") and years.several(case.evidence.vote.answer)]
    if len(cases) < _LEAST_YEAR_PHOTOS:
        return DEFAULT_YEAR_RATIO, 0
    return min(_YEAR_RATIOS, key=lambda ratio: (_cost(cases, years, ratio), -ratio)), len(cases)


def _cost(cases: Sequence[Case], years: Years, ratio: float) -> float:
    """Of ranges: the right year missed costs 1, each year but one costs _YEAR_PRICE."""
    cost = 0.0
    for case in cases:
        found = years.range(case.evidence.vote, ratio)
        if found:
            missed = case.truth.year is None or not found.first <= case.truth.year <= found.last
            cost += missed + _YEAR_PRICE * (found.years - 1)
    return cost


def _errors(cases: Sequence[Case], rng: np.random.Generator) -> dict[str, Error]:
    """By cross-validation over labels."""
    names = sorted({case.truth.label for case in cases})
    fold_of = dict(zip(names, (rng.permutation(len(names)) % LEAST_LABELS).tolist(), strict=True))
    judged: list[tuple[Case, tuple[float, float, float]]] = []
    for fold in range(LEAST_LABELS):
        lines = _levels([case for case in cases if fold_of[case.truth.label] != fold])
        judged += [
            (case, confidences(case.evidence, lines))
            for case in cases
            if case.evidence.photos == 1 and fold_of[case.truth.label] == fold
        ]
    return {level: _error(judged, level, place) for place, level in enumerate(LEVELS)}


def _error(judged: Sequence[tuple[Case, tuple[float, float, float]]], level: str, place: int) -> Error:
    right = np.array([case.right(level) for case, _ in judged])
    shares = np.array([confidences(case.evidence, None)[place] for case, _ in judged])
    return Error(ece(shares, right), ece(np.array([given[place] for _, given in judged]), right))
