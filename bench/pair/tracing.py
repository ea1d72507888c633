"""What tracing costs: `python -m bench.pair.tracing [--before CHECKOUT]`.

Starts the pair that ships without `--tracing`, with it, and, if another checkout is named, that one's pair, side by side. In turns, a
round at a time, each is asked to identify photos one by one, and to classify single embeddings one by one, which is the call that
tracing costs most of. The pair with tracing is asked three times: with no call sampled, each tenth, and all, which the caller's
`traceparent` says, so that the same processes answer. Processes of one program differ by more than tracing costs: memory lies
elsewhere. So all pairs are started anew several times.

CPU is that of the servers, in nanoseconds as the kernel counts them, exporting included. Each ratio is that of the sums over the rounds of the
same processes' lives: a median over lives, with the least and the most.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import vmmr

from bench.lib import machine
from bench.lib.otlp import receiving
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from bench.lib.servers import Served, starting

OUT = RESULTS / "tracing.json"
OFF, BEFORE, TRACED = "off", "before", "tracing"
SAMPLED = {"none sampled": 0, "a tenth sampled": 10, "all sampled": 1}
"""Every how many calls one is sampled; 0 for none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=6, help="how often the servers are started anew")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--identify", type=int, default=10, metavar="N", help="photos a round, each way")
    parser.add_argument("--classify", type=int, default=100, metavar="N", help="embeddings a round, each way")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of another version to compare")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    lives = [life(photos, args, number) for number in range(args.lives)]
    figures = summary(lives)
    for name, (median, low, high) in figures.items():
        print(f"{name:44} {median:9.3f}  [{low:.3f}, {high:.3f}]")
    about = {"machine": machine.describe(), "photos": source}
    about |= {name: getattr(args, name) for name in ("lives", "rounds", "identify", "classify")}
    args.out.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")


@dataclass(frozen=True)
class Pair:
    embedder: Served
    search: Served
    client: vmmr.Client


Figures = dict[str, float]


def life(photos: Sequence[bytes], args: argparse.Namespace, number: int) -> dict[str, Figures]:
    """Start all pairs, and return what each way took, by its name and what was measured: a mean over rounds."""
    chance = np.random.default_rng(number)
    with ExitStack() as stack:
        _, endpoint = stack.enter_context(receiving())
        where: dict[str, dict[str, Any]] = {OFF: {}, TRACED: {"env": {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}}}
        if args.before:
            where[BEFORE] = {"root": args.before.resolve()}
        names = chance.permutation(list(where)).tolist()
        pairs = {name: started(stack, ("--tracing",) if name == TRACED else (), where[name]) for name in names}
        ways = [*(name for name in pairs if name != TRACED), *SAMPLED]
        sums: dict[str, Figures] = {way: defaultdict(float) for way in ways}
        for round_ in range(-1, args.rounds):  # the first warms up
            for way in chance.permutation(ways).tolist():
                found = asked(pairs.get(way, pairs[TRACED]), way, photos, args, max(round_, 0))
                for what, value in found.items():
                    sums[way][what] += value / args.rounds if round_ >= 0 else 0
    print(f"life {number + 1} of {args.lives}", file=sys.stderr, flush=True)
    return sums


def started(stack: ExitStack, flags: Sequence[str], where: dict[str, Any]) -> Pair:
    begun = [stack.enter_context(starting(module, *flags, **where)) for module in ("embedder_svc", "search_svc")]
    embedder, search = (each.ready() for each in begun)
    client = stack.enter_context(vmmr.Client(embedder.address, search.address, timeout_s=60))
    return Pair(embedder, search, client)


def asked(pair: Pair, way: str, photos: Sequence[bytes], args: argparse.Namespace, round_: int) -> Figures:
    every = SAMPLED.get(way)
    chosen = [photos[(round_ * args.identify + n) % len(photos)] for n in range(args.identify)]
    embeddings = pair.client.embed([photos[0]])
    asks = [partial(within, every, n, partial(pair.client.identify, photo)) for n, photo in enumerate(chosen)]
    wall, cpu = timed((pair.embedder, pair.search), asks)
    found = {"identify, p50 ms": wall, "identify, CPU ms": cpu}
    asks = [partial(within, every, n, partial(pair.client.classify, embeddings)) for n in range(args.classify)]
    wall, cpu = timed((pair.search,), asks)
    return found | {"classify, p50 ms": wall, "classify, CPU ms": cpu}


def within(every: int | None, number: int, ask: Callable[[], object]) -> None:
    """Make the call, within a trace that is sampled if it is one of `every` so many; without a trace if that is None."""
    if every is None:
        ask()
        return
    sampled = every and number % every == 0
    with vmmr.traceparent(f"00-{number + 1:032x}-{1:016x}-{'01' if sampled else '00'}"):
        ask()


def timed(servers: Sequence[Served], asks: Sequence[Callable[[], object]]) -> tuple[float, float]:
    """Return the median milliseconds that an answer took, and the servers' CPU milliseconds an answer."""
    before, took = sum(map(cpu_s, servers)), []
    for ask in asks:
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return 1e3 * statistics.median(took), 1e3 * (sum(map(cpu_s, servers)) - before) / len(asks)


def cpu_s(server: Served) -> float:
    """Return the CPU seconds of a process so far, by the clock that Linux has for each."""
    assert server.pid is not None
    return time.clock_gettime((~server.pid << 3) | 2)


def summary(lives: Sequence[dict[str, Figures]]) -> dict[str, tuple[float, float, float]]:
    figures = {}
    for what in lives[0][OFF]:
        figures[f"{what}, off"] = spread([each[OFF][what] for each in lives])
        for way in sorted(lives[0].keys() - {OFF}):
            figures[f"{what}, {way} / off"] = spread([each[way][what] / each[OFF][what] for each in lives])
        for way in ("a tenth sampled", "all sampled"):
            over = [each[way][what] / each["none sampled"][what] for each in lives]
            figures[f"{what}, {way} / none sampled"] = spread(over)
    return figures


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


if __name__ == "__main__":
    main()
