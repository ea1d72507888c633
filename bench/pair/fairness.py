"""Does a caller who asks for ten times its share slow another down? `python -m bench.pair.fairness [--rounds N]`.

Starts the service with a file of callers. One caller, in this process, asks for its share, at even times; another, in a process of its own, asks at the same time for

- its share: `fair`;
- ten times its share, of which its limits let through one, and does not wait when it is told to: `greedy`;
- ten times its share, without limits: `unlimited`, which is what the limits are for.

In turns, a round of each after the other. Also, what the service does for two callers with 64 calls at once, against what it does for one. What counts is the first caller's p99, from when a call was due until it was answered, over all rounds, against that of `fair`.
A share is a part of what the service can do, which is measured first.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from bench.lib.servers import serving

OUT = RESULTS / "fairness.json"
METHODS = {"Embed": "embedder_svc", "Classify": "search_svc"}
PEOPLE = ("other", "greedy", "unlimited")
TIMEOUT_S = 30.0
TRIED_S = 3.0
FORGOTTEN_S = 11.0
"""A little more than a service remembers that several callers came."""

Ask = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Target:
    """Who is asked, and with what."""

    module: str
    address: str
    photos: list[bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each kind, a round")
    parser.add_argument("--share", type=float, default=0.15, help="of what the service can do")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--only", nargs="+", choices=tuple(METHODS), default=tuple(METHODS), metavar="METHOD")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    about = {"machine": machine.describe(), "photos": source}
    settings = {name: getattr(args, name) for name in ("rounds", "seconds", "share")}
    figures = {}
    for method in args.only:
        module = METHODS[method]
        with tempfile.TemporaryDirectory() as folder, serving(module, *_flags(Path(folder), 1e6)) as server:
            target = Target(module, server.address, photos)
            rate = args.share * asyncio.run(_capacity(target, ["other"], 4))
            of_several = [_of_several(target) for _ in range(args.rounds)]
        with tempfile.TemporaryDirectory() as folder, serving(module, *_flags(Path(folder), rate)) as server:
            figures[method] = _measured(Target(module, server.address, photos), rate, args.rounds, args.seconds)
        median, least, most = statistics.median(of_several), min(of_several), max(of_several)
        figures[method]["several / one caller, calls/s"] = {"value": median, "least": least, "most": most}
        print(method, json.dumps(figures[method]))
    args.out.write_text(json.dumps({**about, **settings, "figures": figures}, indent=1) + "\n")


def _flags(folder: Path, rate: float) -> tuple[object, ...]:
    blocks = []
    for name in PEOPLE:
        limit = f"photos_per_s = {rate}\nrequests_per_s = {rate}\n" if name == "greedy" else ""
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        blocks.append(f'[caller.{name}]\nrole = "query"\n{limit}[[token]]\ncaller = "{name}"\nsha256 = "{sha256}"\n')
    (folder / "callers.toml").write_text("\n".join(blocks))
    return "--callers", folder / "callers.toml", "--audit-log", folder / "audit", "--log-level", "warning"


@contextmanager
def _asking(target: Target, name: str) -> Iterator[Ask]:
    channel = grpc.aio.insecure_channel(target.address)
    how = {"timeout": TIMEOUT_S, "metadata": (("authorization", f"Bearer {name}"),)}
    if target.module == "embedder_svc":
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        images = [embedder_pb2.Image(content=photo) for photo in target.photos]
        requests = [embedder_pb2.EmbedRequest(images=[image]) for image in images]
        yield lambda number: stub.Embed(requests[number % len(requests)], **how)
        return
    with grpc.insecure_channel(target.address) as once:
        unlimited = {**how, "metadata": (("authorization", "Bearer unlimited"),)}
        index = search_pb2_grpc.SearchServiceStub(once).GetIndex(search_pb2.GetIndexRequest(), **unlimited).index
    vectors = np.random.default_rng(0).standard_normal((64, index.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = [search_pb2.ClassifyRequest(queries=wire.pack(index.model, vector[None])) for vector in vectors]
    search = search_pb2_grpc.SearchServiceStub(channel)
    yield lambda number: search.Classify(queries[number % 64], **how)


async def _capacity(target: Target, names: Sequence[str], at_once: int) -> float:
    """Return the calls a second of these callers with so many at once, of all together."""
    with ExitStack() as stack:
        asks = [stack.enter_context(_asking(target, name)) for name in names]
        await asyncio.gather(*(ask(number) for number in range(8) for ask in asks))
        began, done = time.perf_counter(), 0

        async def on_and_on(ask: Ask) -> None:
            nonlocal done
            while time.perf_counter() < began + TRIED_S:
                await ask(done)
                done += 1

        await asyncio.gather(*(on_and_on(asks[number % len(asks)]) for number in range(at_once)))
        return done / (time.perf_counter() - began)


async def _once(target: Target) -> None:
    with _asking(target, "other") as ask:
        await ask(0)


def _of_several(target: Target) -> float:
    """Return what the service does for two callers with 64 calls at once, against what it does for one, whom it takes to be alone."""
    asyncio.run(_once(target))
    time.sleep(FORGOTTEN_S)
    one = asyncio.run(_capacity(target, ["other"], 64))
    return asyncio.run(_capacity(target, ["other", "unlimited"], 64)) / one


def _measured(target: Target, rate: float, rounds: int, seconds: float) -> dict[str, object]:
    kinds = {"fair": ("greedy", 0.9 * rate), "greedy": ("greedy", 10 * rate), "unlimited": ("unlimited", 10 * rate)}
    took: dict[str, list[float]] = defaultdict(list)
    p99_ratios: dict[str, list[float]] = defaultdict(list)
    neighbours: dict[str, Counter[str]] = defaultdict(Counter)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        for _ in range(rounds):
            of_round = {}
            for kind, (name, wanted) in kinds.items():
                beside = pool.submit(_asked, target, name, wanted, seconds + 1)
                mine, outcomes = _asked(target, "other", 0.9 * rate, seconds)
                assert set(outcomes) == {"OK"}, outcomes
                neighbours[kind].update(beside.result()[1])
                took[kind] += mine
                of_round[kind] = _quantile(mine, 0.99)
            for kind in ("greedy", "unlimited"):
                p99_ratios[kind].append(of_round[kind] / of_round["fair"])
    return {
        "share_per_s": rate,
        "calls": len(took["fair"]),
        "p50_ms": {kind: _quantile(took[kind], 0.5) for kind in kinds},
        "p99_ms": {kind: _quantile(took[kind], 0.99) for kind in kinds},
        "p99_ratio": {kind: _quantile(took[kind], 0.99) / _quantile(took["fair"], 0.99) for kind in p99_ratios},
        "p99_ratio_of_rounds": {
            kind: {"value": statistics.median(each), "least": min(each), "most": max(each)}
            for kind, each in p99_ratios.items()
        },
        "neighbour": {kind: dict(outcomes) for kind, outcomes in neighbours.items()},
    }


def _quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))


def _asked(target: Target, name: str, rate: float, seconds: float) -> tuple[list[float], Counter[str]]:
    return asyncio.run(_ask(target, name, rate, seconds))


async def _ask(target: Target, name: str, rate: float, seconds: float) -> tuple[list[float], Counter[str]]:
    """Call at even times, whatever becomes of the calls; return the milliseconds of each from when it was due, and how they ended."""
    took, outcomes = [], Counter[str]()

    async def one(number: int, due: float) -> None:
        try:
            await ask(number)
            outcome = "OK"
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
        outcomes[outcome] += 1
        took.append(1e3 * (time.perf_counter() - due))

    with _asking(target, name) as ask:
        with suppress(grpc.aio.AioRpcError):  # refused, if what was asked before used the share up
            await ask(0)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(one(number, due))
    return took, outcomes


if __name__ == "__main__":
    main()
