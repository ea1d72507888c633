"""Stored results of benches, by paths: `100 x shipped.json > scores > level=label & measure=vote, top-1`; see `bench.figures`."""

import functools
import json
import operator
import re
import statistics
from collections.abc import Callable
from typing import Any

from bench.lib.paths import RESULTS

_INTERVALS = (("value", "low", "high"), ("value", "least", "most"))
_FUNCTIONS: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "sum": sum, "count": len}
_OPERATORS = {"divided by": operator.truediv, "minus": operator.sub, "plus": operator.add}


class WrongError(Exception):
    """Raised where a path leads to nothing, or a line that has one cannot be read."""


def values(path: str, *, interval: bool) -> list[float]:
    """Return the number that a path comes to, and the ends of its interval if they are wanted."""
    first, *rest = re.split(rf" ({'|'.join(_OPERATORS)}) ", path)
    if not rest:
        return _stored_values(first, interval=interval)
    result = _stored_values(first, interval=False)[0]
    for name, operand in zip(rest[::2], rest[1::2], strict=True):
        result = _OPERATORS[name](result, _stored_values(operand, interval=False)[0])
    return [result]


def _stored_values(operand: str, *, interval: bool) -> list[float]:
    if re.fullmatch(r"\d+(\.\d+)?", operand):
        return [float(operand)]
    scale, function, path = re.fullmatch(r"(?:([\d.]+) x )?(?:(min|max|sum|count) of )?(.*)", operand).groups()
    found = _found(path)
    if isinstance(found, dict) and (ends := next((each for each in _INTERVALS if set(each) <= found.keys()), None)):
        values = [found[end] for end in ends[: 3 if interval else 1]]
    elif function:
        values = [_FUNCTIONS[function](list(found.values()) if isinstance(found, dict) else found)]
    elif isinstance(found, list):
        values = [statistics.median(found), *((min(found), max(found)) if interval else ())]
    else:
        values = [found]
    if not all(isinstance(value, (int, float)) for value in values):
        raise WrongError("leads to no number")
    return [float(scale or 1) * value for value in values]


def _found(path: str) -> Any:
    """Return what is stored at `FILE > KEY > ...`."""
    file, *keys = path.split(" > ")
    found = _stored(file)
    for key in keys:
        found = _step(found, key)
    return found


@functools.cache
def _stored(file: str) -> Any:
    if not (RESULTS / file).is_file():
        raise WrongError(f"there is no bench/results/{file}")
    return json.loads((RESULTS / file).read_text())


def _step(found: Any, key: str) -> Any:
    if isinstance(found, dict) and key in found:
        return found[key]
    if isinstance(found, list) and re.fullmatch(r"-?\d+", key) and -len(found) <= int(key) < len(found):
        return found[int(key)]
    if isinstance(found, list) and "=" in key:
        wanted = dict(each.split("=", 1) for each in key.split(" & "))
        fitting = [each for each in found if all(str(each.get(name)) == value for name, value in wanted.items())]
        if len(fitting) == 1:
            return fitting[0]
    raise WrongError(f"nothing, or not one thing, is stored at `{key}`")
