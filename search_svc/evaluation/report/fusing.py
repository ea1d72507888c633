"""The worth of several photos of one car: groups of photos of one label are asked as one query, and one by one."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search_svc.evaluation.accuracy import CLASSES, VOTE
from search_svc.evaluation.examiner import ExaminedPhoto
from search_svc.evaluation.resampling import Estimate, paired_difference, share
from search_svc.voting.answer import Answerer
from search_svc.voting.vote import LEVELS

SIZES = (2, 3, 5)

AnswererOf = Callable[[ExaminedPhoto], Answerer]
"""Returns what answers for a photo: see Examiner.answerer."""


@dataclass(frozen=True)
class Fused:
    """Groups of one size, at one level."""

    size: int
    level: str
    groups: int
    single: float
    """The share of the groups' photos that are right alone."""
    fused: Estimate
    """The share of the groups that are right."""
    gain: Estimate
    """`fused` minus `single`; groups are drawn for the interval."""


def fused(photos: Sequence[ExaminedPhoto], answerer: AnswererOf, seed: int) -> list[Fused]:
    """Return the figures by size and level, without the sizes for which no label has photos enough."""
    return [
        _fused(size, level, groups, right, seed)
        for size in SIZES
        if (groups := list(_groups(photos, size, seed)))
        for level, right in _right(groups, answerer).items()
    ]


def _groups(photos: Sequence[ExaminedPhoto], size: int, seed: int) -> Iterator[list[ExaminedPhoto]]:
    """Yield groups of photos of one label, drawn at random. A photo is in one group at most."""
    rng = np.random.default_rng(seed)
    of_label = defaultdict(list)
    for photo in photos:
        of_label[photo.truth.label].append(photo)
    for _, members in sorted(of_label.items()):
        shuffled = [members[place] for place in rng.permutation(len(members))]
        yield from (shuffled[start : start + size] for start in range(0, len(members) - size + 1, size))


def _right(groups: Sequence[Sequence[ExaminedPhoto]], answerer: AnswererOf) -> dict[str, list[bool]]:
    """Return, for each level, whether the answer for each group is right."""
    answers = [answerer(_left_out(group)).answer([photo.found for photo in group]) for group in groups]
    return {
        level: [
            answer is not None and CLASSES[level](answer.vote.answer) == CLASSES[level](group[0].truth)
            for answer, group in zip(answers, groups, strict=True)
        ]
        for level in LEVELS
    }


def _left_out(group: Sequence[ExaminedPhoto]) -> ExaminedPhoto:
    """Return a photo of the group that is in the gallery, if one is: each of these was left out of its own neighbours."""
    return next((photo for photo in group if photo.in_gallery), group[0])


def _fused(size: int, level: str, groups: Sequence[Sequence[ExaminedPhoto]], right: list[bool], seed: int) -> Fused:
    alone = [sum(photo.right[level, VOTE] for photo in group) / size for group in groups]
    together = np.array(right)
    gain = paired_difference(together, np.array(alone), seed)
    return Fused(size, level, len(groups), sum(alone) / len(alone), share(together, seed), gain)
