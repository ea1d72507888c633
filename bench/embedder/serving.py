"""What serving costs beside the network itself: `python -m bench.embedder.serving [--fp32 BUNDLE]`.

Starts `vmmr-embedder serve` with the int8 model that ships and with an fp32 one (given, or exported from ../shared/weights,
where torch is there), and calls it from another process. In the same run, in turns, a third process does the same to the same
photos without a server: our decoding, then onnxruntime called directly, with as many threads. Each figure is a median over
rounds of one against the other in the same round, with the least and the most.

- raw: the quicker of two arrangements. Lanes: a thread a core, each decodes a photo and runs it on a session of one thread.
  Pipelined: a thread a core decodes ahead, one session of all threads runs batches of 8.
- served: calls of 1 and of 8 photos, so many at once. Images/s compares wall time; images per CPU second compares what
  raw, and the server and its caller together, used of the processor, which other work on the machine changes less.
- single: raw, a photo decoded and run alone on all threads; served, calls of one photo, one at a time.
- at 70 %: calls of one photo at a fixed rate, 0.7 of what the server just did; latencies count from the intended start.

On a CPU with VNNI the int8 model is measured once more, as it runs without: "int8, widened" (see embedder_svc.network.arithmetic).
All servers are up throughout, and take turns in each round. The CPU of a photo is the server's alone, and with its caller's.

Photos are JPEGs of 500 x 375: those of Stanford Cars made that size, or drawn where they are absent.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS, ROOT
from bench.lib.photos import photos_of
from bench.lib.servers import Served, serving
from embedder_svc.network import bundle
from embedder_svc.network.arithmetic import VNNI, int8_arithmetic
from embedder_svc.photos import preprocess
from embedder_svc.photos.photo_files import LIMITS
from svckit.cores import cores

INT8 = ROOT / "models/resnet50-cars-int8"
WEIGHTS = ROOT.parent / "shared/weights/resnet50_imagenet.safetensors"
OUT = RESULTS / "embedder.json"
CALLS = ((1, 4), (1, 16), (8, 2))
"""Photos in a call, and calls at once."""
RAW_BATCH = 8
TIMEOUT_S = 60.0

Figures = dict[str, float]
Cases = dict[str, dict[str, list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement in a round")
    parser.add_argument("--int8", type=Path, default=INT8, metavar="BUNDLE")
    parser.add_argument("--fp32", type=Path, metavar="BUNDLE")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    about = machine.describe()
    with tempfile.TemporaryDirectory() as work:
        fp32 = args.fp32 or exported(Path(work) / "fp32")
        cases = measured(models(args.int8, fp32), photos, args)
    for name, figures in cases.items():
        print(table(name, figures))
    for what, values in ratios(cases).items():
        print(f"{what}: {statistics.median(values):.2f}  ({min(values):.2f} to {max(values):.2f})")
    about |= {
        "vnni": has_vnni(),
        "arithmetic": int8_arithmetic(),
        "photos": source,
        "onnxruntime": onnxruntime.__version__,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "ratios": ratios(cases),
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, "cases": cases}, indent=1) + "\n")


@dataclass(frozen=True)
class Case:
    """A model and how it is run."""

    model: Path
    widened: bool = False
    """Whether int8 is run as on a CPU without VNNI."""


def models(int8: Path, fp32: Path | None) -> dict[str, Case]:
    cases = {"int8": Case(int8)}
    if has_vnni():
        cases["int8, widened"] = Case(int8, widened=True)
    return cases | ({"fp32": Case(fp32)} if fp32 else {})


def ratios(cases: Cases) -> Cases:
    """Return the ratios of int8 to the others, round by round."""
    whats = ("raw images/s", "raw images/CPU-s", "served images/s", "served images/CPU-s")
    return {
        f"int8 / {other}, {what}": [a / b for a, b in zip(cases["int8"][what], cases[other][what], strict=True)]
        for other in cases.keys() - {"int8"}
        for what in whats
    }


def exported(path: Path) -> Path | None:
    if not WEIGHTS.exists():
        print(f"no fp32 model: pass --fp32, or have {WEIGHTS.name} in ../shared/weights", file=sys.stderr)
        return None
    command = [sys.executable, "-m", "embedder_svc", "export", "--weights", WEIGHTS, "--out", path]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return path


def has_vnni() -> bool:
    return int8_arithmetic() in VNNI


def measured(cases: dict[str, Case], photos: Sequence[bytes], args: argparse.Namespace) -> Cases:
    figures: Cases = {name: defaultdict(list) for name in cases}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(running(name, case, photos)) for name, case in cases.items()}
        for _ in range(args.rounds):
            for name, processes in opened.items():
                for what, figure in one_round(*processes, args.seconds).items():
                    figures[name][what].append(figure)
    return figures


@contextmanager
def running(
    name: str, case: Case, photos: Sequence[bytes]
) -> Iterator[tuple[ProcessPoolExecutor, ProcessPoolExecutor, Served]]:
    """Start the raw process, the caller's and the server."""
    spawn = multiprocessing.get_context("spawn")
    with (
        served(case) as server,
        ProcessPoolExecutor(1, spawn, initializer=open_raw, initargs=(case, photos)) as raw,
        ProcessPoolExecutor(1, spawn, initializer=open_caller, initargs=(server.address, photos)) as caller,
    ):
        if not np.array_equal(raw.submit(raw_embeddings).result(), caller.submit(served_embeddings).result()):
            sys.exit(f"{name}: served embeddings are not those of onnxruntime called directly")
        yield raw, caller, server


def one_round(raw: ProcessPoolExecutor, caller: ProcessPoolExecutor, running: Served, seconds: float) -> Figures:
    ways: list[Did] = [raw.submit(way, seconds).result() for way in (raw_lanes, raw_pipelined)]
    rate = max(did.per_second for did in ways)
    per_cpu = max(did.per_cpu_second for did in ways)
    figures = {"raw images/s": rate, "raw images/CPU-s": per_cpu}
    for size, at_once in CALLS:
        used = running.cpu_s()
        did: Did = caller.submit(call, size, at_once, seconds).result()
        used = running.cpu_s() - used
        did.cpu_s += used
        what = f"{at_once} x {size} photos"
        figures[f"served / raw, images/s, {what}"] = did.per_second / rate
        figures[f"served / raw, images/CPU-s, {what}"] = did.per_cpu_second / per_cpu
        figures[f"served, server's CPU ms a photo, {what}"] = 1e3 * used / did.images
        figures[f"served, CPU ms a photo, {what}"] = 1e3 * did.cpu_s / did.images
        figures["served images/CPU-s"] = max(figures.get("served images/CPU-s", 0.0), did.per_cpu_second)
        best = max(figures.get("served images/s", 0.0), did.per_second)
        figures["served images/s"] = best
    alone: Did = raw.submit(raw_single, seconds).result()
    single: Did = caller.submit(call, 1, 1, seconds).result()
    figures["raw, single, p50 ms"] = median = statistics.median(alone.ms)
    figures["served, single, p50 ms"] = p50 = statistics.median(single.ms)
    figures["of it network, ms"] = infer = statistics.median(single.infer_ms)
    figures["of it decoding, ms"] = decode = statistics.median(single.decode_ms)
    figures["of it the way and waiting, ms"] = p50 - infer - decode
    paced: Did = caller.submit(at_rate, 0.7 * figures["served images/s"], 4 * seconds).result()
    p99 = float(np.percentile(paced.ms, 99))
    figures["at 70 %, p50 ms"] = statistics.median(paced.ms)
    figures["at 70 %, p99 ms"] = p99
    figures["at 70 %, p99 / raw single"] = p99 / median
    return figures


def table(name: str, figures: dict[str, list[float]]) -> str:
    lines = [f"\n{name}"]
    for what, values in figures.items():
        lines.append(f"  {what:45} {statistics.median(values):9.3f}  ({min(values):.3f} to {max(values):.3f})")
    return "\n".join(lines)


def served(case: Case) -> AbstractContextManager[Served]:
    module = "bench.embedder.widened" if case.widened else "embedder_svc"
    return serving(module, "--model", case.model.absolute(), "--log-level", "warning", "--device", "cpu")


@dataclass
class Did:
    """What one measurement did."""

    images: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    ms: list[float] = field(default_factory=list)
    infer_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.images / self.wall_s

    @property
    def per_cpu_second(self) -> float:
        return self.images / self.cpu_s

    @contextmanager
    def counted(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s, self.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


# --- without a server, in a process of its own ---


class Raw:
    def __init__(self, case: Case, photos: Sequence[bytes]) -> None:
        self.resize = bundle.read(case.model).resizing
        self.photos = photos
        self.one, self.whole = (self.session(case, threads) for threads in (1, cores()))
        self.pool = ThreadPoolExecutor(cores())

    def session(self, case: Case, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if case.widened or not has_vnni():
            options.add_session_config_entry("session.x64quantprecision", "1")
        return onnxruntime.InferenceSession(str(case.model / bundle.GRAPH), options, ["CPUExecutionProvider"])

    def decode(self, number: int) -> np.ndarray:
        return preprocess.decode(self.photos[number % len(self.photos)], resize=self.resize, limits=LIMITS)

    def run(self, session: Any, pixels: np.ndarray) -> np.ndarray:
        embeddings: np.ndarray = session.run(["embeddings"], {"images": pixels})[0]
        return embeddings


raw: Raw


def open_raw(case: Case, photos: Sequence[bytes]) -> None:
    global raw  # noqa: PLW0603 (a process's own)
    raw = Raw(case, photos)


def raw_embeddings() -> np.ndarray:
    return np.concatenate([raw.run(raw.one, raw.decode(number)[None]) for number in range(4)])


def raw_lanes(seconds: float) -> Did:
    did, numbers = Did(), count()
    until = time.perf_counter() + seconds

    def lane() -> int:
        done = 0
        while time.perf_counter() < until:
            raw.run(raw.one, raw.decode(next(numbers))[None])
            done += 1
        return done

    with did.counted():
        did.images = sum(lane.result() for lane in [raw.pool.submit(lane) for _ in range(cores())])
    return did


def raw_pipelined(seconds: float) -> Did:
    did = Did()
    until = time.perf_counter() + seconds
    with did.counted():
        ahead = [raw.pool.submit(raw.decode, number) for number in range(RAW_BATCH)]
        while time.perf_counter() < until:
            batch = np.stack([photo.result() for photo in ahead])
            ahead = [raw.pool.submit(raw.decode, number) for number in range(RAW_BATCH)]
            did.images += len(raw.run(raw.whole, batch))
    return did


def raw_single(seconds: float) -> Did:
    did = Did()
    until = time.perf_counter() + seconds
    with did.counted():
        while time.perf_counter() < until:
            began = time.perf_counter()
            raw.run(raw.whole, raw.decode(did.images)[None])
            did.ms.append(1e3 * (time.perf_counter() - began))
            did.images += 1
    return did


# --- the caller, in a process of its own ---


class Caller:
    def __init__(self, address: str, photos: Sequence[bytes]) -> None:
        self.address = address
        images = [embedder_pb2.Image(content=photo) for photo in photos]
        self.requests = {size: list(self.chunks(images, size)) for size in {size for size, _ in CALLS} | {1, 4}}

    def chunks(self, images: Sequence[embedder_pb2.Image], size: int) -> Iterator[embedder_pb2.EmbedRequest]:
        for start in range(0, len(images) - size + 1, size):
            yield embedder_pb2.EmbedRequest(images=images[start : start + size])


caller: Caller


def open_caller(address: str, photos: Sequence[bytes]) -> None:
    global caller  # noqa: PLW0603 (a process's own)
    caller = Caller(address, photos)


def served_embeddings() -> np.ndarray:
    with grpc.insecure_channel(caller.address) as channel:
        found = embedder_pb2_grpc.EmbedderServiceStub(channel).Embed(caller.requests[4][0], timeout=TIMEOUT_S)
    return np.frombuffer(found.embeddings.data, "<f4").reshape(4, -1)


def call(size: int, at_once: int, seconds: float) -> Did:
    """Make calls of `size` photos, by several callers at once, each of whom calls again when it is answered."""
    return asyncio.run(_calls(lambda stub, did: _closed(stub, did, size, at_once, seconds)))


def at_rate(rate: float, seconds: float) -> Did:
    """Make calls of one photo, each at its time, whatever became of earlier ones."""
    return asyncio.run(_calls(lambda stub, did: _open(stub, did, rate, seconds)))


async def _calls(load: Callable[[Any, Did], Any]) -> Did:
    did = Did()
    async with grpc.aio.insecure_channel(caller.address) as channel:
        await channel.channel_ready()
        with did.counted():
            await load(embedder_pb2_grpc.EmbedderServiceStub(channel), did)
    return did


async def _closed(stub: Any, did: Did, size: int, at_once: int, seconds: float) -> None:
    requests, until = cycle(caller.requests[size]), time.perf_counter() + seconds

    async def calls() -> None:
        while time.perf_counter() < until:
            await _one(stub, did, next(requests), time.perf_counter())

    await asyncio.gather(*(calls() for _ in range(at_once)))


async def _open(stub: Any, did: Did, rate: float, seconds: float) -> None:
    requests, started = cycle(caller.requests[1]), time.perf_counter()
    calls = []
    for number in range(int(rate * seconds)):
        intended = started + number / rate
        await asyncio.sleep(max(0.0, intended - time.perf_counter()))
        calls.append(asyncio.create_task(_one(stub, did, next(requests), intended)))
    await asyncio.gather(*calls)


async def _one(stub: Any, did: Did, request: embedder_pb2.EmbedRequest, began: float) -> None:
    found = await stub.Embed(request, timeout=TIMEOUT_S)
    did.ms.append(1e3 * (time.perf_counter() - began))
    did.infer_ms.append(found.times.infer_ms)
    did.decode_ms.append(found.times.decode_ms)
    did.images += len(request.images)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
