"""Schedule the calls of an open loop. Pure: the same plan always has the same schedule."""

import random
from collections.abc import Iterator
from itertools import islice

from loadtest.plan import Arrivals


def arrivals(rate: float, seconds: float, kind: Arrivals, seed: int) -> Iterator[float]:
    """Yield when calls start: seconds from the beginning, ascending, all less than `seconds`, `rate` of them a second.

    `uniform`: equally far apart. `poisson`: as independent callers come, with exponentially distributed gaps.
    """
    return _uniform(rate, seconds) if kind == "uniform" else _poisson(rate, seconds, random.Random(seed))  # noqa: S311


def share(schedule: Iterator[float], process: int, processes: int, most: int) -> Iterator[tuple[int, float]]:
    """Yield one process's part of the first `most` starts: every `processes`-th, with its number in the whole schedule.

    So all processes together keep to one schedule, bunches and gaps included.
    """
    return islice(enumerate(islice(schedule, most)), process, None, processes)


def _uniform(rate: float, seconds: float) -> Iterator[float]:
    number = 0
    # A quotient, since rounding errors would add up in a sum of gaps.
    while (at := number / rate) < seconds:
        yield at
        number += 1


def _poisson(rate: float, seconds: float, rng: random.Random) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)
