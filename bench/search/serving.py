"""What serving costs beside faiss itself: `python -m bench.search.serving [--keep DIR]`.

Builds indexes of seeded, clustered vectors, starts `vmmr-search serve` on each, and calls it from another process. In the
same run, in turns, a third process opens the same shard files with the same threads (one a shard, OpenMP set to one in
each) and asks faiss alone, set to use BLAS as early as the server does; also as it comes. Each figure is a median over rounds of one against the other in the same round, with the least
and the most.

- batch 64: calls of 64 queries as fast as they are answered, 1, 2 and 4 in flight: throughput of the server against faiss'.
- single: one query at a time; the median call against faiss' own, and where the difference is: in the engine
  (`SearchTimes.search_ms` less faiss), in the queue, or on the way (all else: gRPC, reading, writing). Beside it, what the same
  call takes of a server of bare gRPC that answers at once with as large a reply; and the CPU time of both servers.
- 64 callers: single queries of 64 callers at once against one by one, and against a server with `--max-batch 1`.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import grpc
import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib import machine, servers
from bench.lib.paths import RESULTS
from bench.lib.servers import Served
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse

FAISS_OWN_THRESHOLD = 128_000
OUR_THRESHOLD: int = faiss.cvar.distance_compute_blas_threshold
K, BATCH, CALLERS = 10, 64, 64
BATCHES_IN_FLIGHT = (1, 2, 4)
QUERIES = 1024
LABELS = 1000
MODEL = 64 * "0"
BUSY = 0.9
OUT = RESULTS / "serving.json"


@dataclass(frozen=True)
class Case:
    name: str
    photos: int
    dimension: int
    spec: IndexSpec


CASES = (
    Case("flat", 100_000, 512, IndexSpec("Flat")),
    Case("ivf", 100_000, 512, IndexSpec("IVF1024,SQ8", nprobe=16)),
    Case("hnsw", 100_000, 512, IndexSpec("HNSW32,SQ8", ef_search=64)),
    Case("flat-2048", 20_000, 2048, IndexSpec("Flat")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where indexes are kept for the next run")
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement in a round")
    parser.add_argument("--build-only", action="store_true", help="only build what --keep lacks")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    reports = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES:
            if args.only and case.name not in args.only:
                continue
            version = built(args.keep or Path(temporary), replace(case, spec=replace(case.spec, shards=args.shards)))
            if not args.build_only:
                reports.append(measured(case, version, args.rounds, args.seconds))
                print(table(reports[-1]), flush=True)
    if reports:
        about = {"machine": machine.describe(), "cores": os.cpu_count(), "k": K}
        args.out.parent.mkdir(exist_ok=True)
        args.out.write_text(json.dumps({**about, **vars_of(args), "cases": reports}, indent=1) + "\n")


def vars_of(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("shards", "rounds", "seconds")}


def built(directory: Path, case: Case) -> IndexVersion:
    path = directory / f"{case.name}-{case.spec.shards}"
    if path.is_dir():
        return IndexVersion.open(path)
    print(f"building {path.name}", file=sys.stderr, flush=True)
    names = [f"photos/class-{row % LABELS:04d}/{row:06d}.jpg" for row in range(case.photos)]
    return build_version(
        path,
        BuildSource(
            embeddings=clustered(case, case.photos, seed=1),
            item_ids=names,
            labels=[parse(f"make{row % LABELS // 10}_model{row % LABELS}_2011") for row in range(case.photos)],
            uris=names,
            model=MODEL,
            model_name="bench",
            rows=np.arange(len(names)),
        ),
        case.spec,
    )


def clustered(case: Case, count: int, *, seed: int) -> NDArray[np.float32]:
    """Return vectors (count, dimension) of unit length around as many centres as there are labels, row i near centre i."""
    centres = np.random.default_rng(0).standard_normal((LABELS, case.dimension), np.float32)
    vectors = np.random.default_rng(seed).standard_normal((count, case.dimension), np.float32)
    vectors += centres[np.arange(count) % LABELS]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


# --- faiss alone, in a process of its own ---


class Raw:
    """The shard files of a version, opened by faiss and asked in a thread each."""

    def __init__(self, version: IndexVersion, queries: NDArray[np.float32]) -> None:
        flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY
        self.indexes = [faiss.read_index(str(path), flags) for path in version.shard_paths]
        self.steps = [(info.start, getattr(info, "step", 1) or 1) for info in version.manifest.shards]
        self.params = parameters(version)
        self.queries = queries
        self.threads = ThreadPoolExecutor(len(self.indexes), initializer=lambda: faiss.omp_set_num_threads(1))
        faiss.omp_set_num_threads(1)

    def search(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the ids (Q, K) of the nearest photos."""
        if len(self.indexes) == 1:
            ids: NDArray[np.int64] = self.indexes[0].search(queries, K, params=self.params)[1]
            return ids
        parts = list(self.threads.map(lambda index: index.search(queries, K, params=self.params), self.indexes))
        scores = np.stack([scores for scores, _ in parts])
        rows = np.stack([start + step * ids for (start, step), (_, ids) in zip(self.steps, parts, strict=True)])
        merged: NDArray[np.int64] = faiss.merge_knn_results(scores, rows, keep_max=True)[1]
        return merged


def parameters(version: IndexVersion) -> Any:
    search = version.manifest.search
    if search.nprobe:
        return faiss.SearchParametersIVF(nprobe=search.nprobe)
    return faiss.SearchParametersHNSW(efSearch=search.ef_search) if search.ef_search else None


raw: Raw


def open_raw(path: Path, queries: NDArray[np.float32]) -> None:
    global raw  # noqa: PLW0603 (a process's own)
    raw = Raw(IndexVersion.open(path, verify=False), queries)


def raw_ids() -> list[list[int]]:
    return raw.search(raw.queries[:BATCH]).tolist()


def raw_calls(size: int, seconds: float, *, as_it_comes: bool = False) -> "Calls":
    """Ask faiss for `size` queries a call, one call after the other."""
    calls = Calls()
    faiss.cvar.distance_compute_blas_threshold = FAISS_OWN_THRESHOLD if as_it_comes else OUR_THRESHOLD
    with calls.counted():
        for start in cycled(range(0, QUERIES - size + 1, size), until=time.perf_counter() + seconds):
            began = time.perf_counter()
            raw.search(raw.queries[start : start + size])
            calls.ms.append(1e3 * (time.perf_counter() - began))
    return calls


@dataclass
class Calls:
    """Calls of one measurement."""

    ms: list[float] = field(default_factory=list)
    queue_ms: list[float] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Of the process that called."""

    @property
    def per_second(self) -> float:
        return len(self.ms) / self.wall_s

    @contextmanager
    def counted(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s, self.cpu_s = time.perf_counter() - wall, time.process_time() - cpu

    def add(self, began: float, reply: search_pb2.SearchResponse) -> None:
        self.ms.append(1e3 * (time.perf_counter() - began))
        self.queue_ms.append(reply.times.queue_ms)
        self.search_ms.append(reply.times.search_ms)


def cycled(values: Sequence[int], *, until: float) -> Iterator[int]:
    """Yield the values again and again, at least one, until a time of `time.perf_counter`."""
    while True:
        for value in values:
            yield value
            if time.perf_counter() > until:
                return


# --- the callers, in a process of their own ---


class Callers:
    def __init__(self, queries: NDArray[np.float32]) -> None:
        self.requests = {
            size: [self._request(queries, i, size) for i in range(0, QUERIES, size)] for size in (1, BATCH)
        }

    def _request(self, queries: NDArray[np.float32], start: int, size: int) -> search_pb2.SearchRequest:
        options = search_pb2.SearchOptions(k=K)
        return search_pb2.SearchRequest(queries=wire.pack(MODEL, queries[start : start + size]), options=options)


callers: Callers


def open_callers(queries: NDArray[np.float32]) -> None:
    global callers  # noqa: PLW0603 (a process's own)
    callers = Callers(queries)


def reply_to_one(port: int) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = search_pb2_grpc.SearchServiceStub(channel).Search(callers.requests[1][0])
    return bytes(reply.SerializeToString())


def served_ids(port: int) -> list[list[str]]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = search_pb2_grpc.SearchServiceStub(channel).Search(callers.requests[BATCH][0])
    return [[each.item_id for each in found.neighbours] for found in reply.results]


def served_calls(port: int, size: int, in_flight: int, seconds: float) -> Calls:
    """Make calls of `size` queries, by several callers at once, each of whom calls again when it is answered."""
    if in_flight > BATCHES_IN_FLIGHT[-1]:
        return asyncio.run(served_by_many(port, size, in_flight, seconds))
    return served_by_few(port, size, in_flight, seconds)


def served_by_few(port: int, size: int, in_flight: int, seconds: float) -> Calls:
    """Make the calls from a thread for each caller, which is the least overhead that gRPC in Python has."""
    requests, calls = callers.requests[size], Calls()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        search(requests[0])

        def caller(number: int, until: float) -> None:
            for i in cycled(range(len(requests)), until=until):
                began = time.perf_counter()
                calls.add(began, search(requests[(i + number) % len(requests)]))

        with ThreadPoolExecutor(in_flight) as threads, calls.counted():
            until = time.perf_counter() + seconds
            for done in [threads.submit(caller, number, until) for number in range(in_flight)]:
                done.result()
    return calls


async def served_by_many(port: int, size: int, in_flight: int, seconds: float) -> Calls:
    """Make the calls in one event loop, since many threads would hold each other up."""
    requests, calls = callers.requests[size], Calls()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        search = search_pb2_grpc.SearchServiceStub(channel).Search
        await search(requests[0])

        async def caller(number: int, until: float) -> None:
            for i in cycled(range(len(requests)), until=until):
                began = time.perf_counter()
                calls.add(began, await search(requests[(i + number) % len(requests)]))

        with calls.counted():
            until = time.perf_counter() + seconds
            await asyncio.gather(*(caller(number, until) for number in range(in_flight)))
    return calls


# --- rounds ---


async def serve_bare(reply: bytes, port: Any) -> None:
    async def search(request: search_pb2.SearchRequest, context: object) -> bytes:  # noqa: ARG001 (the arguments are gRPC's)
        return reply

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(search, search_pb2.SearchRequest.FromString)
    services = search_pb2.DESCRIPTOR.services_by_name
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(services["SearchService"].full_name, {"Search": handler}),)
    )
    port.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


def run_bare(reply: bytes, port: Any) -> None:
    asyncio.run(serve_bare(reply, port))


@contextmanager
def bare(reply: bytes) -> Iterator[Served]:
    """Run a server of bare gRPC that reads each request, and always answers with the same reply."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=run_bare, args=(reply, there), daemon=True)
    process.start()
    try:
        yield Served(process.pid, f"127.0.0.1:{here.recv()}")
    finally:
        process.terminate()
        process.join()


def serving(version: IndexVersion, *flags: str) -> AbstractContextManager[Served]:
    return servers.serving("search_svc", "--index", version.path.parents[1], *flags)


def alone(initializer: Callable[..., None], *args: Any) -> ProcessPoolExecutor:
    """Return an executor with a process of its own."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=initializer, initargs=args)


def measured(case: Case, version: IndexVersion, rounds: int, seconds: float) -> dict[str, Any]:
    queries = clustered(case, QUERIES, seed=2)
    with (
        serving(version) as server,
        serving(version, "--max-batch", "1") as unbatched,
        alone(open_raw, version.path.parents[1], queries) as faiss_alone,
        alone(open_callers, queries) as client,
    ):
        check_same(version, faiss_alone.submit(raw_ids).result(), client.submit(served_ids, server.port).result())
        figures: dict[str, list[float]] = defaultdict(list)
        with bare(client.submit(reply_to_one, server.port).result()) as at_once:
            turns = Turns(faiss_alone, client, server, unbatched, at_once, seconds)
            for _ in range(rounds):
                for name, figure in one_round(turns).items():
                    figures[name].append(figure)
    return {**asdict(case), "figures": figures}


def check_same(version: IndexVersion, raw: list[list[int]], served: list[list[str]]) -> None:
    """Exit unless faiss and the server found the same: they may differ only in photos that nearly tie."""
    found = [[version.items.item_id(row) for row in rows] for rows in raw]
    same = np.mean([len(set(one) & set(other)) / K for one, other in zip(found, served, strict=True)])
    if same < 0.99:
        sys.exit(f"{version.path}: faiss and the server agree on {same:.1%} of the neighbours")


@dataclass(frozen=True)
class Turns:
    """Whoever takes turns in a round: faiss alone, the server, one without batches, and bare gRPC."""

    faiss_alone: ProcessPoolExecutor
    client: ProcessPoolExecutor
    server: Served
    unbatched: Served
    at_once: Served
    seconds: float

    def ask(self, size: int, *, as_it_comes: bool = False) -> Calls:
        """Ask faiss alone for `size` queries a call."""
        return self.faiss_alone.submit(raw_calls, size, self.seconds, as_it_comes=as_it_comes).result()

    def call(self, served: Served, size: int, in_flight: int) -> Calls:
        """Ask a server for `size` queries a call, by `in_flight` callers at once."""
        return self.client.submit(served_calls, served.port, size, in_flight, self.seconds).result()

    def single(self, served: Served) -> tuple[Calls, float]:
        """Return calls of one query, and the milliseconds of CPU that each took the server."""
        used = served.cpu_s()
        calls = self.call(served, 1, 1)
        return calls, 1e3 * (served.cpu_s() - used) / len(calls.ms)


def one_round(turns: Turns) -> dict[str, float]:
    """Return the figures of one round. The order of the measurements is part of what is measured."""
    figures = throughput(turns)
    alone, (single, single_cpu_ms), (nothing, nothing_cpu_ms) = (
        turns.ask(1),
        turns.single(turns.server),
        turns.single(turns.at_once),
    )
    figures |= latency(alone, single)
    figures["bare gRPC, single, p50 ms"] = statistics.median(nothing.ms)
    figures["server's CPU, single, ms"] = single_cpu_ms
    figures["bare gRPC's CPU, single, ms"] = nothing_cpu_ms
    return figures | concurrency(turns, single)


def throughput(turns: Turns) -> dict[str, float]:
    """Compare batches of queries, served and by faiss alone, in turns."""
    as_it_comes = turns.ask(BATCH, as_it_comes=True)
    batches = turns.ask(BATCH)
    figures = {
        "faiss as it comes, batch 64, queries/s": BATCH * as_it_comes.per_second,
        "faiss, batch 64, queries/s": BATCH * batches.per_second,
    }
    for in_flight in BATCHES_IN_FLIGHT:
        used = turns.server.cpu_s()
        calls = turns.call(turns.server, BATCH, in_flight)
        figures[f"served / faiss, batch 64, {in_flight} in flight"] = calls.per_second / batches.per_second
        figures[f"server's CPU / faiss', batch 64, {in_flight} in flight"] = (
            (turns.server.cpu_s() - used) / len(calls.ms) / (batches.cpu_s / len(batches.ms))
        )
        batches = turns.ask(BATCH)
    return figures


def latency(alone: Calls, single: Calls) -> dict[str, float]:
    """Return where the time of a single query goes, beyond faiss alone."""
    median, p50 = statistics.median(alone.ms), statistics.median(single.ms)
    queue, search = statistics.median(single.queue_ms), statistics.median(single.search_ms)
    return {
        "faiss, single, p50 ms": median,
        "served, single, p50 ms": p50,
        "overhead, p50 ms": p50 - median,
        "of it engine, ms": search - median,
        "of it queue, ms": queue,
        "of it the way, ms": p50 - search - queue,
    }


def concurrency(turns: Turns, single: Calls) -> dict[str, float]:
    """Compare single queries of many callers at once with one caller, and with a server without batches."""
    many, one = turns.call(turns.server, 1, CALLERS), turns.call(turns.unbatched, 1, CALLERS)
    return {
        "one by one, queries/s": single.per_second,
        "64 callers, queries/s": many.per_second,
        "64 callers / one by one": many.per_second / single.per_second,
        "64 callers / 64 callers without batches": many.per_second / one.per_second,
        "64 callers: the client's share of a core": many.cpu_s / many.wall_s,
    }


def table(report: dict[str, Any]) -> str:
    spec = report["spec"]
    lines = [f"\n{spec['factory']}, {report['photos']} x {report['dimension']}, shards {spec['shards']}"]
    for name, values in report["figures"].items():
        lines.append(f"  {name:45} {statistics.median(values):9.3f}  ({min(values):.3f} to {max(values):.3f})")
    if statistics.median(report["figures"]["64 callers: the client's share of a core"]) > BUSY:
        lines.append("  64 callers: the client used up its core, so the server may be able to do more")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
