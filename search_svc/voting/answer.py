"""The answer: what a car is, how sure that is, and whether the gallery knows it, from the neighbours of its photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search_svc.voting.calibration import Calibration, LogisticModel, sigmoid
from search_svc.voting.evidence import Evidence, VoteContext, gather
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import LEVELS, Vote, Weighting
from search_svc.voting.years import Years

VerdictName = Literal["known", "unsure", "unknown"]

DEFAULT_YEAR_RATIO = 0.5
"""The year ratio of an index that is not calibrated, or that was calibrated on too few photos to fit one."""


class Settings(Protocol):
    """The settings of an index that the vote depends on."""

    @property
    def temperature(self) -> float: ...


class Counts(Protocol):
    """The photos and years that a gallery has of its labels."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The number of photos in the gallery, by label."""
        ...

    @property
    def years(self) -> Years: ...


class Gallery(Protocol):
    """A gallery to answer from: an index version, or a view of one that was written to since it was built."""

    @property
    def calibration(self) -> Calibration | None: ...

    @property
    def manifest(self) -> Settings: ...

    @property
    def items(self) -> Counts: ...

    @property
    def typical(self) -> Mapping[str, float]:
        """The score that photos of a label typically have with each other, by label; empty without a calibration."""
        ...


@dataclass(frozen=True)
class Answer:
    """The answer for one car. Calibrated figures were fitted on photos held out of the gallery."""

    vote: Vote
    """The vote, whose confidences are shares of the vote, never calibrated."""
    make_confidence: float
    """Confidences are calibrated if the index is, else shares of the vote; 0 <= label <= model <= make <= 1."""
    model_confidence: float
    label_confidence: float
    verdict: VerdictName | None
    """Whether the gallery knows the car; None if the index is not calibrated. `unknown` if no photo shows a car."""
    known_score: float | None
    """How surely the gallery knows the car, 0 to 1. Below the calibration's threshold the verdict is `unknown`."""
    years: tuple[int, int] | None
    """First and last of the years that the gallery cannot tell apart, often the same; None if the label has no year."""
    years_confidence: float
    """The confidence in the range of years: label_confidence <= years_confidence <= model_confidence."""


class Answerer:
    """Makes answers from the neighbours in one gallery."""

    def __init__(self, gallery: Gallery) -> None:
        fitted = gallery.calibration
        self._calibration = fitted
        temperature = gallery.manifest.temperature
        weighting = fitted.weighting(temperature) if fitted else Weighting(temperature)
        self._context = VoteContext(weighting, gallery.items.sizes, gallery.typical)
        self._years = gallery.items.years

    def answer(self, found: Sequence[QueryNeighbours], min_confidence: float = 0.0) -> Answer | None:
        """Return what one car is, from the neighbours of each of its photos; None if no photo has neighbours."""
        evidence = gather(found, self._context)
        if evidence is None:
            return None
        fitted, vote = self._calibration, evidence.vote
        label, model, make = confidences(evidence, fitted.levels if fitted else None)
        years = self._years.range(vote, fitted.year_ratio if fitted else DEFAULT_YEAR_RATIO)
        score = known_score(evidence, fitted) if fitted else None
        return Answer(
            vote=vote,
            make_confidence=make,
            model_confidence=model,
            label_confidence=label,
            verdict="unknown" if no_car(found) else _verdict(score, label, min_confidence, fitted) if fitted else None,
            known_score=score,
            years=(years.first, years.last) if years else None,
            years_confidence=_between(label, model, vote, years.share) if years else label,
        )

    def known_scores(self, found: Sequence[QueryNeighbours]) -> dict[str, float]:
        """Return several scores of how surely the gallery knows the car, by name, for the evaluation to compare.

        Higher is surer. `combined`, by which verdicts are given, needs a calibration. Empty if no photo has neighbours.
        """
        evidence = gather(found, self._context)
        if evidence is None:
            return {}
        scores = {"k-th similarity": evidence.farthest, "vote entropy": -evidence.label_entropy}
        if self._calibration:
            scores["combined"] = known_score(evidence, self._calibration)
        return scores


def no_car(photos: Sequence[QueryNeighbours]) -> bool:
    """Return whether no car was found in any of the photos, so that there is nothing to know."""
    return all(photo.no_car_found for photo in photos)


def confidences(evidence: Evidence, levels: Mapping[str, LogisticModel] | None) -> tuple[float, float, float]:
    """Return the confidences in the label, its model and its make, each at least as high as the one before.

    Without fitted `levels` they are the shares of the vote.
    """
    if levels is None:
        vote = evidence.vote
        return vote.label_confidence, vote.model_confidence, vote.make_confidence
    label, model, make = (sigmoid(levels[level].logit(evidence.confidence_features(level))) for level in LEVELS)
    return label, max(label, model), max(label, model, make)


def known_score(evidence: Evidence, fitted: Calibration) -> float:
    """Return how surely the gallery knows the car, 0 to 1, comparable for any number of fused photos."""
    offsets, features = fitted.known_offsets, evidence.known_features[: len(fitted.known.slopes)]
    return sigmoid(fitted.known.logit(features) + offsets[min(evidence.photos, len(offsets)) - 1])


def _verdict(score: float | None, confidence: float, min_confidence: float, fitted: Calibration) -> VerdictName:
    if score is not None and score < fitted.unknown_threshold:
        return "unknown"
    return "unsure" if confidence < min_confidence else "known"


def _between(label: float, model: float, vote: Vote, share: float) -> float:
    """Return the confidence in a range of years that has this share of the vote.

    It lies between those in the label and in the model as far as its share lies between theirs.
    """
    rest = vote.model_confidence - vote.label_confidence
    part = (share - vote.label_confidence) / rest if rest > 0 else 0.0
    return min(max(label + min(max(part, 0.0), 1.0) * (model - label), label), model)
