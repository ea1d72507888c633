"""Mixed load for a long time, and what becomes of the servers: `python -m bench.pair.soak [--minutes 60]`.

Starts the pair that ships and asks it, side by side, for all that callers do: one photo, many, a car of several photos,
exact search, damaged photos, queries of a wrong model, deadlines that are too short, callers who leave. Every operation
knows how it may end; any other end is an unexplained error. Resident memory of each server is read throughout, and its
median over the last quarter compared with that of the first, a warm-up of a tenth of the time left out.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import vmmr
from vmmr import AsyncClient, Embeddings, SearchOptions

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS
from bench.lib.servers import pair

OUT = RESULTS / "soak.json"
SAMPLE_S = 2.0
WARM_UP, PART = 0.1, 0.25
MOST_GROWTH = 0.02

Ask = Callable[[AsyncClient, Sequence[bytes]], Awaitable[object]]


@dataclass(frozen=True)
class Operation:
    name: str
    ask: Ask
    ends: tuple[type[BaseException], ...] = ()
    """What it must end with; a plain answer if empty."""
    weight: int = 1


@dataclass
class Tally:
    """How the operations ended, and the memory of the servers meanwhile."""

    ended: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    rss: dict[str, list[int]] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=15.0, help="operations a second, all callers together")
    parser.add_argument("--photos", type=Path, default=CARS, help="folder of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    photos = read(args.photos)
    tally = Tally()
    with pair() as (embedder, search):
        processes = {"embedder": psutil.Process(embedder.pid), "search": psutil.Process(search.pid)}
        ends = time.monotonic() + 60 * args.minutes
        soak = Soak(AsyncClient(embedder.address, search.address), photos, tally, ends, args.callers / args.rate)
        asyncio.run(run(soak, args.callers, processes))
    growth = {name: grown(samples) for name, samples in tally.rss.items()}
    report(tally, growth, args)
    sys.exit(bool(tally.unexplained) or max(growth.values()) > MOST_GROWTH)


def read(folder: Path) -> list[bytes]:
    """Read some photos of the folder, the same ones each time."""
    paths = sorted(folder.rglob("*.jpg"))
    if not paths:
        sys.exit(f"bench/pair/soak.py: no *.jpg in {folder}: name a folder of photos with --photos")
    return [path.read_bytes() for path in random.Random(0).sample(paths, min(200, len(paths)))]


@dataclass(frozen=True)
class Soak:
    client: AsyncClient
    photos: Sequence[bytes]
    tally: Tally
    ends: float
    """A time of `time.monotonic`."""
    pause_s: float
    """Between the beginnings of two operations of one caller, unless the first takes longer."""


async def run(soak: Soak, callers: int, processes: dict[str, psutil.Process]) -> None:
    async with soak.client, asyncio.TaskGroup() as group:
        for seed in range(callers):
            group.create_task(caller(soak, random.Random(seed)))
        group.create_task(watch(soak, processes))


async def caller(soak: Soak, rng: random.Random) -> None:
    weights = [operation.weight for operation in OPERATIONS]
    while (began := time.monotonic()) < soak.ends:
        [operation] = rng.choices(OPERATIONS, weights)
        await perform(soak, operation, rng.sample(soak.photos, 8))
        await asyncio.sleep(max(0.0, began + soak.pause_s * rng.uniform(0.5, 1.5) - time.monotonic()))


async def perform(soak: Soak, operation: Operation, photos: Sequence[bytes]) -> None:
    try:
        await operation.ask(soak.client, photos)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what we look for)
        expected, told = isinstance(error, operation.ends), f"{operation.name}: {type(error).__name__}"
    else:
        expected, told = not operation.ends, f"{operation.name}: answered"
    (soak.tally.ended if expected else soak.tally.unexplained)[told] += 1


async def watch(soak: Soak, processes: dict[str, psutil.Process]) -> None:
    tally, started = soak.tally, time.monotonic()
    for beat in itertools.count(1):
        if time.monotonic() >= soak.ends:
            return
        for name, process in processes.items():
            tally.rss.setdefault(name, []).append(process.memory_info().rss)
        if beat % 30 == 0:
            rss = ", ".join(f"{name} {samples[-1] / 2**20:.0f} MiB" for name, samples in tally.rss.items())
            minutes = (time.monotonic() - started) / 60
            print(f"{minutes:5.1f} min: {tally.ended.total()} operations, {rss}", file=sys.stderr, flush=True)
        await asyncio.sleep(SAMPLE_S)


def grown(samples: Sequence[int]) -> float:
    """Return by what share the memory grew, from the first quarter after the warm-up to the last."""
    samples = samples[round(WARM_UP * len(samples)) :]
    part = max(1, round(PART * len(samples)))
    return statistics.median(samples[-part:]) / statistics.median(samples[:part]) - 1


def report(tally: Tally, growth: dict[str, float], args: argparse.Namespace) -> None:
    for told, count in sorted(tally.ended.items()):
        print(f"{count:8} {told}")
    for name, share in growth.items():
        peak = max(tally.rss[name]) / 2**20
        print(f"{name}: resident memory {share:+.2%} (at most {MOST_GROWTH:+.0%}), {peak:.0f} MiB at most")
    unexplained = ", ".join(f"{count} {told}" for told, count in tally.unexplained.items())
    print(f"unexplained errors: {unexplained or 0}")
    content = {
        "machine": machine.describe(),
        "minutes": args.minutes,
        "rate": args.rate,
        "callers": args.callers,
        "ended": tally.ended,
        "unexplained": tally.unexplained,
        "growth": growth,
        "rss_mib": {name: [round(rss / 2**20, 1) for rss in samples[::15]] for name, samples in tally.rss.items()},
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(content, indent=1) + "\n")


# --- what callers do ---


async def many(client: AsyncClient, photos: Sequence[bytes]) -> None:
    async for outcome in client.identify_many(photos, batch=4):
        outcome.result()


async def searched(client: AsyncClient, photos: Sequence[bytes], options: SearchOptions) -> None:
    await client.search(await client.embed(photos[:2]), options=options)


async def of_another_model(client: AsyncClient, photos: Sequence[bytes]) -> None:
    embedded = await client.embed(photos[:1])
    await client.search(Embeddings("0" * 64, embedded.vectors))


async def left(client: AsyncClient, photos: Sequence[bytes]) -> None:
    """Ask, and leave before the answer is there."""
    asking = asyncio.ensure_future(client.identify_car(photos[:4]))
    await asyncio.sleep(0.02)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


OPERATIONS = (
    Operation("one photo", lambda client, photos: client.identify(photos[0]), weight=8),
    Operation("eight photos", many, weight=2),
    Operation("a car of three photos", lambda client, photos: client.identify_car(photos[:3]), weight=2),
    Operation("search", partial(searched, options=SearchOptions(k=20)), weight=2),
    Operation("exact search", partial(searched, options=SearchOptions(exact=True))),
    Operation("a damaged photo", lambda client, photos: client.identify(photos[0][:-2000]), (vmmr.InvalidPhotoError,)),
    Operation("no photo", lambda client, _: client.identify(b"no photo at all"), (vmmr.InvalidPhotoError,)),
    Operation("another model", of_another_model, (vmmr.ModelMismatchError,)),
    Operation(
        "too little time",
        lambda client, photos: client.identify(photos[0], timeout_s=0.002),
        # A busy embedder says at once that it will be too late.
        (vmmr.DeadlineExceededError, vmmr.OverloadedError),
    ),
    Operation("a caller who leaves", left),
)


if __name__ == "__main__":
    main()
