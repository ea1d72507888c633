"""JSON from files of others, read so that one error says everything that can be wrong with it."""

import json
import math
from typing import Any

_LARGEST = 2**63


def loads(content: bytes | str) -> Any:
    """Return what the JSON says. Raise ValueError if it is none.

    That is also what Python's own reader would let pass, or fail at with errors of other kinds, here or where the value is used:
    NaN and infinities, numbers that 64 bits do not hold, and nesting that is too deep.
    """
    try:
        return json.loads(content, parse_int=_whole, parse_float=_finite, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _whole(text: str) -> int:
    if len(text) > 20 or not -_LARGEST <= (number := int(text)) < _LARGEST:
        raise ValueError(f"{text[:20]}... is too large a number")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
