"""Kills a server again and again while it is written to, and looks for what was lost.

    python -m tests.crash --kills 200

Writers add, replace and delete items through gRPC, while several workers serve one index. `kill -9` comes at random moments:
to a worker, to all processes at once, to a compaction. After each, once somebody answers again, the writers pause, and every item
is compared with what was acknowledged, and answers with what numpy finds. Exit code 1 if anything is not as it must be.
"""

import argparse
import collections
import contextlib
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.building.spec import IndexSpec
from search_svc.voting.labels import parse
from tests.crash.expected import MODEL, Expected, Item, half, right, same, vector
from tests.crash.server import Server
from tests.crash.writer import LABELS, Writer
from tests.search_svc.builds import build_version

BASE_ITEMS = 200
K = 10
QUERIES = 8
KINDS = ("worker", "all", "compaction", "all during compaction")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vmmr-crash-") as directory:
        sys.exit(0 if Run(Path(directory), args).go() else 1)


class Run:
    def __init__(self, directory: Path, args: argparse.Namespace) -> None:
        self.args = args
        self.rng = random.Random(args.seed)
        self.server = Server(directory / "index", args.workers, directory / "server.log")
        base = build(self.server.index)
        self.writers = [
            Writer(number, self.server, args.seed + number, Expected(base if number == 0 else {}))
            for number in range(args.writers)
        ]
        self.kills: collections.Counter[str] = collections.Counter()
        self.kinds = self.endless_kinds()
        self.compactions = self.wrong = self.checks = 0
        self.lost: set[str] = set()

    def go(self) -> bool:
        """Whether all was as it must be."""
        started = time.monotonic()
        self.server.start()
        try:
            for writer in self.writers:
                writer.start()
            while self.kills.total() < self.args.kills and self.well:
                self.kill_once()
                self.check()
                if self.kills.total() % 10 == 0 or not self.well:
                    print(self.line(started), file=sys.stderr, flush=True)
        finally:
            for writer in self.writers:
                writer.stop()
            self.server.stop()
        print(self.report(started))
        return self.well

    @property
    def well(self) -> bool:
        problems = any(writer.error or writer.half_there for writer in self.writers)
        return not (problems or self.lost or self.wrong)

    def kill_once(self) -> None:
        """Lets the writers write for a moment, and kills in the middle of it."""
        for writer in self.writers:
            writer.running.set()
        kind = next(self.kinds)
        if "compaction" in kind:
            threading.Thread(target=self.compact, daemon=True).start()
        time.sleep(self.rng.uniform(0, 2.5 if "compaction" in kind else 0.6))
        if kind == "worker":
            self.server.kill_worker(self.rng)
        elif kind == "compaction":
            if not self.server.kill_compaction(self.rng):
                return
        else:
            self.server.kill_all()
            time.sleep(self.rng.uniform(0, 0.2))
            self.server.start()
        self.kills[kind] += 1
        self.server.wait()

    def endless_kinds(self):
        """Each as often as the others, in any order."""
        while True:
            yield from self.rng.sample(KINDS, len(KINDS))

    def compact(self) -> None:
        with contextlib.suppress(grpc.RpcError), self.server.channel() as channel:
            gallery_pb2_grpc.GalleryServiceStub(channel).Compact(gallery_pb2.CompactRequest(), timeout=60)
            self.compactions += 1

    def check(self) -> None:
        """With the writers at rest: every item, and some answers."""
        for writer in self.writers:
            writer.running.clear()
        for writer in self.writers:
            assert writer.idle.wait(120), f"{writer.name} does not come to rest"
        if not self.well:
            return
        expected = {item_id: item for writer in self.writers for item_id, item in writer.expected.items.items()}
        with self.server.channel() as channel:
            grpc.channel_ready_future(channel).result(30)
            self.check_items(gallery_pb2_grpc.GalleryServiceStub(channel), expected)
            self.check_answers(search_pb2_grpc.SearchServiceStub(channel), expected)
        self.checks += 1

    def check_items(self, stub, expected: dict) -> None:
        found, token = {}, None
        while token != "":
            page = stub.ListItems(gallery_pb2.ListItemsRequest(page_size=1000, page_token=token or ""), timeout=30)
            found |= {item.item_id: item for item in page.items}
            token = page.next_page_token
        self.lost |= {i for i in found.keys() | expected.keys() if not same(found.get(i), expected.get(i))}
        well = sorted(expected.keys() - self.lost)
        for item_id in self.rng.sample(well, min(QUERIES, len(well))):
            there = stub.GetItem(gallery_pb2.GetItemRequest(item_id=item_id), timeout=30).item
            if not same(there, expected[item_id]):
                self.lost.add(item_id)

    def check_answers(self, stub, expected: dict) -> None:
        sequence = max(writer.expected.sequence for writer in self.writers)
        queries = np.stack([vector(self.rng.getrandbits(40)) for _ in range(QUERIES)])
        some = self.rng.sample(sorted(expected), min(QUERIES, len(expected)))
        queries = np.concatenate([queries, [np.frombuffer(expected[i].embedding, "<f2") for i in some]]).astype(
            np.float32
        )
        options = search_pb2.SearchOptions(k=K, min_sequence=sequence)
        request = search_pb2.SearchRequest(queries=wire.pack(MODEL, queries), options=options)
        own = [""] * QUERIES + some
        for query, result, item_id in zip(queries, stub.Search(request, timeout=30).results, own, strict=True):
            self.wrong += not right(result.neighbours, expected, query, K, item_id)

    def line(self, started: float) -> str:
        adds = sum(writer.adds for writer in self.writers)
        return (
            f"{time.monotonic() - started:6.0f} s: {self.kills.total()} kills, {adds} adds, {self.checks} checks, "
            f"lost {len(self.lost)}, wrong {self.wrong}"
        )

    def report(self, started: float) -> str:
        total = {
            name: sum(getattr(each, name) for each in self.writers)
            for name in ("adds", "deletes", "failed", "carried_out")
        }
        half_there = [item_id for writer in self.writers for item_id in writer.half_there]
        errors = [f"{writer.name}: {writer.error!r}" for writer in self.writers if writer.error]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kills.items()))
        return "\n".join(
            [
                f"adds {total['adds']}, deletes {total['deletes']}; items at the end {sum(len(w.expected.items) for w in self.writers)}",
                f"kills {self.kills.total()} ({kinds}); starts {self.server.starts}; compactions {self.compactions}",
                f"calls that failed {total['failed']}, of which carried out {total['carried_out']}",
                f"checks {self.checks}, each of all items and {2 * QUERIES} queries",
                f"lost = {len(self.lost)}, half there = {len(half_there)}, wrong answers = {self.wrong}",
                *sorted(self.lost)[:10],
                *half_there[:10],
                *errors,
                f"{time.monotonic() - started:.0f} s, seed {self.args.seed}",
            ]
        )


def build(index: Path) -> dict:
    """An index of items that nobody wrote; returns them."""
    items = {f"photo {n}": Item(LABELS[n % 3], f"photos/{n}.jpg", "", (), half(n)) for n in range(BASE_ITEMS)}
    build_version(
        index,
        embeddings=np.stack([vector(number) for number in range(BASE_ITEMS)]),
        item_ids=list(items),
        labels=[parse(item.label) for item in items.values()],
        uris=[item.uri for item in items.values()],
        model=MODEL,
        model_name="crash",
        spec=IndexSpec(shards=2),
    )
    return items


if __name__ == "__main__":
    main()
