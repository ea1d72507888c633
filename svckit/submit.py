"""What a caller of the batcher submitted, cut into parts for batches, and put together again from what came back."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

Run = Callable[[list[In]], Sequence[Out | Exception]]
"""What a batch is given to. An output that is an exception fails the submit of its item, and no other; what it raises
fails all."""


@dataclass(frozen=True)
class Batched(Generic[Out]):
    """The outputs of one submit, in the order of its items, and where the time went."""

    outputs: list[Out]
    queue_ms: float
    """Milliseconds spent waiting for the backend."""
    run_ms: float
    """Milliseconds in which the backend worked on batches that these items were in."""


@dataclass(eq=False)
class Submit(Generic[In, Out]):
    """The items of one caller on their way through, and what came back so far."""

    items: Sequence[In]
    deadline: float
    future: asyncio.Future[Batched[Out]]
    submitted: float
    taken: int = 0
    outputs: dict[int, Sequence[Out]] = field(default_factory=dict)
    """What came back of the parts, by where they begin."""
    runs: list[tuple[float, float]] = field(default_factory=list)
    """When the batches of these parts began and ended."""
    done: int = 0

    @property
    def waiting(self) -> int:
        return len(self.items) - self.taken

    def wanted(self) -> bool:
        return not self.future.done() and time.monotonic() < self.deadline

    def add(self, start: int, outputs: Sequence[Out], began: float, ended: float) -> None:
        self.outputs[start] = outputs
        self.runs.append((began, ended))
        self.done += len(outputs)
        if self.done == len(self.items) and not self.future.done():
            self.future.set_result(self._batched())

    def _batched(self) -> Batched[Out]:
        run_s = _covered(self.runs)
        queue_s = max(ended for _, ended in self.runs) - self.submitted - run_s
        outputs = [output for start in sorted(self.outputs) for output in self.outputs[start]]
        return Batched(outputs, queue_ms=1e3 * queue_s, run_ms=1e3 * run_s)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """How much time the spans take up together; batches in several lanes overlap."""
    total, until = 0.0, -math.inf
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


@dataclass(frozen=True)
class Part(Generic[In, Out]):
    """The items of one submit that go into one batch."""

    submit: Submit[In, Out]
    start: int
    items: Sequence[In]


@dataclass(frozen=True)
class Batch(Generic[In, Out]):
    """What a lane takes from the queue at once."""

    parts: Sequence[Part[In, Out]]
    run: Run[In, Out]

    @property
    def items(self) -> list[In]:
        return [item for part in self.parts for item in part.items]
