"""Faults: each is made when its block begins, and is over when it ends."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from tests.chaos.stage import Stage

_FLAP_S = (0.1, 0.3)
"""Seconds that a lossy link is down and up, in turn."""
_SLOW_WRITES_PER_S = 4
"""What a slow disk takes: an fsync takes a quarter to half a second, some hundred times as long as else."""


@dataclass(frozen=True)
class Fault:
    name: str
    made: Callable[[Stage], AbstractContextManager[None]]
    needs: str = ""
    """The part of the stage that it is made of."""

    def impossible(self, stage: Stage) -> str:
        """Return why it cannot be made here; empty if it can."""
        return stage.missing.get(self.needs, "")


@contextmanager
def killed(stage: Stage, *, name: str) -> Iterator[None]:
    stage.kill(name)
    stage.restart(name)
    yield


@contextmanager
def stopped(stage: Stage, *, name: str) -> Iterator[None]:
    stage.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        stage.signal(name, signal.SIGCONT)


@contextmanager
def full_disk(stage: Stage) -> Iterator[None]:
    ballast = stage.disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def slow_disk(stage: Stage) -> Iterator[None]:
    stage.throttle(_SLOW_WRITES_PER_S)
    try:
        yield
    finally:
        stage.throttle(0)


@contextmanager
def partition(stage: Stage) -> Iterator[None]:
    stage.ip("link", "set", stage.device, "down")
    try:
        yield
    finally:
        stage.ip("link", "set", stage.device, "up")


@contextmanager
def lossy_link(stage: Stage) -> Iterator[None]:
    """A link that is down for a quarter of the time: what is sent then is lost. (A random loss takes netem, which many kernels lack.)"""
    over = threading.Event()

    def flap() -> None:
        while not over.wait(_FLAP_S[1]):
            stage.ip("link", "set", stage.device, "down")
            over.wait(_FLAP_S[0])
            stage.ip("link", "set", stage.device, "up")

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def clock_jump(stage: Stage, *, by: str) -> Iterator[None]:
    stage.turn_clock(by)
    try:
        yield
    finally:
        stage.turn_clock("+0")


_ALL = (
    *(Fault(f"kill {name}", partial(killed, name=name)) for name in ("embedder", "writer", "reader")),
    *(Fault(f"stop {name}", partial(stopped, name=name)) for name in ("embedder", "writer", "reader")),
    Fault("full disk", full_disk, "disk"),
    Fault("slow disk", slow_disk, "throttle"),
    Fault("partition", partition, "network"),
    Fault("lossy link", lossy_link, "network"),
    Fault("clock an hour ahead", partial(clock_jump, by="+3600"), "clock"),
    Fault("clock an hour back", partial(clock_jump, by="-3600"), "clock"),
)
FAULTS = {fault.name: fault for fault in _ALL}
