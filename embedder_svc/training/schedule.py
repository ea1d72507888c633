"""Learning rate and photo size as functions of progress, the share of the run's steps that are done (0..1)."""

import math
from dataclasses import dataclass
from itertools import pairwise

from svckit.cli import CommandError

_FLOOR = 0.002


def rate_factor(progress: float, warm_up: float) -> float:
    """Return the factor of a peak rate: it rises linearly over `warm_up`, then falls along half a cosine to 0.002.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, without the restarts.
    """
    if progress < warm_up:
        return progress / warm_up
    falling = (progress - warm_up) / (1 - warm_up)
    return _FLOOR + (1 - _FLOOR) * (1 + math.cos(math.pi * falling)) / 2


@dataclass(frozen=True)
class Stages:
    """Sizes to train at, each from a share of the run on. Small photos come first: they are cheap, and teach as much early on."""

    starts: tuple[float, ...]
    sizes: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Stages":
        """Parse text such as `0:128,0.5:160`. Raise CommandError."""
        try:
            pairs = [part.split(":") for part in text.split(",")]
            stages = cls(tuple(float(start) for start, _ in pairs), tuple(int(size) for _, size in pairs))
        except ValueError:
            raise CommandError(f"--stages must be such as 0:128,0.5:160, got {text!r}") from None
        rising = all(before < after for before, after in pairwise((*stages.starts, 1.0)))
        if stages.starts[0] != 0 or not rising or min(stages.sizes) < 1:
            raise CommandError(f"--stages must begin at 0 and rise towards 1, got {text!r}")
        return stages

    def size(self, progress: float) -> int:
        return next(
            size for start, size in reversed(list(zip(self.starts, self.sizes, strict=True))) if progress >= start
        )
