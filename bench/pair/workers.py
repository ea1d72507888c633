"""What a second worker is worth on two cores: `python -m bench.pair.workers`. Less than three minutes on an idle machine.

Starts the servers that ship in three ways, all at once, and loads one at a time, in turns: one process on one core; one process
with the threads it takes by itself; two workers. The callers are a process of their own on the same cores, with 16 connections
and a call at a time on each. So what callers cost is missing to the server, and on two cores a second worker can't double
what is served; CPU time tells what does not depend on that. Each figure is a median over rounds of one against the
other in the same round, with the least and the most.

- calls/s: of all callers.
- per CPU s: calls that were served in a second of the server's CPU time, all its processes together. What of it two workers keep of
  one process on one core is how near they are to linear.
- busy: cores that the server used, and the callers.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2
from vmmr.search.v1 import search_pb2

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import Served, starting
from search_svc.index.version import IndexVersion

OUT = RESULTS / "workers.json"
INDEX = ROOT / "models" / "stanford-cars"
CONNECTIONS = 16
WAYS: Mapping[str, tuple[str, ...]] = {
    "one core": (),
    "one process": (),
    "two workers": ("--workers", "2"),
}


@dataclass(frozen=True)
class Case:
    name: str
    module: str
    method: str
    request: Callable[[], bytes]


@dataclass(frozen=True)
class Measured:
    calls_per_s: float
    calls_per_cpu_s: float
    p50_ms: float
    p99_ms: float
    server_cores: float
    callers_cores: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement in a round")
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    reports = {}
    for case in CASES:
        if args.only and case.name not in args.only:
            continue
        reports[case.name] = measured(case, args.rounds, args.seconds)
        print(table(case.name, reports[case.name]), flush=True)
    about = {"machine": machine.describe(), "cores": len(os.sched_getaffinity(0))}
    settings = {"connections": CONNECTIONS, "rounds": args.rounds, "seconds": args.seconds}
    args.out.write_text(json.dumps({**about, **settings, "cases": reports}, indent=1) + "\n")


def photo() -> bytes:
    """Return a request of one JPEG of 500 x 375, with edges and noise as photos have."""
    y, x = np.mgrid[0:375, 0:500]
    waves = np.stack([128 + 100 * np.sin(x / p) * np.cos(y / q) for p, q in ((40, 25), (17, 60), (70, 9))], -1)
    pixels = waves + np.random.default_rng(0).normal(0, 8, waves.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=file.getvalue())]).SerializeToString()


def queries(count: int) -> bytes:
    """Return a request of queries near to gallery photos."""
    version = IndexVersion.open(INDEX)
    rows = np.random.default_rng(0).choice(len(version.embeddings), count, replace=False)
    vectors = version.embeddings[rows].astype(np.float32)
    vectors += np.random.default_rng(1).normal(0, 0.01, vectors.shape).astype(np.float32)
    packed = wire.pack(version.manifest.model, vectors)
    return search_pb2.SearchRequest(queries=packed, options=search_pb2.SearchOptions(k=10)).SerializeToString()


EMBED, SEARCH = "/vmmr.embedder.v1.EmbedderService/Embed", "/vmmr.search.v1.SearchService/Search"
CASES = (
    Case("embed 1 photo", "embedder_svc", EMBED, photo),
    Case("search 1 query", "search_svc", SEARCH, partial(queries, 1)),
    Case("search 32 queries", "search_svc", SEARCH, partial(queries, 32)),
)


def measured(case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the figures of each way, and the ratios of two workers to each other way."""
    request = case.request()
    with ExitStack() as stack:
        servers = {way: stack.enter_context(serving(case.module, way)) for way in WAYS}
        pool = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        for server in servers.values():
            loaded(server, pool, case.method, request, 1.0)
        found = [
            {way: loaded(server, pool, case.method, request, seconds) for way, server in servers.items()}
            for _ in range(rounds)
        ]
    figures = {way: summary([each[way] for each in found]) for way in WAYS}
    ratios = {
        way: summary([quotient(each["two workers"], each[way]) for each in found])
        for way in WAYS
        if way != "two workers"
    }
    return {"figures": figures, "two workers against": ratios}


def quotient(one: Measured, other: Measured) -> Measured:
    return Measured(*(a / b for a, b in zip(astuple(one), astuple(other), strict=True)))


def summary(rounds: Sequence[Measured]) -> dict[str, list[float]]:
    """Return median, least and most of each field."""
    columns = zip(*map(astuple, rounds), strict=True)
    names = (each.name for each in fields(Measured))
    return {
        name: [round(of(column), 3) for of in (statistics.median, min, max)]
        for name, column in zip(names, columns, strict=True)
    }


def table(name: str, report: dict[str, Any]) -> str:
    lines = [
        f"{name:<18} {'calls/s':>9} {'per CPU s':>10} {'p50 ms':>8} {'p99 ms':>8} {'busy: server':>13} {'callers':>8}"
    ]
    for way, figures in report["figures"].items():
        calls, per_cpu, p50, p99, server, callers = (values[0] for values in figures.values())
        lines.append(f"  {way:<16} {calls:9.0f} {per_cpu:10.0f} {p50:8.2f} {p99:8.2f} {server:13.2f} {callers:8.2f}")
    for way, ratios in report["two workers against"].items():
        calls, per_cpu = (
            "{:.2f} [{:.2f}, {:.2f}]".format(*ratios[name]) for name in ("calls_per_s", "calls_per_cpu_s")
        )
        lines.append(f"  two workers against {way}: calls/s x {calls}, per CPU s x {per_cpu}")
    return "\n".join(lines)


# --- servers ---


@contextmanager
def serving(module: str, way: str) -> Iterator[Served]:
    with starting(module, *WAYS[way], "--log-level", "warning") as server:
        if way == "one core":
            os.sched_setaffinity(server.process.pid, {min(os.sched_getaffinity(0))})
        yield server.ready()


# --- callers ---


def loaded(server: Served, pool: ProcessPoolExecutor, method: str, request: bytes, seconds: float) -> Measured:
    before, began = server.cpu_s(), time.perf_counter()
    durations, callers_s = pool.submit(call, server.port, method, request, seconds).result()
    wall_s, server_s = time.perf_counter() - began, server.cpu_s() - before
    p50, p99 = np.percentile(durations, [50, 99]) * 1e3
    return Measured(
        len(durations) / wall_s,
        len(durations) / server_s,
        float(p50),
        float(p99),
        server_s / wall_s,
        callers_s / wall_s,
    )


def call(port: int, method: str, request: bytes, seconds: float) -> tuple[list[float], float]:
    """Return the seconds of each call, and the CPU time of all."""
    before = time.process_time()
    return asyncio.run(call_over_all(port, method, request, seconds)), time.process_time() - before


async def call_over_all(port: int, method: str, request: bytes, seconds: float) -> list[float]:
    durations: list[float] = []

    async def keep_calling() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            unary = channel.unary_unary(method)
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                await unary(request, timeout=30, wait_for_ready=True)
                durations.append(time.perf_counter() - began)

    await asyncio.gather(*(keep_calling() for _ in range(CONNECTIONS)))
    return durations


if __name__ == "__main__":
    main()
