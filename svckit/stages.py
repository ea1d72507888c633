"""What a traced call spent its time on, written down where it happens; `spans` makes spans of it.

Code that works for a call adds its stages whether the call is traced or not: where it is not, that costs a look at a variable.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

Done = TypeVar("Done")


@dataclass(frozen=True)
class Stage:
    """A part of a call's time, with the parts that it consists of itself."""

    name: str
    began: float
    """A time of `time.monotonic`, as is `ended`."""
    ended: float
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    inner: Sequence["Stage"] = ()


Stages: TypeAlias = list[Stage]
"""Threads may add to it at the same time."""

_current: ContextVar[Stages | None] = ContextVar("stages", default=None)


def collect(stages: Stages | None) -> None:
    """Have `add` put the stages of the work that this thread or task does from now on into the list; None drops them."""
    _current.set(stages)


def current() -> Stages | None:
    """Return the list that stages are put into, None if nobody wants them: for work that goes on in another thread."""
    return _current.get()


def add(name: str, began: float, ended: float) -> None:
    """Add a stage, between two times of `time.monotonic`, if the call that this thread or task works for is traced."""
    if (stages := _current.get()) is not None:
        stages.append(Stage(name, began, ended))


def timed(name: str, work: Callable[[], Done], **attributes: str | int) -> Callable[[], Done]:
    """Return the work such that it adds itself as a stage, in whatever thread it is done; just the work if nobody wants stages."""
    stages = _current.get()
    return work if stages is None else partial(_do, name, work, attributes, stages)


def _do(name: str, work: Callable[[], Done], attributes: Mapping[str, str | int], stages: Stages) -> Done:
    began = time.monotonic()
    try:
        return work()
    finally:
        stages.append(Stage(name, began, time.monotonic(), attributes))
