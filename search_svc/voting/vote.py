"""The vote: the neighbours of a query elect its make, model and label.

A neighbour votes with weight `exp(score / temperature)` for its label, and thereby for the label's model and make. To the score is
added how similar the query is to the mean of the label's photos (`Weighting.mean_weight`). Makes,
models and labels are the three levels of a tree. The answer is read from the top down: the heaviest make, its heaviest
model, and that model's heaviest label, so that the levels cannot contradict each other. Equal weights are ordered by name.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from search_svc.voting.labels import Label

Node = tuple[str, ...]
"""A place in the tree: (make), (make, model) or (make, model, label)."""

LEVELS = {"label": 3, "model": 2, "make": 1}
"""The levels of an answer, the most specific first, and how deep in the tree they are: the length of their nodes."""

_ROOT: Node = ()


@dataclass(frozen=True)
class Candidate:
    """A make, a model or a label that got votes."""

    make: str
    model: str
    """The model; empty if the candidate is a make."""
    label: Label | None
    """The label; None if the candidate is a make or a model."""
    confidence: float
    """The candidate's share of the vote, 0 to 1."""


@dataclass(frozen=True)
class Vote:
    answer: Label
    make_confidence: float
    model_confidence: float
    label_confidence: float
    makes: tuple[Candidate, ...]
    """All makes that got votes, heaviest first; `models` and `labels` are alike."""
    models: tuple[Candidate, ...]
    labels: tuple[Candidate, ...]


@dataclass(frozen=True)
class Weighting:
    """How much the vote of a neighbour weighs."""

    temperature: float
    """The difference in score that makes a vote e times as heavy."""
    prior: float = 0.0
    """The exponent of the class size: a vote for a label of n photos weighs n ** -prior as much."""
    mean_weight: float = 0.0
    """How much a cosine of 1 with the mean of a label's photos adds to the score of each of them; 0: means do not count."""


def weights(scores: Sequence[float], temperature: float) -> list[float]:
    """Return the weights of neighbours with these scores, relative to that of the nearest."""
    best = max(scores, default=0.0)
    return [math.exp((score - best) / temperature) for score in scores]


def elect(ballots: Sequence[tuple[Label, float]]) -> Vote | None:
    """Return the vote of neighbours with these labels and weights, in any order; None if there are no neighbours."""
    if not ballots:
        return None
    leaves = {path(label): label for label, _ in ballots}
    shares = _shares([(path(label), weight) for label, weight in ballots])
    make = _heaviest(shares, _ROOT)
    model = _heaviest(shares, make)
    leaf = _heaviest(shares, model)
    levels: tuple[list[Candidate], ...] = ([], [], [])
    for node, share in shares.items():
        levels[len(node) - 1].append(Candidate(node[0], "".join(node[1:2]), leaves.get(node), share))
    return Vote(leaves[leaf], shares[make], shares[model], shares[leaf], *map(tuple, levels))


def path(label: Label) -> Node:
    """Return the place of a label in the tree. A label without a make is a make of its own, named as the label."""
    return (label.make or label.label, label.model, label.label)


def _shares(ballots: Sequence[tuple[Node, float]]) -> dict[Node, float]:
    """Return the share of every node that got votes, heaviest first."""
    votes = defaultdict(list)
    for leaf, weight in ballots:
        for depth in LEVELS.values():
            votes[leaf[:depth]].append(weight)
    # fsum rounds once, so the sums depend neither on the order of the neighbours nor on that of the levels.
    sums = {node: math.fsum(given) for node, given in votes.items()}
    total = math.fsum(weight for _, weight in ballots)
    ranked = sorted(sums, key=lambda node: (-sums[node], node))
    return {node: sums[node] / total for node in ranked}


def _heaviest(shares: dict[Node, float], above: Node) -> Node:
    """Return the heaviest child of a node. `shares` are ordered, heaviest first."""
    return next(node for node in shares if node[:-1] == above)
