"""Callers of the SDK, what they saw, and what was acknowledged to them."""

import collections
import io
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from vmmr import Client, Embeddings, Item, SearchOptions, VmmrError

from tests.chaos.stage import Stage, vectors

PARTS = ("before", "during", "after")
TIMEOUT_S = 10.0
"""The SDK's own default."""
_PAUSE_S = 0.05
RING = 300
"""So many adds are of new items; those after them replace these, with the same embeddings, so that the disk does not fill by itself."""
_IN_A_ROW = 3
"""So many calls of each kind must succeed, one after the other, for all to be well again."""


@dataclass(frozen=True)
class Call:
    kind: str
    began: float
    ended: float
    error: str
    """Its reason; empty if it succeeded."""


class Load:
    def __init__(self, stage: Stage, seed: int) -> None:
        self.calls: list[Call] = []
        self.acknowledged: dict[str, int] = {}
        """Item id -> the journal sequence of its write."""
        self.wrong = 0
        self._vectors: dict[str, np.ndarray] = {}
        self._rng = random.Random(seed)
        self._stage = stage
        self._over = threading.Event()
        self._number = 0
        self._photo = photo()
        self._photo_answer: list[str] = []
        writer = Client(stage.address("embedder"), stage.address("writer"), timeout_s=TIMEOUT_S)
        reader = Client(stage.address("embedder"), stage.address("reader"), timeout_s=TIMEOUT_S)
        self._clients = (writer, reader)
        kinds: dict[str, Callable[[], None]] = {
            "add": lambda: self._add(writer),
            "search writer": lambda: self._search(writer),
            "search reader": lambda: self._search(reader),
            "photo": lambda: self._identify(reader),
        }
        self._kinds = tuple(kinds)
        self._threads = [threading.Thread(target=self._repeat, args=each) for each in kinds.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()

    def figures(self, began: float, ended: float) -> dict:
        """Return what was seen of the calls that ended in a span of time."""
        calls = [call for call in list(self.calls) if began <= call.ended < ended]
        good = [call for call in calls if not call.error]
        errors = collections.Counter(f"{call.kind}: {call.error}" for call in calls if call.error)
        slowest = max((call.ended - call.began for call in calls), default=0.0)
        return {
            "good_per_s": len(good) / (ended - began),
            "good": len(good),
            "errors": dict(errors),
            "slowest_s": round(slowest, 2),
        }

    def recovered(self, since: float, patience_s: float) -> float | None:
        """Return how many seconds after `since` calls of every kind succeed again, and go on doing so; None if they do not."""
        end = since + patience_s
        while time.monotonic() < end:
            calls = list(self.calls)
            firsts = [
                _steady([call for call in calls if call.kind == kind and call.began >= since]) for kind in self._kinds
            ]
            if None not in firsts:
                return round(max(first.ended for first in firsts) - since, 1)
            time.sleep(0.05)
        return None

    def lost(self) -> list[str]:
        """Return the acknowledged items that a server does not have, or does not find by their embeddings."""
        with Client(self._stage.address("embedder"), self._stage.address("writer"), timeout_s=60) as client:
            there = {item.item_id for item in client.list_items()}
            sample = self._rng.sample(sorted(self.acknowledged), min(50, len(self.acknowledged)))
            gone = [name for name in self.acknowledged if name not in there]
            gone += [name for name in sample if self._nearest(client, name) != name]
        return gone

    def _repeat(self, kind: str, call: Callable[[], None]) -> None:
        while not self._over.wait(_PAUSE_S):
            began, error = time.monotonic(), ""
            try:
                call()
            except VmmrError as failed:
                error = getattr(failed, "reason", None) or type(failed).__name__
            self.calls.append(Call(kind, began, time.monotonic(), error))

    def _add(self, client: Client) -> None:
        self._number += 1
        round_, place = divmod(self._number, RING)
        names = [f"added {place}.{part}" for part in range(1 + place % 3)]
        made = vectors(len(names), self._stage.info.dimension, seed=1 + place)
        items = [Item(name, "lada_niva_1999", uri=f"round {round_}") for name in names]
        self._vectors |= dict(zip(names, made, strict=True))
        done = client.add_items(items, Embeddings(self._stage.info.fingerprint, made))
        self.acknowledged |= dict.fromkeys(names, done.journal_sequence)

    def _search(self, client: Client) -> None:
        """Ask for an item that was acknowledged, most often one of the last: it must be the nearest."""
        known = list(self.acknowledged)
        if not known:
            return
        name = self._rng.choice(known[-20:] if self._rng.random() < 0.7 else known)
        if self._nearest(client, name) != name:
            self.wrong += 1

    def _nearest(self, client: Client, name: str) -> str:
        query = Embeddings(self._stage.info.fingerprint, self._vectors[name][None])
        options = SearchOptions(k=1, min_sequence=self.acknowledged[name])
        [[nearest, *_]] = client.search(query, options=options).neighbours
        return nearest.item_id

    def _identify(self, client: Client) -> None:
        """The photo's embedding must be the same bits each time."""
        found = [client.embed([self._photo]).vectors.tobytes().hex()]
        self._photo_answer = self._photo_answer or found
        self.wrong += found != self._photo_answer
        client.identify(self._photo)


def _steady(calls: list[Call]) -> Call | None:
    """Return the first call from which on so many have succeeded."""
    for first in range(len(calls) - _IN_A_ROW + 1):
        if not any(call.error for call in calls[first : first + _IN_A_ROW]):
            return calls[first]
    return None


def photo() -> bytes:
    """A picture, for it matters that it is embedded, and not what it shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((400, 300)).save(file, "JPEG")
    return file.getvalue()
