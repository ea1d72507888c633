"""The embedder offered three times what it can do: `python -m bench.embedder.overload [--seconds 60]`.

Starts `vmmr-embedder serve` with the model that ships. From another process come calls of one photo: as many at once as
keep it busy, which tells its peak; then half of the peak, each call at its time whatever became of those before, and with
a deadline; then three times the peak; then, from the next moment on, half of it again. Prints

- goodput at 3x beside the peak: photos answered a second, while it lasted;
- how the calls ended, and how soon those heard of it that were refused (a status of RESOURCE_EXHAUSTED, from the intended start);
- the server's resident memory before, at the end of the overload, and at its most;
- recovery: seconds from the end of the overload until calls at half of the peak were answered, none refused or late, in at most
  three times the median of those before the overload, from then on.

The generator shares the machine's cores with the server, as do other programs: it says when it was late itself. `--rate` in place
of the measured peak compares two versions of the server at one rate.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS, ROOT
from bench.lib.photos import photos_of
from bench.lib.servers import Served, serving
from svckit.cores import cores

OUT = RESULTS / "overload.json"
PEAK_S, CALM_S = 6.0, 5.0
OVERLOAD = 3.0

Load = tuple[float, float]
"""Calls a second, and for how many seconds."""


@dataclass(frozen=True)
class Call:
    """Times in seconds; `intended` from the beginning of its load."""

    intended: float
    late: float
    """How long after that it was sent."""
    took: float
    """From the intended start to its end."""
    code: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--deadline", type=float, default=2.0, metavar="S", help="of each call")
    parser.add_argument("--rate", type=float, metavar="PER_S", help="take this for the peak")
    parser.add_argument("--model", type=Path, default=ROOT / "models/resnet50-cars-int8", metavar="BUNDLE")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    spawn = multiprocessing.get_context("spawn")
    with (
        serving(
            "embedder_svc", "--model", args.model.absolute(), "--log-level", "warning", "--device", "cpu"
        ) as running,
        ProcessPoolExecutor(1, spawn, initializer=open_generator, initargs=(running.address, photos)) as generator,
    ):
        report = measured(running, generator, args)
    print(table(report))
    about = {"machine": machine.describe(), "cores": cores(), "photos": source}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, "deadline_s": args.deadline, **report}, indent=1) + "\n")


def measured(running: Served, generator: ProcessPoolExecutor, args: argparse.Namespace) -> dict[str, Any]:
    peak: float = generator.submit(busy, 4 * cores(), PEAK_S).result()
    rate = args.rate or peak
    calm, storm = (rate / 2, CALM_S), (OVERLOAD * rate, args.seconds)
    [before] = generator.submit(offer, [calm], args.deadline).result()
    memory = [resident(running)]
    load = generator.submit(offer, [storm, calm], args.deadline)
    watch(running, memory, args.seconds)
    over, after = load.result()
    usual = statistics.median(call.took for call in before if call.code == "OK")
    return {"peak": peak, **overload(over, peak, args.seconds), **grown(memory), "recovery_s": recovered(after, usual)}


def resident(running: Served) -> float:
    """Return the resident memory of the server in MB."""
    return float(psutil.Process(running.pid).memory_info().rss / 1e6)


def watch(running: Served, memory: list[float], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        memory.append(resident(running))
        time.sleep(0.2)


def overload(calls: list[Call], peak: float, seconds: float) -> dict[str, Any]:
    took = {code: [1e3 * call.took for call in calls if call.code == code] for code in {call.code for call in calls}}
    refused = took.get("RESOURCE_EXHAUSTED", [])
    good = sum(call.code == "OK" and call.intended + call.took <= seconds for call in calls)
    return {
        "offered": len(calls) / seconds,
        "goodput": good / seconds,
        "goodput_of_peak": good / seconds / peak,
        "codes": dict(Counter(call.code for call in calls)),
        "refused_p50_ms": float(np.median(refused)) if refused else None,
        "refused_p99_ms": float(np.percentile(refused, 99)) if refused else None,
        "answered_p99_ms": float(np.percentile(took.get("OK", [0]), 99)),
        "generator_late_p99_ms": 1e3 * float(np.percentile([call.late for call in calls], 99)),
    }


def grown(memory: list[float]) -> dict[str, float]:
    """Return the memory at the start, at most and at the end, and by what share it grew.

    The end is the median of the last tenth, compared with the median of the second sixth.
    """
    end = statistics.median(memory[-max(1, len(memory) // 10) :])
    early = statistics.median(memory[len(memory) // 6 : len(memory) // 3] or memory)
    return {
        "memory_mb": memory[0],
        "memory_most_mb": max(memory),
        "memory_end_mb": end,
        "memory_growth": end / early - 1,
    }


def recovered(calls: list[Call], usual: float) -> float | None:
    """Return the seconds until all calls were as quick as before; None if they never were."""
    bad = [call.intended for call in calls if call.code != "OK" or call.took > 3 * usual]
    last = max(bad, default=0.0)
    return last if last < calls[-1].intended else None


def table(report: dict[str, Any]) -> str:
    return "\n".join(
        f"  {name:24} {value:.3f}" if isinstance(value, float) else f"  {name:24} {value}"
        for name, value in report.items()
    )


# --- the generator, in a process of its own ---


@dataclass(frozen=True)
class Generator:
    address: str
    requests: list[embedder_pb2.EmbedRequest]


generator: Generator


def open_generator(address: str, photos: list[bytes]) -> None:
    global generator  # noqa: PLW0603 (a process's own)
    requests = [embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=photo)]) for photo in photos]
    generator = Generator(address, requests)


def busy(at_once: int, seconds: float) -> float:
    """Return photos a second of some callers who call again when they are answered. The first second does not count."""
    return asyncio.run(_busy(at_once, seconds))


def offer(loads: Sequence[Load], deadline: float) -> list[list[Call]]:
    """Offer one load after the other, whatever is still under way. Return the calls of each."""
    return asyncio.run(_offer(loads, deadline))


async def _busy(at_once: int, seconds: float) -> float:
    requests, ends = cycle(generator.requests), []
    async with grpc.aio.insecure_channel(generator.address) as channel:
        stub, until = embedder_pb2_grpc.EmbedderServiceStub(channel), time.perf_counter() + seconds

        async def calls() -> None:
            while time.perf_counter() < until:
                await stub.Embed(next(requests), timeout=60)
                ends.append(time.perf_counter())

        await asyncio.gather(*(calls() for _ in range(at_once)))
    counted = [end for end in ends if until - seconds + 1 <= end <= until]
    return len(counted) / (seconds - 1)


async def _offer(loads: Sequence[Load], deadline: float) -> list[list[Call]]:
    requests, offered = cycle(generator.requests), []
    async with grpc.aio.insecure_channel(generator.address) as channel:
        await channel.channel_ready()
        stub, began = embedder_pb2_grpc.EmbedderServiceStub(channel), time.perf_counter()

        async def one(began: float, intended: float) -> Call:
            sent = time.perf_counter() - began
            try:
                await stub.Embed(next(requests), timeout=deadline)
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            return Call(intended, sent - intended, time.perf_counter() - began - intended, code)

        for rate, seconds in loads:
            calls = []
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, number / rate - (time.perf_counter() - began)))
                calls.append(asyncio.create_task(one(began, number / rate)))
            offered.append(calls)
            began += seconds
        return [list(await asyncio.gather(*calls)) for calls in offered]


if __name__ == "__main__":
    sys.exit(main())
