"""The content of a report, as plain data: first what the figures were made of, then the figures."""

from dataclasses import dataclass

from search_svc.evaluation.accuracy import Score
from search_svc.evaluation.enrolment import Enrolment
from search_svc.evaluation.report.confidence import Confidence
from search_svc.evaluation.report.fusing import Fused
from search_svc.evaluation.report.mistakes import Make, Mistake, Pair
from search_svc.evaluation.report.unknown import Detection, Distribution
from search_svc.evaluation.resampling import Estimate
from search_svc.index.version import SearchParams
from search_svc.voting.calibration import Strangers


@dataclass(frozen=True)
class Recall:
    """Recall@K: the share of the photos that have a photo of their label among their K nearest."""

    k: int
    photos: int
    recall: Estimate


@dataclass(frozen=True)
class Gain:
    """How much more often the vote is right than the nearest photo, at one level."""

    level: str
    photos: int
    won: int
    """How many photos the vote alone gets right."""
    lost: int
    """How many photos the nearest photo alone gets right."""
    gain: Estimate
    """(won - lost) / photos; photos are drawn for the interval."""


@dataclass(frozen=True)
class Years:
    """The ranges of years that answers give."""

    photos: int
    """How many photos have an answer with a year."""
    mean_width: float
    """The mean width of the ranges, in years; that of a single year is 1."""
    wider: float
    """The share of these answers whose range is wider than one year."""


@dataclass(frozen=True)
class Calibrated:
    """The facts about the index's calibration that the report tells."""

    photos: int
    """How many photos it was fitted on."""
    false_alarm_rate: float
    """The share of known cars that the threshold was set to call unknown."""
    unknown_threshold: float
    """The threshold of the verdict's score."""
    strangers: Strangers | None
    """How well the verdict tells unknown cars, as `build` measured it; None if there were too few photos to say."""


@dataclass(frozen=True)
class Report:
    """How well an index version recognises the photos of some splits."""

    made: str
    """When the report was made, in UTC."""
    index_version: str
    index_created: str
    model: str
    """The fingerprint of the model."""
    model_name: str
    factory: str
    metric: str
    search: SearchParams
    k: int
    temperature: float
    calibration: Calibrated | None
    """The calibration of the index; None if it has none."""
    gallery: int
    """How many photos are in the index."""
    gallery_labels: int
    split: str
    """The splits whose photos were asked for, separated by commas."""
    seed: int
    """The seed of the resamples and of the groups."""
    resamples: int
    """How many resamples were made for shares and differences."""
    costly_resamples: int
    """How many resamples were made for the other figures."""
    asked: int
    """How many photos the splits have."""
    photos: int
    """How many of them have a label that the index has another photo of. All figures are of these, but those of unknown cars."""
    labels: int
    """How many distinct labels these photos have."""
    in_gallery: int
    """How many of the photos asked for are in the index themselves; each was left out of its own neighbours."""
    unknown_label: int
    """How many of the photos asked for have a label that the index does not have: unknown cars."""
    not_cars: int
    """How many pictures without a car were asked for."""
    no_car_found: int
    """In how many of the known photos no car was found. They count: their verdict is `unknown`."""
    scores: list[Score]
    scores_with_car: list[Score]
    """The scores without the photos in which no car was found; empty if there are none."""
    vote_gain: list[Gain]
    recall: list[Recall]
    years: Years | None
    confidence: list[Confidence]
    false_alarms: Estimate | None
    """The share of the known photos with the verdict `unknown`; None if no answer has a verdict."""
    false_alarms_with_car: Estimate | None
    """The same without the photos in which no car was found; None also if there are none."""
    unknown: list[Detection]
    distribution: Distribution | None
    fused: list[Fused]
    enrolment: list[Enrolment]
    """What became of labels that the index lacks when photos of them were added; empty if that was not asked for."""
    makes: list[Make]
    mistakes: int
    """How many photos have an answer of another label."""
    confused: list[Pair]
    worst: list[Mistake]
    intruders: list[Mistake]
    """Unknown cars, and pictures without a car, that passed for a known car."""

    @property
    def fitted_on(self) -> bool:
        """Whether the photos asked for may include some that the calibration was fitted on."""
        return self.calibration is not None and "dev" in self.split.split(",")
