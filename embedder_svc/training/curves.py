"""The record that a run keeps of every epoch, as CSV."""

import csv
import io
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from embedder_svc.training.learner import StepResult
from svckit.artifact import atomic_write


@dataclass(frozen=True)
class EpochRecord:
    """A row of curves.csv; the last four are empty where the dev photos were not looked at."""

    epoch: int
    step: int
    size: int
    """Pixels a side of the photos in the epoch's last step."""
    loss: float
    train_top1: float
    """Percent of the augmented photos whose nearest class direction is that of their class."""
    photos_per_s: float
    waiting: float
    """Percent of the time that the device had nothing to do but wait for photos."""
    test_size: int | None = None
    top1: float | None = None
    top5: float | None = None
    make: float | None = None


def write_curves(path: Path, records: Iterable[dict[str, Any]]) -> None:
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, [field.name for field in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    atomic_write(path, content.getvalue().encode())


@dataclass
class Tally:
    """Sums over the steps of an epoch; part of the run's state, so that the record of a resumed epoch covers all of it."""

    steps: int = 0
    photos: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0

    def add(self, result: StepResult, photos: int, *, seconds: float, waited_s: float) -> None:
        self.steps += 1
        self.photos += photos
        self.loss += result.loss
        self.correct += result.correct
        self.seconds += seconds
        self.waited_s += waited_s

    def record(self, *, epoch: int, step: int, size: int) -> EpochRecord:
        return EpochRecord(
            epoch=epoch,
            step=step,
            size=size,
            loss=round(self.loss / self.steps, 4),
            train_top1=round(100 * self.correct / self.photos, 2),
            photos_per_s=round(self.photos / self.seconds, 1),
            waiting=round(100 * self.waited_s / self.seconds, 1),
        )

    def state(self) -> dict[str, Any]:
        return asdict(self)


class Stopwatch:
    """Measures the time from one `lap` to the next."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds
