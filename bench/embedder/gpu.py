"""What serving gets out of a GPU: `python -m bench.embedder.gpu --model FP16_BUNDLE [--device cuda]`; bench/embedder/gpu.sh sets up for it.

In one run, on one machine:

- raw: onnxruntime alone on the device, on pixels in memory, the best of several batch sizes; with copies to the device and
  back, as any server must: `session.run` of a batch that is ready ("copied"), and what our server does on a GPU, photos
  gathered in page-locked memory and copied to buffers that were bound once ("bound"); and with input and output on the
  device all along ("on the device", the ceiling).
- decoding: our preprocessing alone, on all cores: what no server on this machine can pass.
- served: `vmmr-embedder serve`, loaded by processes of its own on the same machine: with JPEGs of 500 x 375, and with
  bitmaps of the network's size, which cost next to nothing to decode, so that the network is what limits.

Printed: served to raw (bitmaps: wanted >= 0.8), served to what limits it, Triton's published figure beside it, and which
stage was the limit, with what says so: the GPU's utilisation while it was loaded, and the cores that server and callers used.
"""

import argparse
import io
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from bench.lib.servers import Served, serving
from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.runtime import Runtime
from embedder_svc.photos import preprocess
from embedder_svc.photos.photo_files import LIMITS

OUT = RESULTS / "gpu.json"
TRITON = 6127
"""Images/s of a ResNet-50, fp16, ONNX Runtime with TensorRT, on one A100, 256 callers, tensors in: no decoding.
NVIDIA DeepLearningExamples, classification/resnet50v1.5, Triton."""
BATCHES = (1, 8, 32, 64, 128)
TIMEOUT_S = 60.0
BUSY = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--device", choices=("cuda", "tensorrt", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument(
        "--batches", type=int, nargs="*", default=BATCHES, help="of raw; the largest is the server's, too"
    )
    parser.add_argument("--call", type=int, default=8, help="photos in a call")
    parser.add_argument("--callers", type=int, default=32, help="calls at once")
    parser.add_argument("--processes", type=int, default=4, help="that call")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    info = bundle.read(args.model)
    source, photos = photos_of(args.photos)
    about = {"machine": {**machine.describe(), "gpu": gpu_name()}, "model": info.name, "precision": info.precision}
    settings = {key: value for key, value in vars(args).items() if not isinstance(value, Path)}
    figures = measured(args, info, photos)
    result = {**about, **settings, "photos": source, **figures, "ratios": ratios(figures)}
    print(table(result))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(args: argparse.Namespace, info: BundleInfo, photos: Sequence[bytes]) -> dict[str, Any]:
    decoded = [decode(info, photo) for photo in photos]
    rates, page_locked = raw(args, info, np.stack(decoded))
    found: dict[str, Any] = {
        "raw": rates,
        "page_locked": page_locked,
        "decoding": decoding(info, photos, args.seconds),
    }
    bitmaps = [bitmap(pixels) for pixels in decoded]
    flags = ("--model", args.model.absolute(), "--device", args.device, "--max-batch", max(args.batches))
    room = ("--max-queue", 4 * args.callers * args.call, "--max-images", args.call, "--workers", args.workers)
    with serving("embedder_svc", *flags, *room) as served:
        for name, sent in (("bitmaps", bitmaps), ("jpegs", photos)):
            found[name] = asdict(loaded(served, sent, args))
    return found


# --- the parts alone ---


def decode(info: BundleInfo, photo: bytes) -> np.ndarray:
    return preprocess.decode(photo, resize=info.resizing, limits=LIMITS)


def bitmap(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def raw(args: argparse.Namespace, info: BundleInfo, pixels: np.ndarray) -> tuple[dict[str, dict[int, float]], bool]:
    """Return images/s by batch size, run in each way, and whether the bound run had page-locked memory."""
    largest = max(args.batches)
    runtime = Runtime(args.model / bundle.GRAPH, input_size=info.input_size, max_batch=largest)
    session = runtime.session(args.device, threads=len(os.sched_getaffinity(0)))
    many = np.concatenate([pixels] * -(-largest // len(pixels)))
    bound = runtime.bound(session, sizes=args.batches, dimension=info.dimension)
    ways: dict[str, Callable[[int], Callable[[], object]]] = {
        "copied": lambda n: partial(copied, session, many[:n]),
        "bound": lambda n: partial(bound.run, list(many[:n])),
        "on the device": lambda n: on_the_device(session, many[:n], args.device),
    }
    return {
        way: {n: rate(run(n), n, args.seconds) for n in args.batches} for way, run in ways.items()
    }, bound.page_locked


def copied(session: Any, batch: np.ndarray) -> None:
    session.run(["embeddings"], {"images": batch})


def on_the_device(session: Any, batch: np.ndarray, device: str) -> Callable[[], None]:
    import onnxruntime  # noqa: PLC0415 (after Runtime has said what is wrong with it)

    place = "cpu" if device == "cpu" else "cuda"
    binding = session.io_binding()
    binding.bind_ortvalue_input("images", onnxruntime.OrtValue.ortvalue_from_numpy(batch, place, 0))
    binding.bind_output("embeddings", place)
    return partial(session.run_with_iobinding, binding)


def rate(run: Callable[[], object], images: int, seconds: float) -> float:
    """Return images/s. The first run, which sets things up, does not count."""
    run()
    began, runs = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        run()
        runs += 1
    return images * runs / took


def decoding(info: BundleInfo, photos: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Return photos/s of decoding in threads on all cores, as the server does it."""
    cores = len(os.sched_getaffinity(0))
    end = time.perf_counter() + seconds

    def one(number: int) -> int:
        for count, photo in enumerate(islice(cycle(photos), number, None)):
            if time.perf_counter() >= end:
                return count
            decode(info, photo)
        return 0

    with ThreadPoolExecutor(cores) as pool:
        done = sum(pool.map(one, range(cores)))
    return {"per_second": done / seconds, "per_core": done / seconds / cores}


# --- served ---


@dataclass(frozen=True)
class Load:
    """The server under load."""

    per_second: float
    p50_ms: float
    p99_ms: float
    server_cores: float
    callers_cores: float
    gpu_percent: float | None
    """Utilisation, as nvidia-smi tells it: the share of time that some kernel ran. None without it."""


def loaded(served: Served, photos: Sequence[bytes], args: argparse.Namespace) -> Load:
    share = max(1, args.callers // args.processes)
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        call = partial(called, served.address, list(photos), args.call, share)
        list(pool.map(call, [0.5] * args.processes))  # warms both sides up
        cpu, began = served.cpu_s(), time.perf_counter()
        with utilisation() as percents:
            parts = list(pool.map(call, [args.seconds] * args.processes))
        took, cpu_s = time.perf_counter() - began, served.cpu_s() - cpu
    ms = np.concatenate([each for each, _ in parts])
    callers_s = sum(cpu for _, cpu in parts)
    return Load(
        per_second=args.call * len(ms) / took,
        p50_ms=float(np.percentile(ms, 50)),
        p99_ms=float(np.percentile(ms, 99)),
        server_cores=cpu_s / took,
        callers_cores=callers_s / took,
        gpu_percent=statistics.mean(percents.values) if percents.values else None,
    )


def called(address: str, photos: list[bytes], size: int, callers: int, seconds: float) -> tuple[list[float], float]:
    """Make the calls of one process. Return the milliseconds of each, and the CPU seconds of all."""
    requests = [
        embedder_pb2.EmbedRequest(
            images=[embedder_pb2.Image(content=photo) for photo in islice(cycle(photos), n, n + size)]
        )
        for n in range(0, len(photos), size)
    ]
    cpu, end, ms = time.process_time(), time.perf_counter() + seconds, []

    def one(number: int) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            for request in islice(cycle(requests), number, None):
                began = time.perf_counter()
                if began >= end:
                    return
                stub.Embed(request, timeout=TIMEOUT_S)
                ms.append(1e3 * (time.perf_counter() - began))

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(one, range(callers)))
    return ms, time.process_time() - cpu


@dataclass
class Percents:
    values: list[float] = field(default_factory=list)


@contextmanager
def utilisation() -> Iterator[Percents]:
    """Read the GPU's utilisation from nvidia-smi, if there is one, five times a second while the block lasts."""
    percents = Percents()
    if not shutil.which("nvidia-smi"):
        yield percents
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200", "-i", "0"]
    process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        percents.values.extend(float(line) for line in process.stdout or () if line.strip().isdigit())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield percents
    finally:
        process.terminate()
        reader.join()
        process.wait()


def gpu_name() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "-i", "0"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or None


# --- telling ---


def ratios(found: dict[str, Any]) -> dict[str, float]:
    best = max(found["raw"]["copied"].values())
    decode_s = found["decoding"]["per_second"]
    return {
        "served / raw, bitmaps": found["bitmaps"]["per_second"] / best,
        "served / raw, jpegs": found["jpegs"]["per_second"] / best,
        "served / decoding alone, jpegs": found["jpegs"]["per_second"] / decode_s,
        "served / the lesser of the two, jpegs": found["jpegs"]["per_second"] / min(best, decode_s),
        "raw, bound / copied": max(found["raw"]["bound"].values()) / best,
        "raw, copied / on the device": best / max(found["raw"]["on the device"].values()),
        "served bitmaps / Triton on an A100": found["bitmaps"]["per_second"] / TRITON,
        "served jpegs / Triton on an A100": found["jpegs"]["per_second"] / TRITON,
    }


def limit(load: dict[str, Any], cores: int) -> str:
    """Return the stage that has no room left, and what shows it."""
    used = load["server_cores"] + load["callers_cores"]
    cpu = f"server {load['server_cores']:.1f} and callers {load['callers_cores']:.1f} of {cores} cores"
    gpu = "no nvidia-smi" if load["gpu_percent"] is None else f"GPU busy {load['gpu_percent']:.0f} %"
    if (load["gpu_percent"] or 0) / 100 >= BUSY:
        return f"the network ({gpu}; {cpu})"
    if used >= BUSY * cores:
        return f"the cores, which decode and call ({cpu}; {gpu})"
    return (
        f"neither GPU nor cores: one process's event loop, or too few callers; try --workers, --callers ({gpu}; {cpu})"
    )


def table(result: dict[str, Any]) -> str:
    about = result["machine"]
    lines = [
        machine.line(about),
        f"GPU: {about['gpu']}; {result['model']}, {result['precision']}, on {result['device']}",
        "",
    ]
    for kind, rates in result["raw"].items():
        lines += [f"raw, {kind}, batch {batch}: {per_second:.0f} images/s" for batch, per_second in rates.items()]
    lines.append(f"bound host memory: {'page-locked' if result['page_locked'] else 'ordinary'}")
    alone = result["decoding"]
    lines.append(f"decoding alone: {alone['per_second']:.0f} photos/s, {alone['per_core']:.0f} a core")
    for name in ("bitmaps", "jpegs"):
        load = result[name]
        lines += [
            f"served, {name}: {load['per_second']:.0f} images/s, p50 {load['p50_ms']:.1f} ms, p99 {load['p99_ms']:.1f} ms",
            f"  limited by {limit(load, about['cores'])}",
        ]
    return "\n".join([*lines, "", *(f"{name:45} {ratio:.2f}" for name, ratio in result["ratios"].items())])


if __name__ == "__main__":
    sys.exit(main())
