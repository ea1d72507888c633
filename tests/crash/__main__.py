"""Kills a server again and again while it is written to, and looks for what was lost.

    python -m tests.crash --kills 200

Writers add, replace and delete items through gRPC, while several servers serve one index. `kill -9` comes at random moments: to one of them,
to all processes at once, to a compaction. After each, once somebody answers again, the writers pause, and every item is compared with what
was acknowledged, and answers with what numpy finds. What a kill of all has left is also copied: the copies are served, backed up, compacted, rolled
back and repaired, as they are and with a bit flipped (tests.crash.laboratory). Exit code 1 if anything is not as it must be.
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.index.index_dir import current
from search_svc.voting.labels import parse
from tests.crash.expected import MODEL, Expected, Item, half, right, same, vector
from tests.crash.laboratory import SETTLED, Laboratory, settle
from tests.crash.server import RefusedError, Server
from tests.crash.writer import LABELS, Writer
from tests.crash.zygote import Zygote
from tests.flips.trial import REFUSED, flipped, refusal

BASE_ITEMS = 200
K = 10
QUERIES = 8
KINDS = (
    "one",
    "all",
    "compaction",
    "all during compaction",
    "all, a version away as others are retired",
    "all, a bit flipped before the start",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument(
        "--flips", type=int, default=6, help="bits that are flipped in copies of what a kill of all has left"
    )
    parser.add_argument(
        "--commands", type=int, default=10, help="of so many starts one is by the command, not a fork; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vmmr-crash-") as directory:
        sys.exit(0 if Run(Path(directory), args).go() else 1)


class Run:
    def __init__(self, directory: Path, args: argparse.Namespace) -> None:
        self.args = args
        self.directory = directory
        self.rng = random.Random(args.seed)
        self.zygote = Zygote()
        self.server = Server(directory / "index", directory / "server.log", self.zygote)
        base = build(self.server.index)
        self.writers = [
            Writer(number, self.server, args.seed + 1 + number, Expected(base if number == 0 else {}))
            for number in range(args.writers)
        ]
        self.laboratory = Laboratory(directory / "laboratory", self.rng)
        self.kills: collections.Counter[str] = collections.Counter()
        self.flips: collections.Counter[str] = collections.Counter()
        self.kinds = self.endless_kinds()
        self.compactions = self.wrong = self.checks = 0
        self.compaction_s = 0.5
        """How long the last took that was left to its end: others are killed within that time."""
        self.settled: dict[str, Item] = {}
        self.lost: set[str] = set()
        self.problems: list[str] = []

    def go(self) -> bool:
        """Whether all was as it must be."""
        started = time.monotonic()
        self.start()
        try:
            for writer in self.writers:
                writer.start()
            while self.kills.total() < self.args.kills and self.well:
                self.kill_once()
                if self.kills.total() % 10 == 0 or not self.well:
                    print(self.line(started), file=sys.stderr, flush=True)
        finally:
            for writer in self.writers:
                writer.stop()
            self.server.kill_all()
            self.zygote.stop()
        print(self.report(started))
        return self.well

    @property
    def well(self) -> bool:
        problems = any(writer.error or writer.half_there for writer in self.writers)
        return not (problems or self.lost or self.wrong or self.problems or self.laboratory.problems)

    def start(self) -> None:
        starts = self.server.starts + self.server.forks
        by_command = self.args.commands and starts % self.args.commands == self.args.commands // 2
        self.server.start(forked=not by_command)

    def kill_once(self) -> None:
        """Lets the writers write for a moment, and kills in the middle of it; then looks at what is left."""
        kind = next(self.kinds)
        self.write()
        time.sleep(self.rng.uniform(0, 0.5))
        if kind == "one":
            self.server.kill_one(self.rng)
            time.sleep(self.rng.uniform(0, 0.3))
            self.rest()
            self.server.wait()
        elif kind == "compaction":
            self.kill_compaction()
            self.rest()
        else:
            self.kill_all(kind)
        self.kills[kind] += 1
        self.check()

    def kill_all(self, kind: str) -> None:
        compaction = None
        if kind == "all during compaction":
            compaction = self.begin_compaction(keep=2)
            time.sleep(self.rng.uniform(0, self.compaction_s))
        elif "away" in kind:
            self.retire_while_one_is_away()
        self.server.kill_all()
        self.rest()
        if compaction:
            self.kill_it(compaction)
        left = self.directory / "left"
        shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self.server.index, left)
        if "flipped" in kind:
            self.start_flipped()
        self.start()
        self.at_rest()
        if self.well:
            self.try_copies(left)

    def try_copies(self, left: Path) -> None:
        expected = [writer.expected for writer in self.writers]
        image = self.directory / "image"
        item = settle(left, self.rng.getrandbits(40), image)
        items = {item_id: item for each in expected for item_id, item in each.items.items()}
        ever = {item_id: all_ for each in expected for item_id, all_ in each.ever.items()}
        settled = {SETTLED: item}, {SETTLED: [None, self.settled.get(SETTLED), item]}
        self.laboratory.try_all(image, items | settled[0], ever | settled[1], self.args.flips)

    def start_flipped(self) -> None:
        """It starts and answers right, or says which file is damaged, and the way out; then the bit is flipped back."""
        image = self.directory / "image"
        self.settled[SETTLED] = settle(self.server.index, self.rng.getrandbits(40), image)
        self.replace_index(image)
        (place,) = self.laboratory.places(self.server.index, 1)
        path = self.server.index / place.file
        path.write_bytes(flipped(path.read_bytes(), place))
        try:
            self.server.start(forked=True)
        except RefusedError as error:
            outcome = refusal(str(error), path.name)
            self.flips[outcome.kind] += 1
            if outcome.kind != REFUSED:
                self.problems.append(f"{place}: {outcome.told}")
        else:
            self.flips["started"] += 1
            try:
                self.check()
            except grpc.RpcError as error:
                self.problems.append(f"{place}: it started, and then: {error.details()}")
        self.server.kill_all()
        self.replace_index(image)

    def replace_index(self, image: Path) -> None:
        shutil.rmtree(self.server.index)
        shutil.copytree(image, self.server.index)

    def retire_while_one_is_away(self) -> None:
        """A file of a version that is not served cannot be read for as long as others are removed and the journal is pruned."""
        self.compact(keep=3)
        index = self.server.index
        others = [path for path in index.glob("versions/0*/*") if path.parent.name != current(index)]
        if not others:
            return
        path, away = self.rng.choice(sorted(others)), self.directory / "away"
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            path.rename(away)
            self.compact(keep=self.rng.randint(1, 3))
            if path.parent.exists():
                away.rename(path)

    def endless_kinds(self):
        """Each as often as the others, in any order."""
        while True:
            yield from self.rng.sample(KINDS, len(KINDS))

    def kill_compaction(self) -> None:
        """One that a server has begun if it does so by itself, or one that is begun by hand."""
        if not self.server.kill_compaction(self.rng):
            pid = self.begin_compaction(keep=2)
            time.sleep(self.rng.uniform(0, self.compaction_s))
            self.kill_it(pid)

    def compact(self, keep: int) -> None:
        started = time.monotonic()
        if self.zygote.wait(self.begin_compaction(keep)) == 0:
            self.compactions += 1
            self.compaction_s = time.monotonic() - started

    def begin_compaction(self, keep: int) -> int:
        log = self.directory / "compactions.log"
        return self.zygote.start("compact", self.server.index, "--keep-versions", keep, log=log)

    def kill_it(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)  # one that has ended is still waited for
        self.compactions += self.zygote.wait(pid) == 0

    def write(self) -> None:
        for writer in self.writers:
            writer.running.set()

    def rest(self) -> None:
        """What is under way is seen to its end; nothing new begins."""
        for writer in self.writers:
            writer.running.clear()

    def at_rest(self) -> None:
        for writer in self.writers:
            assert writer.idle.wait(120), f"{writer.name} does not come to rest"

    def check(self) -> None:
        """With the writers at rest: every item, and some answers."""
        self.at_rest()
        if not self.well:
            return
        expected = {item_id: item for writer in self.writers for item_id, item in writer.expected.items.items()}
        expected |= self.settled
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
        problems = [*self.problems, *self.laboratory.problems, *errors]
        return "\n".join(
            [
                f"adds {total['adds']}, deletes {total['deletes']}; items at the end {sum(len(w.expected.items) for w in self.writers)}",
                f"kills {self.kills.total()} ({told(self.kills)})",
                f"starts {self.server.starts} by the command, {self.server.forks} forked; compactions that ended {self.compactions}",
                f"starts with a flipped bit: {told(self.flips) or 'none'}",
                f"of what kills left, tried on copies: {told(self.laboratory.counts) or 'nothing'}",
                f"calls that failed {total['failed']}, of which carried out {total['carried_out']}",
                f"checks {self.checks}, each of all items and {2 * QUERIES} queries",
                f"lost = {len(self.lost)}, half there = {len(half_there)}, wrong answers = {self.wrong}, problems = {len(problems)}",
                *sorted(self.lost)[:10],
                *half_there[:10],
                *problems[:10],
                f"{time.monotonic() - started:.0f} s, seed {self.args.seed}",
            ]
        )


def told(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))


def build(index: Path) -> dict:
    """An index of items that nobody wrote; returns them."""
    items = {f"photo {n}": Item(LABELS[n % 3], f"photos/{n}.jpg", "", (), half(n)) for n in range(BASE_ITEMS)}
    gallery = BuildSource(
        embeddings=np.stack([vector(number) for number in range(BASE_ITEMS)]),
        rows=np.arange(BASE_ITEMS),
        item_ids=list(items),
        labels=[parse(item.label) for item in items.values()],
        uris=[item.uri for item in items.values()],
        model=MODEL,
        model_name="crash",
    )
    build_version(index, gallery, IndexSpec(shards=2))
    return items


if __name__ == "__main__":
    main()
