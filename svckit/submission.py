"""The items that one caller submits to the batcher: cut into parts for batches, and put together again from their outputs."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from svckit.stages import Stage, Stages

In = TypeVar("In")
Out = TypeVar("Out")

Run = Callable[[list[In]], Sequence[Out | Exception]]
"""A function that runs a batch: an output for each item. An output that is an exception fails the submission of its item, and
no other; an exception that the function raises fails the whole batch."""


@dataclass(frozen=True)
class Batched(Generic[Out]):
    """The outputs of one submission, in the order of its items, and where the time went."""

    outputs: list[Out]
    queue_ms: float
    """Milliseconds spent waiting for the backend."""
    run_ms: float
    """Milliseconds in which the backend worked on batches that these items were in."""


@dataclass(eq=False)
class Submission(Generic[In, Out]):
    """The items of one caller on their way through the batcher, and the outputs that are there so far."""

    items: Sequence[In]
    deadline: float
    """A time of `time.monotonic`."""
    future: asyncio.Future[Batched[Out]]
    submitted: float
    """When it came, a time of `time.monotonic`."""
    owner: str = ""
    """The name of the caller, who takes turns with the others."""
    taken: int = 0
    """Items that batches have taken."""
    outputs: dict[int, Sequence[Out]] = field(default_factory=dict)
    """The outputs of parts that have been run, by the number of their first item."""
    runs: list[tuple[float, float]] = field(default_factory=list)
    """When the batches of these parts began and ended."""
    done: int = 0
    """Items that have outputs."""
    stages: Stages | None = None
    """Where its waiting and its batches are written down, if its call is traced."""
    queued: bool = True
    """Whether its waiting is not written down yet."""

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self.items) - self.taken

    def wanted(self) -> bool:
        """Return whether the caller still waits: it has neither left, nor an answer, nor is its deadline past."""
        return not self.future.done() and time.monotonic() < self.deadline

    def add(self, start: int, outputs: Sequence[Out], began: float, ended: float) -> None:
        """Add the outputs of the part that begins at item `start`; with the last part, answer the caller."""
        self.outputs[start] = outputs
        self.runs.append((began, ended))
        self.done += len(outputs)
        if self.done == len(self.items) and not self.future.done():
            self.future.set_result(self._batched())

    def leave_queue(self, now: float) -> None:
        """Write down how long it waited for its first batch, or for nothing."""
        if self.queued:
            self.queued = False
            self.write_down(Stage("queue", self.submitted, now))

    def write_down(self, stage: Stage) -> None:
        if self.stages is not None:
            self.stages.append(stage)

    def _batched(self) -> Batched[Out]:
        run_s = _covered(self.runs)
        queue_s = max(ended for _, ended in self.runs) - self.submitted - run_s
        outputs = [output for start in sorted(self.outputs) for output in self.outputs[start]]
        return Batched(outputs, queue_ms=1e3 * queue_s, run_ms=1e3 * run_s)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the time in which at least one of the spans went on; those of batches in several lanes overlap."""
    total, until = 0.0, -math.inf
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


@dataclass(frozen=True)
class Part(Generic[In, Out]):
    """The items of one submission that go into one batch."""

    submission: Submission[In, Out]
    start: int
    """The number of the first of these items in the submission."""
    items: Sequence[In]


@dataclass(frozen=True)
class Batch(Generic[In, Out]):
    """Parts that a lane takes from the queue at once, and the function that runs them."""

    parts: Sequence[Part[In, Out]]
    run: Run[In, Out]

    @property
    def items(self) -> list[In]:
        return [item for part in self.parts for item in part.items]

    @property
    def traced(self) -> list[Submission[In, Out]]:
        """The submissions that stages are written down of."""
        return [part.submission for part in self.parts if part.submission.stages is not None]
