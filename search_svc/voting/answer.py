"""The answer: from the neighbours of the photos of one car to what it is, how surely, and whether the gallery knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search_svc.voting.calibration import LEVELS, Calibration, Line, sigmoid
from search_svc.voting.evidence import Evidence, VoteContext, gather
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import Vote, Weighting
from search_svc.voting.years import Years

VerdictName = Literal["known", "unsure", "unknown"]

DEFAULT_YEAR_RATIO = 0.5
"""For an index that is not calibrated, or on too few photos of models with several years."""


class Settings(Protocol):
    """What an index was built with, as far as the vote depends on it."""

    @property
    def temperature(self) -> float: ...


class Counts(Protocol):
    """What a gallery holds, by label."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Photos of each label."""
        ...

    @property
    def years(self) -> Years: ...


class Gallery(Protocol):
    """What answers are made with: an index version, or a view of one that has been written to since."""

    @property
    def calibration(self) -> Calibration | None: ...

    @property
    def manifest(self) -> Settings: ...

    @property
    def items(self) -> Counts: ...

    @property
    def typical(self) -> Mapping[str, float]:
        """How near a label's photos are to each other, by label; empty if the index is not calibrated."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a car is. All that is calibrated is fitted on photos held out of the gallery."""

    vote: Vote
    """Its confidences are shares of the vote, never calibrated."""
    make_confidence: float
    """Calibrated if the index is, else the vote's share: 0 <= label <= model <= make <= 1."""
    model_confidence: float
    label_confidence: float
    verdict: VerdictName | None
    """None if the index is not calibrated."""
    known_score: float | None
    """0 to 1; higher: more surely a car of the gallery. Below the calibration's threshold the verdict is unknown."""
    years: tuple[int, int] | None
    """First and last of the years that the gallery cannot tell apart; equal where it can; None without a year."""
    years_confidence: float
    """Of the range: label_confidence <= years_confidence <= model_confidence."""


class Answerer:
    """Answers from one gallery."""

    def __init__(self, gallery: Gallery) -> None:
        fitted = gallery.calibration
        self._calibration = fitted
        weighting = Weighting(gallery.manifest.temperature, fitted.prior if fitted else 0.0)
        self._context = VoteContext(weighting, gallery.items.sizes, gallery.typical)
        self._years = gallery.items.years

    def answer(self, found: Sequence[QueryNeighbours], min_confidence: float = 0.0) -> Answer | None:
        """What one car is, from the neighbours of each photo of it; None if nothing was found."""
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
            verdict=_verdict(score, label, min_confidence, fitted) if fitted else None,
            known_score=score,
            years=(years.first, years.last) if years else None,
            years_confidence=_between(label, model, vote, years.share) if years else label,
        )

    def known_scores(self, found: Sequence[QueryNeighbours]) -> dict[str, float]:
        """Scores of how surely the car is one of the gallery's, by name, higher is surer: for the evaluation to compare.

        Empty if nothing was found; the one that verdicts go by is there if the index is calibrated.
        """
        evidence = gather(found, self._context)
        if evidence is None:
            return {}
        scores = {"k-th similarity": evidence.farthest, "vote entropy": -evidence.label_entropy}
        if self._calibration:
            scores["combined"] = known_score(evidence, self._calibration)
        return scores


def confidences(evidence: Evidence, levels: Mapping[str, Line] | None) -> tuple[float, float, float]:
    """Of the label, its model and its make, each at least as sure as the one before; shares without fitted levels."""
    if levels is None:
        vote = evidence.vote
        return vote.label_confidence, vote.model_confidence, vote.make_confidence
    label, model, make = (sigmoid(levels[level].logit(evidence.confidence_features(level))) for level in LEVELS)
    return label, max(label, model), max(label, model, make)


def known_score(evidence: Evidence, fitted: Calibration) -> float:
    offsets = fitted.known_offsets
    return sigmoid(fitted.known.logit(evidence.known_features) + offsets[min(evidence.photos, len(offsets)) - 1])


def _verdict(score: float | None, confidence: float, min_confidence: float, fitted: Calibration) -> VerdictName:
    if score is not None and score < fitted.unknown_threshold:
        return "unknown"
    return "unsure" if confidence < min_confidence else "known"


def _between(label: float, model: float, vote: Vote, share: float) -> float:
    """The confidence of a range of years: as far from the label's to the model's as its share is."""
    rest = vote.model_confidence - vote.label_confidence
    part = (share - vote.label_confidence) / rest if rest > 0 else 0.0
    return min(max(label + min(max(part, 0.0), 1.0) * (model - label), label), model)
