"""Evidence: what the neighbours of the photos of one car say, before it is calibrated.

Each photo has one vote, whole, whatever its neighbours' scores are; several photos of one car are fused by the mean of
their votes (a linear opinion pool, Stone 1961).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import Candidate, Vote, Weighting, elect, weights

_SHARES = (1e-3, 1 - 1e-3)
"""No share is surer: what lies beyond comes of the temperature, not of the photos."""


@dataclass(frozen=True)
class VoteContext:
    """What a score is measured against: the labels of a gallery."""

    weighting: Weighting
    sizes: Mapping[str, int]
    """Photos in the gallery, by label."""
    typical: Mapping[str, float]
    """How near a photo of the label is to others of it, in units of the score; where missing, 0."""


@dataclass(frozen=True)
class Evidence:
    vote: Vote
    photos: int
    """That are fused."""
    farthest: float
    """The score of the last neighbour, the k-th; mean over the photos."""
    closeness: float
    """By how much the nearest neighbour is nearer than is typical of its label; mean over the photos."""

    def confidence_features(self, level: str) -> tuple[float, ...]:
        """What the chance depends on that a level of the answer is right: label, model or make."""
        low, high = _SHARES
        share = min(max(getattr(self.vote, f"{level}_confidence"), low), high)
        return math.log(share / (1 - share)), self.closeness, math.log(self.photos)

    @property
    def known_features(self) -> tuple[float, ...]:
        """What it depends on whether the car is one of the gallery's."""
        return self.closeness, -self.make_entropy

    @cached_property
    def make_entropy(self) -> float:
        """Of the vote's makes, in nats: 0 where all neighbours agree."""
        return _entropy(self.vote.makes)

    @cached_property
    def label_entropy(self) -> float:
        return _entropy(self.vote.labels)


def gather(found: Sequence[QueryNeighbours], context: VoteContext) -> Evidence | None:
    """The evidence of one car's photos, from the neighbours of each, in any order; None if none has any."""
    answered = [each for each in found if each.scores]
    vote = elect([ballot for each in answered for ballot in _ballots(each, context)])
    if vote is None:
        return None
    return Evidence(
        vote,
        len(answered),
        math.fsum(min(each.scores) for each in answered) / len(answered),
        math.fsum(_closeness(each, context.typical) for each in answered) / len(answered),
    )


def _ballots(found: QueryNeighbours, context: VoteContext) -> list[tuple[Label, float]]:
    """The neighbours' weights, which sum to 1."""
    prior = context.weighting.prior
    given = weights(found.scores, context.weighting.temperature)
    if prior:
        given = [
            weight * context.sizes[label.label] ** -prior for weight, label in zip(given, found.labels, strict=True)
        ]
    total = math.fsum(given)
    return [(label, weight / total) for label, weight in zip(found.labels, given, strict=True)]


def _closeness(found: QueryNeighbours, typical: Mapping[str, float]) -> float:
    nearest = max(found.scores)
    # Neighbours may tie for the nearest; then their order must not decide.
    return nearest - max(
        typical.get(label.label, 0.0)
        for label, score in zip(found.labels, found.scores, strict=True)
        if score == nearest
    )


def _entropy(candidates: Sequence[Candidate]) -> float:
    return -math.fsum(each.confidence * math.log(each.confidence) for each in candidates if each.confidence > 0)
