"""The vote: from the neighbours of a query to its make, model and year.

A neighbour votes with weight `exp(score / temperature)` for its label, and with that for the label's model and make:
three levels of a tree. The answer is read from the top down, the heaviest make, its heaviest model, that model's
heaviest label, so that the levels cannot contradict each other. Equal weights are ordered by name.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from search_svc.voting.labels import Label

Node = tuple[str, ...]
"""A place in the tree: (make), (make, model) or (make, model, label)."""

_ROOT: Node = ()


@dataclass(frozen=True)
class Candidate:
    """A make, a model or a label that got votes."""

    make: str
    model: str
    """Empty for a make."""
    label: Label | None
    """None for a make or a model."""
    confidence: float
    """Its share of the vote, 0 to 1."""


@dataclass(frozen=True)
class Vote:
    answer: Label
    make_confidence: float
    model_confidence: float
    label_confidence: float
    makes: tuple[Candidate, ...]
    """All makes that got votes, heaviest first; so for models and labels."""
    models: tuple[Candidate, ...]
    labels: tuple[Candidate, ...]


@dataclass(frozen=True)
class Weighting:
    """How much a neighbour's vote weighs."""

    temperature: float
    """In units of the score: by how much one must be nearer to weigh e times as much."""
    prior: float = 0.0
    """0 to 1: at 1 a label with twice as many photos in the gallery weighs half as much a photo, at 0 the same."""


def weights(scores: Sequence[float], temperature: float) -> list[float]:
    """Of neighbours: 1 for the nearest."""
    best = max(scores, default=0.0)
    return [math.exp((score - best) / temperature) for score in scores]


def elect(ballots: Sequence[tuple[Label, float]]) -> Vote | None:
    """The vote of neighbours with these labels and weights, in any order; None if there are none."""
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
    """Where the label is in the tree. One that could not be parsed is a make of its own, by its name."""
    return (label.make or label.label, label.model, label.label)


def _shares(ballots: Sequence[tuple[Node, float]]) -> dict[Node, float]:
    """The share of every node that got votes, heaviest first."""
    votes = defaultdict(list)
    for leaf, weight in ballots:
        for depth in (1, 2, 3):
            votes[leaf[:depth]].append(weight)
    # fsum rounds once, so neither the order of the neighbours nor that of the levels shows in the sums.
    sums = {node: math.fsum(given) for node, given in votes.items()}
    total = math.fsum(weight for _, weight in ballots)
    ranked = sorted(sums, key=lambda node: (-sums[node], node))
    return {node: sums[node] / total for node in ranked}


def _heaviest(shares: dict[Node, float], above: Node) -> Node:
    """The first child of a node."""
    return next(node for node in shares if node[:-1] == above)
