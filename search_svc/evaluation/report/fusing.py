"""What several photos of one car are worth: groups of photos of one label, asked as one query and one by one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.evaluation.accuracy import LEVELS, VOTE
from search_svc.evaluation.examiner import Examined
from search_svc.evaluation.resampling import Estimate, paired_difference, share
from search_svc.voting.answer import Answerer

SIZES = (2, 3, 5)
_LEVELS = ("label", "model", "make")


@dataclass(frozen=True)
class Fused:
    """Groups of one size, at one level."""

    size: int
    level: str
    groups: int
    single: float
    """Share of the groups' photos that are right alone."""
    fused: Estimate
    """Share of the groups that are right."""
    gain: Estimate
    """Fused minus single; drawn by groups."""


def fused(photos: Sequence[Examined], answerer: Answerer, seed: int) -> list[Fused]:
    """By size and level; of sizes for which no label has photos enough, none."""
    return [
        _fused(size, level, groups, right, seed)
        for size in SIZES
        if (groups := list(_groups(photos, size, seed)))
        for level, right in _right(groups, answerer).items()
    ]


def _groups(photos: Sequence[Examined], size: int, seed: int) -> Iterator[list[Examined]]:
    """Photos of one label each, drawn at random; a photo is in one group at most."""
    rng = np.random.default_rng(seed)
    of_label = defaultdict(list)
    for photo in photos:
        of_label[photo.truth.label].append(photo)
    for _, members in sorted(of_label.items()):
        shuffled = [members[place] for place in rng.permutation(len(members))]
        yield from (shuffled[start : start + size] for start in range(0, len(members) - size + 1, size))


def _right(groups: Sequence[Sequence[Examined]], answerer: Answerer) -> dict[str, list[bool]]:
    answers = [answerer.answer([photo.found for photo in group]) for group in groups]
    return {
        level: [
            answer is not None and LEVELS[level](answer.vote.answer) == LEVELS[level](group[0].truth)
            for answer, group in zip(answers, groups, strict=True)
        ]
        for level in _LEVELS
    }


def _fused(size: int, level: str, groups: Sequence[Sequence[Examined]], right: list[bool], seed: int) -> Fused:
    alone = [sum(photo.right[level, VOTE] for photo in group) / size for group in groups]
    together = np.array(right)
    gain = paired_difference(together, np.array(alone), seed)
    return Fused(size, level, len(groups), sum(alone) / len(alone), share(together, seed), gain)
