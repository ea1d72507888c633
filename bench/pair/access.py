"""What knowing callers, holding them to limits and noting writes costs a call: `python -m bench.pair.access [--starts N]`.

Starts each service twice, once as it is and once with a file of callers with limits, and an audit log. Both are asked the same, a call to the one and
a call to the other in turns, so that whatever else the machine does slows both:

- Embed: a photo;
- Classify: an embedding;
- AddItems: an item, which the audit log notes;
- GetIndex: next to nothing, so all that is left of the call is gRPC, and what is added to it.

Each figure is one with callers against without: the median call of a round, and CPU of the servers' processes, by the kernel's nanoseconds. Medians over rounds, with
the least and the most. Both servers are started several times, in turns the one and the other first: two processes that do the same differ by a percent or two.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from bench.lib.servers import Served, serving
from svckit import shipped

OUT = RESULTS / "access.json"
TOKEN = "of the bench"
CALLERS = f"""
[caller.bench]
role = "enrol"
label_prefixes = ["bench"]
requests_per_s = 100000
photos_per_s = 100000
photos_per_call = 100
concurrent_calls = 100
max_k = 100

[[token]]
caller = "bench"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""
TIMEOUT_S = 60.0
WARM_UP = 20

Ask = Callable[[int], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="a start")
    parser.add_argument(
        "--calls", type=int, default=200, metavar="N", help="calls of each kind to each server, a round"
    )
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    about = {
        "machine": machine.describe(),
        "photos": source,
        "starts": args.starts,
        "rounds": args.rounds,
        "calls": args.calls,
    }
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for start in range(args.starts):
        for module in ("embedder_svc", "search_svc"):
            with tempfile.TemporaryDirectory() as folder, _both(module, Path(folder), first=start % 2) as servers:
                for name, asks in _kinds(module, photos, *servers).items():
                    # A photo takes as long as many searches.
                    calls = args.calls // 4 if name == "Embed" else args.calls
                    _measure(found[name], asks, servers, args.rounds, calls)
                lines = len((Path(folder) / "audit").read_text().splitlines())
            written = args.rounds * args.calls + WARM_UP if module == "search_svc" else 0
            assert lines == written, "each write of the caller was noted, and nothing else"
    figures = {
        name: {each: (statistics.median(v), min(v), max(v)) for each, v in measured.items()}
        for name, measured in found.items()
    }
    for name, measured in figures.items():
        print(name, {each: tuple(round(value, 4) for value in values) for each, values in measured.items()})
    args.out.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")


@contextmanager
def _both(module: str, folder: Path, *, first: int) -> Iterator[tuple[Served, Served]]:
    """Run the service twice: without callers, and with them. `first` is which of them starts first."""
    callers = folder / "callers.toml"
    callers.write_text(CALLERS)
    flags = ((), ("--callers", callers, "--audit-log", folder / "audit"))
    with ExitStack() as stack:
        servers = {}
        for which in (first, 1 - first):
            own: tuple[object, ...] = ()
            if module == "search_svc":
                index = folder / f"index-{which}"
                shutil.copytree(shipped.gallery(), index)
                own = ("--index", index, "--compact-at", 0)
            servers[which] = stack.enter_context(serving(module, "--log-level", "warning", *flags[which], *own))
        yield servers[0], servers[1]


def _kinds(module: str, photos: list[bytes], *servers: Served) -> dict[str, list[Ask]]:
    """Return for each kind of call how to make the n-th, to each of the servers."""
    kinds: dict[str, list[Ask]] = defaultdict(list)
    for server, token in zip(servers, (None, TOKEN), strict=True):
        channel = grpc.insecure_channel(server.address)
        how = {"timeout": TIMEOUT_S, "metadata": (("authorization", f"Bearer {token}"),) if token else ()}
        for name, ask in (_embedder if module == "embedder_svc" else _search)(channel, photos, how).items():
            kinds[name].append(ask)
    return kinds


def _embedder(channel: grpc.Channel, photos: list[bytes], how: dict[str, Any]) -> dict[str, Ask]:
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)

    def embed(number: int) -> None:
        photo = embedder_pb2.Image(content=photos[number % len(photos)], subject=embedder_pb2.SUBJECT_WHOLE)
        stub.Embed(embedder_pb2.EmbedRequest(images=[photo]), **how)

    return {"Embed": embed}


def _search(channel: grpc.Channel, photos: list[bytes], how: dict[str, Any]) -> dict[str, Ask]:  # noqa: ARG001 (as the other)
    stub, gallery = search_pb2_grpc.SearchServiceStub(channel), gallery_pb2_grpc.GalleryServiceStub(channel)
    index = stub.GetIndex(search_pb2.GetIndexRequest(), **how).index
    vectors = np.random.default_rng(0).standard_normal((64, index.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    packed = [wire.pack(index.model, vector[None]) for vector in vectors]

    def classify(number: int) -> None:
        stub.Classify(search_pb2.ClassifyRequest(queries=packed[number % 64]), **how)

    def add(number: int) -> None:
        item = gallery_pb2.Item(item_id=f"bench {number}", label="bench_car_2020")
        gallery.AddItems(gallery_pb2.AddItemsRequest(items=[item], embeddings=packed[number % 64]), **how)

    return {
        "GetIndex": lambda _: stub.GetIndex(search_pb2.GetIndexRequest(), **how),
        "Classify": classify,
        "AddItems": add,
    }


def _measure(
    found: dict[str, list[float]], asks: list[Ask], servers: tuple[Served, Served], rounds: int, calls: int
) -> None:
    """Add what each round finds."""
    for number in range(WARM_UP):
        for ask in asks:
            ask(-1 - number)
    for round_ in range(rounds):
        took: list[list[float]] = [[], []]
        before = [_cpu_s(server) for server in servers]
        for number in range(round_ * calls, (round_ + 1) * calls):
            for which in (0, 1) if number % 2 else (1, 0):
                began = time.perf_counter()
                asks[which](number)
                took[which].append(1e3 * (time.perf_counter() - began))
        cpu_ms = [1e3 * (_cpu_s(server) - s) / calls for server, s in zip(servers, before, strict=True)]
        p50_ms = [statistics.median(each) for each in took]
        found["p50_ratio"].append(p50_ms[1] / p50_ms[0])
        found["cpu_ratio"].append(cpu_ms[1] / cpu_ms[0])
        found["p50_ms_without"].append(p50_ms[0])
        found["cpu_ms_without"].append(cpu_ms[0])
        found["cpu_us_added"].append(1e3 * (cpu_ms[1] - cpu_ms[0]))


def _cpu_s(server: Served) -> float:
    """Return the CPU seconds of all threads of the server, to the nanosecond; a thread that has ended is left out."""
    tasks = Path(f"/proc/{server.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


if __name__ == "__main__":
    main()
