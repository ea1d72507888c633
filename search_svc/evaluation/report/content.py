"""All that a report says, as plain data: what made the figures, then the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from search_svc.evaluation.accuracy import LEVELS, NEAREST, RECALL_AT, VOTE, Score, scores
from search_svc.evaluation.examiner import Examined
from search_svc.evaluation.report.confidence import Confidence, confidences
from search_svc.evaluation.report.fusing import Fused, fused
from search_svc.evaluation.report.mistakes import Make, Mistake, Pair, confused, intruders, makes, worst, wrong
from search_svc.evaluation.report.unknown import (
    NOT_CARS,
    UNKNOWN,
    Detection,
    Distribution,
    Kinds,
    called_unknown,
    detections,
    distribution,
)
from search_svc.evaluation.resampling import COSTLY_RESAMPLES, RESAMPLES, Estimate, paired_difference, share
from search_svc.index.version import IndexVersion, SearchParams
from search_svc.voting.answer import Answerer

SEED = 0


@dataclass(frozen=True)
class Recall:
    """Recall@K: share of the photos that have one of their label among the K nearest."""

    k: int
    photos: int
    recall: Estimate


@dataclass(frozen=True)
class Gain:
    """What the vote wins over the nearest photo, at one level."""

    level: str
    photos: int
    won: int
    """Photos of which the vote is right and the nearest photo wrong."""
    lost: int
    gain: Estimate
    """(won - lost) / photos; drawn by photos."""


@dataclass(frozen=True)
class Years:
    """The ranges of years that answers give."""

    photos: int
    """That have an answer with a year."""
    mean_width: float
    """In years; 1 where the answer is one year."""
    wider: float
    """Share of answers whose range is more than one year."""


@dataclass(frozen=True)
class Calibrated:
    """What the index's calibration says of itself."""

    photos: int
    """That it was fitted on."""
    false_alarm_rate: float
    """Share of those that the threshold calls unknown."""
    unknown_threshold: float
    """Of the verdict's score."""


@dataclass(frozen=True)
class Report:
    """How well an index version recognises the photos of some splits."""

    made: str
    """When, UTC."""
    index_version: str
    index_created: str
    model: str
    """Fingerprint."""
    model_name: str
    factory: str
    metric: str
    search: SearchParams
    k: int
    temperature: float
    calibration: Calibrated | None
    """None if the index is not calibrated."""
    gallery: int
    """Photos in the index."""
    gallery_labels: int
    split: str
    seed: int
    """Of resamples and of groups."""
    resamples: int
    """Of shares and differences."""
    costly_resamples: int
    """Of the other figures."""
    asked: int
    """Photos of the splits."""
    photos: int
    """Those of labels of which the index has a photo beside them: of them are all figures but those of unknown cars."""
    labels: int
    """Distinct, of `photos`."""
    in_gallery: int
    """Of all that were asked for, those that are in the index themselves; each was left out of its own neighbours."""
    unknown_label: int
    """Those of a label that the index does not have: unknown cars."""
    not_cars: int
    scores: list[Score]
    vote_gain: list[Gain]
    recall: list[Recall]
    years: Years | None
    confidence: list[Confidence]
    false_alarms: Estimate | None
    """Share of `photos` with the verdict `unknown`; None if the index is not calibrated."""
    unknown: list[Detection]
    distribution: Distribution | None
    fused: list[Fused]
    makes: list[Make]
    mistakes: int
    """Photos whose answer is of another label."""
    confused: list[Pair]
    worst: list[Mistake]
    intruders: list[Mistake]
    """Unknown cars, and what is no car, that passed for a known one."""

    @property
    def fitted_on(self) -> bool:
        """Whether photos that the calibration was fitted on may be among those asked for."""
        return self.calibration is not None and "dev" in self.split.split(",")


def assemble(
    version: IndexVersion,
    answerer: Answerer,
    split: str,
    photos: Sequence[Examined],
    not_cars: Sequence[Examined],
) -> Report:
    """The report of photos, one of which at least is of a known label, and of pictures that show no car."""
    known = [photo for photo in photos if photo.known]
    unknown = [photo for photo in photos if not photo.known]
    kinds: Kinds = {kind: found for kind, found in ((UNKNOWN, unknown), (NOT_CARS, not_cars)) if found}
    manifest, calibration = version.manifest, version.calibration
    mistaken = wrong(known)
    return Report(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        index_version=manifest.version,
        index_created=manifest.created.isoformat(timespec="seconds"),
        model=manifest.model,
        model_name=manifest.model_name,
        factory=manifest.factory,
        metric=manifest.metric,
        search=manifest.search,
        k=manifest.k,
        temperature=manifest.temperature,
        calibration=_calibrated(version),
        gallery=manifest.items,
        gallery_labels=manifest.labels,
        split=split,
        seed=SEED,
        resamples=RESAMPLES,
        costly_resamples=COSTLY_RESAMPLES,
        asked=len(photos),
        photos=len(known),
        labels=len({photo.truth.label for photo in known}),
        in_gallery=sum(photo.in_gallery for photo in photos),
        unknown_label=len(unknown),
        not_cars=len(not_cars),
        scores=scores([photo.right for photo in known], SEED),
        vote_gain=_gains(known),
        recall=_recall(known),
        years=_years(known),
        confidence=confidences(known, unknown, calibrated=calibration is not None, seed=SEED),
        false_alarms=called_unknown(known, SEED),
        unknown=detections(known, kinds, SEED),
        distribution=distribution(known, kinds, calibration.unknown_threshold if calibration else None),
        fused=fused(known, answerer, SEED),
        makes=makes(known, SEED),
        mistakes=len(mistaken),
        confused=confused(known),
        worst=worst(mistaken, version.items),
        intruders=intruders([*unknown, *not_cars], version.items),
    )


def _gains(known: Sequence[Examined]) -> list[Gain]:
    gains = []
    for level in LEVELS:
        judged = [photo.right for photo in known if (level, VOTE) in photo.right]
        if judged:
            vote, nearest = (np.array([right[level, measure] for right in judged]) for measure in (VOTE, NEAREST))
            won, lost = int((vote & ~nearest).sum()), int((nearest & ~vote).sum())
            gains.append(Gain(level, len(judged), won, lost, paired_difference(vote, nearest, SEED)))
    return gains


def _recall(known: Sequence[Examined]) -> list[Recall]:
    return [Recall(k, len(known), share(np.array([photo.recall[k] for photo in known]), SEED)) for k in RECALL_AT]


def _years(known: Sequence[Examined]) -> Years | None:
    ranges = [photo.answer.years for photo in known if photo.answer and photo.answer.years]
    if not ranges:
        return None
    widths = np.array([last - first + 1 for first, last in ranges])
    return Years(len(ranges), float(widths.mean()), float((widths > 1).mean()))


def _calibrated(version: IndexVersion) -> Calibrated | None:
    if not (fitted := version.calibration):
        return None
    return Calibrated(fitted.photos, fitted.false_alarm_rate, fitted.unknown_threshold)
