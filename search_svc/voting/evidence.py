"""Evidence: the vote of the neighbours of one car's photos, and the features that the calibration uses.

Each photo has one whole vote, whatever the scores of its neighbours are. Several photos of one car are fused by the mean of
their votes (a linear opinion pool, Stone 1961). Photos in which no car was found do not vote beside photos with a car.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours, voting
from search_svc.voting.vote import Candidate, Vote, Weighting, elect, weights

_SHARES = (1e-3, 1 - 1e-3)
"""Shares are kept within these bounds: beyond them they depend on the temperature rather than on the photos."""


@dataclass(frozen=True)
class VoteContext:
    """The facts about a gallery that the votes of its photos depend on."""

    weighting: Weighting
    sizes: Mapping[str, int]
    """The number of photos in the gallery, by label."""
    typical: Mapping[str, float]
    """The score that photos of a label typically have with each other, by label; a missing one is 0."""


@dataclass(frozen=True)
class Evidence:
    vote: Vote
    photos: int
    """How many photos are fused: those that vote."""
    farthest: float
    """The score of the last neighbour, the k-th: the mean over the photos."""
    closeness: float
    """The score of the nearest neighbour less what is typical of its label: the mean over the photos."""
    mean: float
    """The cosine with the mean of the label that a photo's neighbours elect: the mean over the photos."""
    log_size: float
    """The logarithm of the number of photos that this label has: the mean over the photos."""

    def confidence_features(self, level: str) -> tuple[float, ...]:
        """Return the features for the chance that the answer is right at a level: label, model or make."""
        low, high = _SHARES
        share = min(max(getattr(self.vote, f"{level}_confidence"), low), high)
        return math.log(share / (1 - share)), self.closeness, math.log(self.photos)

    @property
    def known_features(self) -> tuple[float, ...]:
        """The features for the chance that the gallery knows the car.

        A calibration that was fitted before there were means has slopes for the first two.
        """
        return self.closeness, -self.make_entropy, self.mean, -self.log_size

    @cached_property
    def make_entropy(self) -> float:
        """The entropy of the vote's makes, in nats: 0 if all neighbours agree."""
        return _entropy(self.vote.makes)

    @cached_property
    def label_entropy(self) -> float:
        """The entropy of the vote's labels, in nats."""
        return _entropy(self.vote.labels)


def gather(found: Sequence[QueryNeighbours], context: VoteContext) -> Evidence | None:
    """Return the evidence for one car from the neighbours of each photo, in any order; None if no photo has any."""
    answered = [each for each in voting(found) if each.scores]
    ballots = [_ballots(each, context) for each in answered]
    vote = elect([ballot for of_photo in ballots for ballot in of_photo])
    if vote is None:
        return None
    favourites = [_favourite(of_photo) for of_photo in ballots]
    means = [_mean(each, name) for each, name in zip(answered, favourites, strict=True)]
    sizes = [math.log(max(1, context.sizes.get(name, 1))) for name in favourites]
    return Evidence(
        vote,
        len(answered),
        math.fsum(min(each.scores) for each in answered) / len(answered),
        math.fsum(_closeness(each, context.typical) for each in answered) / len(answered),
        math.fsum(means) / len(answered),
        math.fsum(sizes) / len(answered),
    )


def _ballots(found: QueryNeighbours, context: VoteContext) -> list[tuple[Label, float]]:
    """Return the label and the weight of each neighbour of one photo. The weights sum to 1."""
    prior, mean_weight = context.weighting.prior, context.weighting.mean_weight
    scores: Sequence[float] = found.scores
    if mean_weight:
        scores = [score + mean_weight * mean for score, mean in zip(found.scores, found.means, strict=True)]
    given = weights(scores, context.weighting.temperature)
    if prior:
        given = [
            weight * context.sizes[label.label] ** -prior for weight, label in zip(given, found.labels, strict=True)
        ]
    total = math.fsum(given)
    return [(label, weight / total) for label, weight in zip(found.labels, given, strict=True)]


def _favourite(ballots: Sequence[tuple[Label, float]]) -> str:
    """Return the label that one photo's neighbours elect, whatever its make and model have."""
    given: dict[str, list[float]] = {}
    for label, weight in ballots:
        given.setdefault(label.label, []).append(weight)
    return min(given, key=lambda name: (-math.fsum(given[name]), name))


def _mean(found: QueryNeighbours, name: str) -> float:
    """Return the cosine with the mean of a neighbour's label; 0 if it was not asked for."""
    return next((mean for label, mean in zip(found.labels, found.means, strict=False) if label.label == name), 0.0)


def _closeness(found: QueryNeighbours, typical: Mapping[str, float]) -> float:
    nearest = max(found.scores)
    # Neighbours may tie for the nearest, and their order must not decide.
    return nearest - max(
        typical.get(label.label, 0.0)
        for label, score in zip(found.labels, found.scores, strict=True)
        if score == nearest
    )


def _entropy(candidates: Sequence[Candidate]) -> float:
    return -math.fsum(each.confidence * math.log(each.confidence) for each in candidates if each.confidence > 0)
