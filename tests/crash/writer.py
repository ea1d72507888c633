"""Writers: each adds, replaces and deletes items of its own, one call after the other, and knows what must be there.

A call that failed may have been carried out or not; in parts it may not. Which it was is looked up once somebody answers.
"""

import random
import threading
import time

import grpc
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc

from tests.crash.expected import MODEL, Expected, Item, half, same, vector

_TIMEOUT_S = 20
_IDS = 300
"""Of each writer; those that it has used it uses again, so that the gallery does not grow without end."""
LABELS = ("lada_niva_1999", "honda_pilot_2011", "toyota_camry_2007")


class Writer(threading.Thread):
    def __init__(self, number: int, server, seed: int, expected: Expected) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.expected = expected
        self.adds = self.deletes = self.failed = self.carried_out = 0
        self.half_there: list[str] = []
        self.error: Exception | None = None
        self.running = threading.Event()
        self.idle = threading.Event()
        self._number = number
        self._server = server
        self._rng = random.Random(seed)
        self._next = 0
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self.running.set()

    def run(self) -> None:
        try:
            while not self._stopped:
                with self._server.channel() as channel:
                    self._stub = gallery_pb2_grpc.GalleryServiceStub(channel)
                    self._write_until_it_fails()
        except Exception as error:  # noqa: BLE001 (the run tells of it)
            self.error = error
        finally:
            self.idle.set()

    def _write_until_it_fails(self) -> None:
        while not self._stopped:
            if not self.running.is_set():
                self.idle.set()
                self.running.wait()
                self.idle.clear()
                continue
            call, request, after = self._some_write()
            try:
                reply = call(self._stub)(request, timeout=_TIMEOUT_S)
            except grpc.RpcError:
                self.failed += 1
                self._look_up(after)
                return
            self._acknowledged(after, reply.journal_sequence)

    def _acknowledged(self, after: dict, sequence: int) -> None:
        self.expected.become(after)
        self.expected.sequence = max(self.expected.sequence, sequence)

    def _some_write(self):
        """The call, its request, and what must be there once it is acknowledged."""
        items, kind = self.expected.items, self._rng.random()
        if kind < 0.7 or len(items) < 5:
            return self._some_add()
        if kind < 0.95:
            ids = self._rng.sample(sorted(items), self._rng.randint(1, 3))
            request = gallery_pb2.DeleteItemsRequest(item_ids=gallery_pb2.ItemIds(item_ids=ids))
            after = {item_id: item for item_id, item in items.items() if item_id not in ids}
        else:
            batch = self._rng.choice([item.batch_id for item in items.values()]) or "none"
            request = gallery_pb2.DeleteItemsRequest(batch_id=batch)
            after = {item_id: item for item_id, item in items.items() if item.batch_id != batch}
        self.deletes += len(items) - len(after)
        return (lambda stub: stub.DeleteItems), request, after

    def _some_add(self):
        before, added = self.expected.items, {}
        for _ in range(self._rng.randint(1, 5)):
            old = sorted(before)
            item_id = (
                self._rng.choice(old) if old and self._rng.random() < 0.2 else f"{self._number} {self._next % _IDS}"
            )
            number = self._rng.getrandbits(40)
            batch = self._rng.choice(["", f"{self._number} batch {self._next // 20}"])
            uri, attributes = f"photos/{self._next}.jpg", (("n", str(self._next)), ("writer", self.name))
            added[item_id] = number, Item(self._rng.choice(LABELS), uri, batch, attributes, half(number))
            self._next += 1
        self.adds += len(added)
        messages = [
            gallery_pb2.Item(
                item_id=item_id,
                label=item.label,
                uri=item.uri,
                batch_id=item.batch_id,
                attributes=dict(item.attributes),
            )
            for item_id, (_, item) in added.items()
        ]
        embeddings = wire.pack(MODEL, [vector(number) for number, _ in added.values()])
        request = gallery_pb2.AddItemsRequest(items=messages, embeddings=embeddings)
        return (lambda stub: stub.AddItems), request, before | {item_id: item for item_id, (_, item) in added.items()}

    def _look_up(self, after: dict) -> None:
        """Whether the write that failed was carried out; a call whose process is dead is not carried out any more."""
        time.sleep(0.05)
        before = self.expected.items
        touched = [i for i in before.keys() | after.keys() if before.get(i) != after.get(i)]
        there = {item_id: self._get(item_id) for item_id in touched}
        if all(same(there[item_id], after.get(item_id)) for item_id in touched):
            self.carried_out += 1
            self.expected.become(after)
        elif not all(same(there[item_id], before.get(item_id)) for item_id in touched):
            self.half_there += touched

    def _get(self, item_id: str):
        end = time.monotonic() + 60
        while True:
            try:
                with self._server.channel() as channel:
                    stub = gallery_pb2_grpc.GalleryServiceStub(channel)
                    return stub.GetItem(gallery_pb2.GetItemRequest(item_id=item_id), timeout=_TIMEOUT_S).item
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    return None
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
