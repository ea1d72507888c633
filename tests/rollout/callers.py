"""Callers who identify photos with the SDK, without a pause, while the servers under them are replaced."""

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import vmmr

TIMEOUT_S = 60


@dataclass
class Seen:
    """What callers saw."""

    calls: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Callers:
    """So many threads, each with a client of its own that has the SDK's defaults but for the deadline."""

    def __init__(self, embedder: str, search: str, photo: bytes, *, callers: int) -> None:
        self.seen = Seen()
        self._targets = embedder, search
        self._photo = photo
        self._over = False
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()

    def until(self, calls: int) -> None:
        """Wait until so many calls have ended, in all."""
        with self._more:
            while self.seen.calls < calls:
                assert self._more.wait(TIMEOUT_S), f"no call ended within {TIMEOUT_S} s"

    def _call(self) -> None:
        with vmmr.Client(*self._targets) as client:
            while not self._over:
                began = time.perf_counter()
                failure = _failure(client, self._photo)
                with self._more:
                    self.seen.calls += 1
                    self.seen.seconds.append(time.perf_counter() - began)
                    self.seen.failed += failure
                    self._more.notify_all()


def _failure(client: vmmr.Client, photo: bytes) -> list[str]:
    try:
        client.identify(photo)
    except vmmr.VmmrError as error:
        return [f"{type(error).__name__}: {error}"]
    return []


class SentAgain(logging.Handler):
    """Counts calls that the SDK sent again, which it logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "trying again" in record.getMessage()
