"""Descriptions of what is served: a model, an index and its labels."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from vmmr._types import Label


@dataclass(frozen=True)
class EmbedLimits:
    """What the embedder accepts."""

    max_images: int
    max_image_bytes: int
    max_image_pixels: int
    max_aspect_ratio: float
    max_request_bytes: int
    max_cars: int = 0
    """The most cars of one photo that are embedded, or told. 0 if the model has no detector."""


@dataclass(frozen=True)
class Detector:
    """What finds the cars in photos. It is part of the model: the fingerprint covers it."""

    name: str
    threshold: float
    """The least score of what is taken for a car."""
    margin: float
    """What is left around a car on each side, as a fraction of its width or height."""


@dataclass(frozen=True)
class ModelInfo:
    """The model that the embedder serves."""

    fingerprint: str
    name: str
    dimension: int
    precision: str
    input_size: int
    resize: str
    normalized: bool
    provider: str
    limits: EmbedLimits
    detector: Detector | None = None
    """None: photos are embedded whole unless a crop is given."""


@dataclass(frozen=True)
class QueryLimits:
    """What the search service accepts."""

    max_queries: int
    max_k: int
    max_request_bytes: int
    max_neighbours: int
    """The most neighbours that all queries of a call may have together."""
    max_shard_timeout_ms: int
    """The most milliseconds that the shards may have, which they have unless a search says otherwise."""


@dataclass(frozen=True)
class Calibration:
    """How the confidences and verdicts of an index were fitted: on photos of known cars that are not in its gallery."""

    photos: int
    false_alarm_rate: float
    """The share of photos of known cars that the threshold is chosen to call "unknown", wrongly. Aimed at, not measured."""
    unknown_threshold: float
    """The least `known_score` of a photo that is not unknown."""


@dataclass(frozen=True)
class CutCounts:
    """Gallery photos by the part of them that was embedded."""

    car: int
    """Cut out by the detector."""
    whole: int
    """Whole: the car fills them, or they were embedded whole."""
    no_car_found: int
    """Whole, because the detector found no car in them."""
    given: int
    """Cut out as their owner said."""
    unknown: int
    """Not known: they were embedded by a version of vmmr that did not say."""


@dataclass(frozen=True)
class IndexInfo:
    """The index that the search service serves."""

    version: str
    model: str
    """The fingerprint of the model that its embeddings were made with."""
    dimension: int
    items: int
    labels: int
    shards: int
    factory: str
    metric: Literal["inner_product", "l2"]
    k: int
    """Neighbours that a search finds unless it says otherwise. The next three are defaults of a search too."""
    nprobe: int | None
    """None: faiss's own default, which is 1, or the index has no lists. For `ef_search`, faiss's default is 16."""
    ef_search: int | None
    rerank: int | None
    """None: candidates are not compared again."""
    temperature: float
    journal_sequence: int
    created: datetime
    calibration: Calibration | None
    """None: confidences are shares of the vote, and there are no verdicts."""
    limits: QueryLimits
    delta_items: int
    """Items that were written since the version was built: each query is compared with all of them."""
    problem: str
    """Why the service answers from what it had: a journal or a version that it can't read. Empty: nothing is wrong."""
    lost_entries: int = 0
    """Entries of the journal that were acknowledged and are lost, as far as the service knows."""
    cuts: CutCounts | None = None
    """None: the service is of an earlier version, and does not say."""


@dataclass(frozen=True)
class Info:
    """The model and the index that are served."""

    model: ModelInfo
    index: IndexInfo

    @property
    def same_model(self) -> bool:
        """Whether the index was built with the embedder's model. Nothing can be identified otherwise."""
        return self.model.fingerprint == self.index.model


@dataclass(frozen=True)
class LabelCount:
    """A label of the gallery, and how many photos have it."""

    label: Label
    items: int
