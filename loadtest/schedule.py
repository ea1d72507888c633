"""When calls start, in open loop. Pure: the same plan always has the same schedule."""

import random
from collections.abc import Iterator
from itertools import islice

from loadtest.plan import Arrivals


def arrivals(rate: float, seconds: float, kind: Arrivals, seed: int) -> Iterator[float]:
    """Seconds from the beginning, ascending, all less than `seconds`; `rate` of them a second.

    `uniform`: equally far apart. `poisson`: as independent callers come, with exponentially distributed gaps.
    """
    return _uniform(rate, seconds) if kind == "uniform" else _poisson(rate, seconds, random.Random(seed))  # noqa: S311


def share(schedule: Iterator[float], process: int, processes: int, most: int) -> Iterator[tuple[int, float]]:
    """The part of one of several processes: every so manieth of the first `most`, with its number in the whole.

    So all processes together keep to the one schedule, bunches and gaps included.
    """
    return islice(enumerate(islice(schedule, most)), process, None, processes)


def _uniform(rate: float, seconds: float) -> Iterator[float]:
    number = 0
    # Not a sum of gaps, in which rounding errors would add up.
    while (at := number / rate) < seconds:
        yield at
        number += 1


def _poisson(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)
