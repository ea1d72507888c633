"""What the chain costs beside its parts: `python -m bench.pair.chain [--rounds N]`.

Starts the pair that ships, and in one run, in turns, a round at a time:

- one at a time: `identify` of both clients, and the two calls by hand (bare stubs, requests made before): the median call
  beside the median time of the network for the same photos (`EmbedTimes.infer_ms`), and where the rest is.
- many: `identify_many` of both clients beside the slower service alone. The embedder alone is `embed` with as many
  batches of the same size at once as find it busiest; the search service alone is `classify` of the same embeddings.

Photos are JPEGs of 500 x 375 in memory: those of Stanford Cars made that size, or drawn where they are absent. CPU seconds
are of this process and of both servers. Each figure is a median over rounds, with the least and the most.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import vmmr
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from bench.lib.servers import Served, pair

OUT = RESULTS / "chain.json"
IN_FLIGHT = (1, 2, 3)
TIMEOUT_S = 60.0

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--single", type=int, default=40, metavar="N", help="photos one at a time, each way, a round")
    parser.add_argument("--many", type=int, default=128, metavar="N", help="photos of identify_many, each way, a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--workers", type=int, metavar="N", help="--workers of the embedder, in place of its default")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    with pair(*(("--workers", args.workers) if args.workers else ())) as served:
        figures = asyncio.run(measured(served, photos, args))
    about = {
        "machine": machine.describe(),
        "cores": os.cpu_count(),
        "photos": source,
        **{name: getattr(args, name) for name in ("rounds", "single", "many", "batch", "connections", "workers")},
    }
    print(table(figures))
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")


# --- one at a time ---


@dataclass(frozen=True)
class One:
    """A photo's way: what its caller waited, and what the services say of it."""

    wall_ms: float
    decode_ms: float
    queue_ms: float
    infer_ms: float
    search_ms: float

    @classmethod
    def of(cls, wall_s: float, embed: Any, search: Any) -> "One":
        found = search.queue_ms + search.search_ms + search.vote_ms
        return cls(1e3 * wall_s, embed.decode_ms, embed.queue_ms, embed.infer_ms, found)


def identified(client: vmmr.Client, photos: Iterable[bytes]) -> list[One]:
    return [_one(*_timed(client.identify, photo)) for photo in photos]


async def identified_async(client: vmmr.AsyncClient, photos: Iterable[bytes]) -> list[One]:
    found = []
    for photo in photos:
        began = time.perf_counter()
        answer = await client.identify(photo)
        found.append(_one(answer, time.perf_counter() - began))
    return found


def by_hand(channels: Sequence[grpc.Channel], photos: Iterable[bytes]) -> list[One]:
    embed = embedder_pb2_grpc.EmbedderServiceStub(channels[0]).Embed
    classify = search_pb2_grpc.SearchServiceStub(channels[1]).Classify
    requests = [embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=photo)]) for photo in photos]
    found = []
    for request in requests:
        began = time.perf_counter()
        embedded = embed(request, timeout=TIMEOUT_S)
        classified = classify(search_pb2.ClassifyRequest(queries=embedded.embeddings), timeout=TIMEOUT_S)
        found.append(One.of(time.perf_counter() - began, embedded.times, classified.times))
    return found


def _timed(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(*args), time.perf_counter() - began


def _one(answer: vmmr.Identification, wall_s: float) -> One:
    return One.of(wall_s, answer.times.embed, answer.times.search)


def singles(name: str, calls: Sequence[One]) -> Figures:
    def median(part: Callable[[One], float]) -> float:
        return statistics.median(map(part, calls))

    return {
        f"{name}, p50 ms": median(lambda c: c.wall_ms),
        f"{name}: the network, p50 ms": median(lambda c: c.infer_ms),
        f"{name}: all else, ms": median(lambda c: c.wall_ms) - median(lambda c: c.infer_ms),
        f"{name}: of it decoding": median(lambda c: c.decode_ms),
        f"{name}: of it the embedder's queue": median(lambda c: c.queue_ms),
        f"{name}: of it the search service": median(lambda c: c.search_ms),
        f"{name}: of it the way and the client": median(
            lambda c: c.wall_ms - c.infer_ms - c.decode_ms - c.queue_ms - c.search_ms
        ),
    }


# --- many ---


def embedded(client: vmmr.Client, batches: Sequence[list[bytes]], at_once: int) -> list[vmmr.Embeddings]:
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(client.embed, batches))


def classified(client: vmmr.Client, embeddings: Sequence[vmmr.Embeddings], at_once: int) -> list[vmmr.ClassifyResult]:
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(client.classify, embeddings))


def all_identified(client: vmmr.Client, photos: Iterable[bytes], batch: int) -> int:
    return sum(outcome.result() is not None for outcome in client.identify_many(photos, batch=batch))


async def all_identified_async(client: vmmr.AsyncClient, photos: Iterable[bytes], batch: int) -> int:
    return sum([outcome.result() is not None async for outcome in client.identify_many(photos, batch=batch)])


# --- rounds ---


async def measured(served: tuple[Served, Served], photos: list[bytes], args: argparse.Namespace) -> dict[str, Any]:
    addresses = [each.address for each in served]
    settings = {"timeout_s": TIMEOUT_S} | ({"connections": args.connections} if args.connections > 1 else {})
    figures: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        client = stack.enter_context(vmmr.Client(*addresses, **settings))
        channels = [stack.enter_context(grpc.insecure_channel(address)) for address in addresses]
        async with vmmr.AsyncClient(*addresses, **settings) as async_client:
            for counted in range(-1, args.rounds):  # the first warms up
                order = np.random.default_rng(counted + 1).permutation(len(photos))
                one_round = Round([photos[n] for n in order], served, args)
                found = await one_round.singles(client, async_client, channels)
                found |= await one_round.many(client, async_client)
                if counted < 0:
                    continue
                print(f"round {counted + 1} of {args.rounds}", file=sys.stderr, flush=True)
                for name, figure in found.items():
                    figures[name].append(figure)
    return figures


@dataclass
class Round:
    photos: list[bytes]
    served: tuple[Served, Served]
    args: argparse.Namespace

    def given(self, count: int) -> list[bytes]:
        return list(islice(cycle(self.photos), count))

    async def singles(
        self, client: vmmr.Client, async_client: vmmr.AsyncClient, channels: Sequence[grpc.Channel]
    ) -> Figures:
        photos = self.given(self.args.single)
        return (
            singles("by hand", by_hand(channels, photos))
            | singles("identify", identified(client, photos))
            | singles("identify, async", await identified_async(async_client, photos))
        )

    async def many(self, client: vmmr.Client, async_client: vmmr.AsyncClient) -> Figures:
        photos, size = self.given(self.args.many), self.args.batch
        batches = [photos[start : start + size] for start in range(0, len(photos), size)]
        alone, embeddings = [], []
        for at_once in IN_FLIGHT:
            began = time.perf_counter()
            embeddings = embedded(client, batches, at_once)
            alone.append(len(photos) / (time.perf_counter() - began))
        found: Figures = {f"embed alone, {n} at once, photos/s": rate for n, rate in zip(IN_FLIGHT, alone, strict=True)}
        began = time.perf_counter()
        classified(client, embeddings, 2)
        searched = len(photos) / (time.perf_counter() - began)
        found["classify alone, photos/s"] = searched
        slower = min(max(alone), searched)
        with self.counting("identify_many", slower, found):
            all_identified(client, photos, size)
        with self.counting("identify_many, async", slower, found):
            await all_identified_async(async_client, photos, size)
        return found

    @contextmanager
    def counting(self, name: str, slower: float, found: Figures) -> Iterator[None]:
        used = [each.cpu_s() for each in self.served]
        cpu, began = time.process_time(), time.perf_counter()
        yield
        rate = self.args.many / (time.perf_counter() - began)
        found[f"{name}, photos/s"] = rate
        found[f"{name} / the slower service alone"] = rate / slower
        found[f"{name}: CPU ms a photo, client"] = 1e3 * (time.process_time() - cpu) / self.args.many
        for each, before, service in zip(self.served, used, ("embedder", "search"), strict=True):
            found[f"{name}: CPU ms a photo, {service}"] = 1e3 * (each.cpu_s() - before) / self.args.many


def table(figures: dict[str, list[float]]) -> str:
    return "\n".join(
        f"{name:52} {statistics.median(values):9.3f}  ({min(values):.3f} to {max(values):.3f})"
        for name, values in figures.items()
    )


if __name__ == "__main__":
    main()
