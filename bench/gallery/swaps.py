"""A gallery that changes under load: `python -m bench.gallery.swaps [--seconds 40]`.

Serves the embeddings of the gallery that ships, as a Flat index, by two `vmmr-search serve` over one folder.

- Swaps: queries at a fixed rate, first left alone, then with one compaction after the other (a few items written before each),
  each of which ends with the next version being served. Latencies count from the intended start. Every answer is compared
  with numpy's: what is written lies opposite to all photos, so the nearest ones never change. During a swap are the calls
  that some compaction overlaps.
- Catch-up: items are added at one server, one at a time, and the other is asked again and again from the acknowledgement
  on, until it answers with the item's journal sequence; and, with `min_sequence`, it must find the item at once.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import serving
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.index.version import IndexVersion

SHIPPED = ROOT / "models/stanford-cars"
OUT = RESULTS / "swaps.json"
K, QUERIES, BETWEEN = 10, 256, 20
TIMEOUT_S = 10.0


@dataclass
class Call:
    """Times of `time.perf_counter`."""

    intended: float
    ended: float
    wrong: str = ""

    @property
    def ms(self) -> float:
        return 1e3 * (self.ended - self.intended)


@dataclass
class Swaps:
    spans: list[tuple[float, float]] = field(default_factory=list)

    def overlap(self, call: Call) -> bool:
        return any(began < call.ended and call.intended < ended for began, ended in self.spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of queries left alone, and again of swaps")
    parser.add_argument("--rate", type=float, default=50.0, help="queries a second")
    parser.add_argument("--writes", type=int, default=300, help="whose catch-up is timed")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, ExitStack() as servers:
        version = built(Path(work) / "index")
        flags = ("--index", version.path.parents[1], "--compact-at", 0, "--log-level", "warning")
        one, other = (servers.enter_context(serving("search_svc", *flags)).address for _ in range(2))
        swapped = asyncio.run(swaps(one, version, args.rate, args.seconds))
        caught_up = asyncio.run(catch_up(one, other, version, args.writes))
    for name, figures in {"swaps": swapped, "catch-up": caught_up}.items():
        print(f"{name}: " + ", ".join(f"{what} {value:g}" for what, value in figures.items()))
    content = {"machine": machine.describe(), "rate": args.rate, "swaps": swapped, "catch_up": caught_up}
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(bool(swapped["failed"] or swapped["wrong"] or caught_up["min_sequence not honoured"]))


def built(index: Path) -> IndexVersion:
    """Build an index version of the gallery that ships, without compression."""
    shipped = IndexVersion.open(SHIPPED)
    ids, uris = shipped.items.take(range(len(shipped.items)))
    return build_version(
        index,
        BuildSource(
            embeddings=shipped.embeddings,
            item_ids=ids,
            uris=uris,
            labels=[shipped.items.labels[position] for position in shipped.items.label_of.tolist()],
            model=shipped.manifest.model,
            model_name=shipped.manifest.model_name,
            rows=np.arange(len(ids)),
        ),
        IndexSpec("Flat"),
    )


# --- swaps ---


async def swaps(address: str, version: IndexVersion, rate: float, seconds: float) -> dict[str, float]:
    queries = version.embeddings[:: max(1, len(version.items) // QUERIES)].astype(np.float32)
    expected = nearest(version, queries)
    async with grpc.aio.insecure_channel(address) as channel:
        ask = Asker(channel, version.manifest.model, queries, expected)
        await ask.at_rate(rate, min(5.0, seconds))
        alone = await ask.at_rate(rate, seconds)
        done, going = Swaps(), asyncio.Event()
        swapping = asyncio.ensure_future(keep_swapping(channel, version, done, going))
        both = await ask.at_rate(rate, seconds)
        going.set()
        await swapping
    during = [call for call in both if done.overlap(call)]
    calls = [*alone, *both]
    return {
        "calls": len(calls),
        "compactions": len(done.spans),
        "failed": sum(call.wrong.startswith("failed") for call in calls),
        "wrong": sum(call.wrong == "wrong" for call in calls),
        "calls during a swap": len(during),
        "p50 ms alone": percentile(alone, 50),
        "p50 ms during": percentile(during, 50),
        "p99 ms alone": percentile(alone, 99),
        "p99 ms during": percentile(during, 99),
        "p99 ratio": round(percentile(during, 99) / percentile(alone, 99), 2),
    }


def nearest(version: IndexVersion, queries: NDArray[np.float32]) -> list[list[str]]:
    """Return the ids of the K items nearest to each query, found by numpy."""
    scores = queries @ version.embeddings.astype(np.float32).T
    return [version.items.take(np.lexsort((np.arange(len(row)), -row))[:K].tolist())[0] for row in scores]


@dataclass
class Asker:
    channel: grpc.aio.Channel
    model: str
    queries: NDArray[np.float32]
    expected: Sequence[Sequence[str]]

    async def at_rate(self, rate: float, seconds: float) -> list[Call]:
        stub = search_pb2_grpc.SearchServiceStub(self.channel)
        started, tasks = time.perf_counter(), []
        for number in range(round(rate * seconds)):
            intended = started + number / rate
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))
            tasks.append(asyncio.ensure_future(self._ask(stub, number % len(self.queries), intended)))
        return list(await asyncio.gather(*tasks))

    async def _ask(self, stub: Any, number: int, intended: float) -> Call:
        packed = wire.pack(self.model, self.queries[number : number + 1])
        request = search_pb2.SearchRequest(queries=packed, options=search_pb2.SearchOptions(k=K))
        try:
            reply = await stub.Search(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return Call(intended, time.perf_counter(), f"failed: {error.code().name} {error.details()}")
        found = [neighbour.item_id for neighbour in reply.results[0].neighbours]
        return Call(intended, time.perf_counter(), "" if same(found, self.expected[number]) else "wrong")


def same(found: Sequence[str], expected: Sequence[str]) -> bool:
    """Return whether two answers agree. Two photos may score so alike that numpy and faiss order them differently."""
    return len(found) == len(expected) and set(found[:-1]) <= {*expected} and found[0] == expected[0]


async def keep_swapping(channel: grpc.aio.Channel, version: IndexVersion, done: Swaps, going: asyncio.Event) -> None:
    stub = gallery_pb2_grpc.GalleryServiceStub(channel)
    far = -version.embeddings.astype(np.float32).mean(axis=0)
    while not going.is_set():
        names = [f"far {len(done.spans)} {number}" for number in range(BETWEEN)]
        await stub.AddItems(adding(version.manifest.model, names, np.stack([far] * BETWEEN)), timeout=TIMEOUT_S)
        began = time.perf_counter()
        await stub.Compact(gallery_pb2.CompactRequest(), timeout=120)
        done.spans.append((began, time.perf_counter()))


def adding(model: str, names: Sequence[str], vectors: NDArray[np.float32]) -> gallery_pb2.AddItemsRequest:
    items = [gallery_pb2.Item(item_id=name, label="lada_niva_1999") for name in names]
    return gallery_pb2.AddItemsRequest(items=items, embeddings=wire.pack(model, vectors))


# --- catch-up ---


async def catch_up(one: str, other: str, version: IndexVersion, writes: int) -> dict[str, float]:
    rng = np.random.default_rng(1)
    took, honoured = [], 0
    async with grpc.aio.insecure_channel(one) as writing, grpc.aio.insecure_channel(other) as reading:
        gallery, search = gallery_pb2_grpc.GalleryServiceStub(writing), search_pb2_grpc.SearchServiceStub(reading)
        for number in range(writes):
            vector = rng.standard_normal((1, version.manifest.dimension)).astype(np.float32)
            name = f"new {number}"
            written = await gallery.AddItems(adding(version.manifest.model, [name], vector), timeout=TIMEOUT_S)
            acknowledged = time.perf_counter()
            at_once = number % 2 == 1
            options = search_pb2.SearchOptions(k=1, min_sequence=written.journal_sequence if at_once else None)
            asked = search_pb2.SearchRequest(queries=wire.pack(version.manifest.model, vector), options=options)
            reply = await search.Search(asked, timeout=TIMEOUT_S)
            if at_once:
                honoured += reply.results[0].neighbours[0].item_id == name
                continue
            while reply.provenance.journal_sequence < written.journal_sequence:
                reply = await search.Search(asked, timeout=TIMEOUT_S)
            took.append(1e3 * (time.perf_counter() - acknowledged))
    return {
        "writes": writes,
        "p50 ms": round(statistics.median(took), 1),
        "p99 ms": round(float(np.percentile(took, 99)), 1),
        "most ms": round(max(took), 1),
        "min_sequence not honoured": writes // 2 - honoured,
    }


def percentile(calls: Sequence[Call], percent: float) -> float:
    return round(float(np.percentile([call.ms for call in calls], percent)), 2)


if __name__ == "__main__":
    main()
