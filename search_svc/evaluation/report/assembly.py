"""Assembles the report from the photos that were examined."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from search_svc.evaluation.accuracy import CLASSES, NEAREST, RECALL_AT, VOTE, scores
from search_svc.evaluation.enrolment import Enrolment
from search_svc.evaluation.examiner import ExaminedPhoto
from search_svc.evaluation.report.confidence import confidences
from search_svc.evaluation.report.content import Calibrated, Gain, Recall, Report, Years
from search_svc.evaluation.report.fusing import AnswererOf, fused
from search_svc.evaluation.report.mistakes import confused, intruders, makes, worst, wrong
from search_svc.evaluation.report.unknown import NOT_CARS, UNKNOWN, Kinds, called_unknown, detections, distribution
from search_svc.evaluation.resampling import COSTLY_RESAMPLES, RESAMPLES, paired_difference, share
from search_svc.index.version import IndexVersion

SEED = 0


def assemble(
    version: IndexVersion,
    answerer: AnswererOf,
    split: str,
    photos: Sequence[ExaminedPhoto],
    not_cars: Sequence[ExaminedPhoto],
    *,
    enrolment: Sequence[Enrolment] = (),
) -> Report:
    """Make the report on the photos of a split, one of which at least is of a known label, and on pictures without cars."""
    known = [photo for photo in photos if photo.known]
    unknown = [photo for photo in photos if not photo.known]
    with_car = _with_car(known)
    kinds: Kinds = {kind: found for kind, found in ((UNKNOWN, unknown), (NOT_CARS, not_cars)) if found}
    calibration = version.calibration
    return Report(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        **_index_facts(version),
        split=split,
        seed=SEED,
        resamples=RESAMPLES,
        costly_resamples=COSTLY_RESAMPLES,
        **_photo_counts(photos, known, not_cars),
        scores=scores([photo.right for photo in known], SEED),
        scores_with_car=scores([photo.right for photo in with_car], SEED),
        vote_gain=_gains(known),
        recall=_recall(known),
        years=_years(known),
        confidence=confidences(known, unknown, calibrated=calibration is not None, seed=SEED),
        false_alarms=called_unknown(known, SEED),
        false_alarms_with_car=called_unknown(with_car, SEED),
        unknown=detections(known, kinds, SEED),
        distribution=distribution(known, kinds, calibration.unknown_threshold if calibration else None),
        fused=fused(known, answerer, SEED),
        enrolment=list(enrolment),
        **_mistakes(known, [*unknown, *not_cars], version),
    )


def _with_car(known: Sequence[ExaminedPhoto]) -> list[ExaminedPhoto]:
    """Return the photos in which a car was found; none if one was found in all."""
    found = [photo for photo in known if not photo.found.no_car_found]
    return found if len(found) < len(known) else []


def _index_facts(version: IndexVersion) -> dict[str, Any]:
    """Return the report's fields that describe the index."""
    manifest = version.manifest
    return {
        "index_version": manifest.version,
        "index_created": manifest.created.isoformat(timespec="seconds"),
        "model": manifest.model,
        "model_name": manifest.model_name,
        "factory": manifest.factory,
        "metric": manifest.metric,
        "search": manifest.search,
        "k": manifest.k,
        "temperature": manifest.temperature,
        "calibration": _calibrated(version),
        "gallery": manifest.items,
        "gallery_labels": manifest.labels,
    }


def _photo_counts(
    photos: Sequence[ExaminedPhoto], known: Sequence[ExaminedPhoto], not_cars: Sequence[ExaminedPhoto]
) -> dict[str, Any]:
    """Return the report's fields that count photos."""
    return {
        "asked": len(photos),
        "photos": len(known),
        "labels": len({photo.truth.label for photo in known}),
        "in_gallery": sum(photo.in_gallery for photo in photos),
        "unknown_label": len(photos) - len(known),
        "not_cars": len(not_cars),
        "no_car_found": sum(photo.found.no_car_found for photo in known),
    }


def _mistakes(
    known: Sequence[ExaminedPhoto], strangers: Sequence[ExaminedPhoto], version: IndexVersion
) -> dict[str, Any]:
    """Return the report's fields that show what was answered wrong."""
    mistaken = wrong(known)
    return {
        "makes": makes(known, SEED),
        "mistakes": len(mistaken),
        "confused": confused(known),
        "worst": worst(mistaken, version.items),
        "intruders": intruders(strangers, version.items),
    }


def _gains(known: Sequence[ExaminedPhoto]) -> list[Gain]:
    gains = []
    for level in CLASSES:
        judged = [photo.right for photo in known if (level, VOTE) in photo.right]
        if judged:
            vote, nearest = (np.array([right[level, measure] for right in judged]) for measure in (VOTE, NEAREST))
            won, lost = int((vote & ~nearest).sum()), int((nearest & ~vote).sum())
            gains.append(Gain(level, len(judged), won, lost, paired_difference(vote, nearest, SEED)))
    return gains


def _recall(known: Sequence[ExaminedPhoto]) -> list[Recall]:
    return [Recall(k, len(known), share(np.array([photo.recall[k] for photo in known]), SEED)) for k in RECALL_AT]


def _years(known: Sequence[ExaminedPhoto]) -> Years | None:
    ranges = [photo.answer.years for photo in known if photo.answer and photo.answer.years]
    if not ranges:
        return None
    widths = np.array([last - first + 1 for first, last in ranges])
    return Years(len(ranges), float(widths.mean()), float((widths > 1).mean()))


def _calibrated(version: IndexVersion) -> Calibrated | None:
    if not (fitted := version.calibration):
        return None
    return Calibrated(fitted.photos, fitted.false_alarm_rate, fitted.unknown_threshold, fitted.strangers)
