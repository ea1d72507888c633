"""What finding the car adds to a photo's CPU time: `python -m bench.embedder.looking PLAIN WITH [--photos DIR]`.

PLAIN and WITH are bundles of one network, without and with a detector. Two measurements, both in turns, so that what else the machine does
slows all alike, and both of CPU time:

- stage by stage in this process, on one thread, the median over the photos: decoding, the network and its input, as before; the detector's
  input, the detector, the choice among its boxes, the cut;
- served: a server of each bundle is asked for the same photos, one at a time, in blocks in turns; the CPU that its process used.

The photos are whole ones as they are (../shared/data/wild and boxed), and one of 12 megapixels made of one of them.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from PIL import Image
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import Served, serving
from embedder_svc.network import cars
from embedder_svc.network.detector import View
from embedder_svc.network.model import Model
from embedder_svc.photos import preprocess
from embedder_svc.photos.photo_files import LIMITS, spread
from embedder_svc.photos.preprocess import Decoded

DATA = ROOT.parent / "shared/data"
ROUNDS = 5
BLOCKS, BLOCK = 8, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=Path, metavar="PLAIN")
    parser.add_argument("finding", type=Path, metavar="WITH")
    parser.add_argument("--photos", type=int, default=60, metavar="N")
    parser.add_argument("--out", type=Path, default=RESULTS / "looking.json", metavar="JSON")
    args = parser.parse_args()
    paths = [
        path for name in ("wild", "boxed") for path in spread(sorted((DATA / name).glob("*/*.jpg")), args.photos // 2)
    ]
    photos = [path.read_bytes() for path in paths]
    plain, finding = (Model.open(path, device="cpu", threads=1) for path in (args.plain, args.finding))
    report = {
        "stages_ms": stages(plain, finding, photos),
        "stages_12_megapixels_ms": stages(plain, finding, [large(paths[0])] * 3),
        "served_ms": served(args.plain, args.finding, photos),
        "photos": f"{len(photos)} of wild and boxed",
        "machine": machine.describe(("onnxruntime", "pillow", "numpy")),
    }
    for name in ("stages_ms", "stages_12_megapixels_ms", "served_ms"):
        print(name, report[name])
    args.out.write_text(json.dumps(report, indent=1) + "\n")


def stages(plain: Model, finding: Model, photos: Sequence[bytes]) -> dict[str, float]:
    """Return the median CPU milliseconds of each stage, over photos and rounds."""
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for content in photos:
            one_photo(plain, finding, content, lambda name, ms: took.setdefault(name, []).append(ms))
    return {name: round(statistics.median(each), 2) for name, each in took.items()}


def one_photo(plain: Model, finding: Model, content: bytes, took: Callable[[str, float], None]) -> None:
    def timed(name: str, function: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = function()
        took(name, 1e3 * (time.process_time() - began))
        return result

    detector = finding.detector
    assert detector is not None
    info = detector.info
    pixels = timed("decode", lambda: preprocess.decode(content, resize=plain.info.resizing, limits=LIMITS))
    timed("network", lambda: plain.embed_in_lane([pixels]))
    photo = timed("decode for cars", lambda: Decoded(content, resize=finding.info.resizing, limits=LIMITS))
    view = timed("detector's input", lambda: View(photo.view(info.input_size), photo.size))
    (found,) = timed("detector, and the choice", lambda: detector.find([view]))
    (cut,) = cars.cuts(found[:1], photo.size, info)
    part = timed("cut", lambda: photo.cut(cut.box))
    timed("network of the car", lambda: finding.embed_in_lane([part]))


def served(plain: Path, finding: Path, photos: Sequence[bytes]) -> dict[str, float]:
    """Return the CPU milliseconds that a server of each bundle used a photo: the median over the blocks, and of their ratios."""
    flags = ("--threads", 1, "--decode-threads", 1, "--log-level", "warning")
    with (
        serving("embedder_svc", "--model", plain.absolute(), *flags) as first,
        serving("embedder_svc", "--model", finding.absolute(), *flags) as second,
    ):
        for server in (first, second):
            block(server, photos, 10)
        pairs = [(block(first, photos, BLOCK), block(second, photos, BLOCK)) for _ in range(BLOCKS)]
    return {
        "without": round(statistics.median(a for a, _ in pairs), 2),
        "with": round(statistics.median(b for _, b in pairs), 2),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
    }


def block(server: Served, photos: Sequence[bytes], count: int) -> float:
    """Return the CPU milliseconds a photo that the server used for so many photos, one at a time."""
    with grpc.insecure_channel(server.address) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        began = server.cpu_s()
        for number in range(count):
            image = embedder_pb2.Image(content=photos[number % len(photos)])
            stub.Embed(embedder_pb2.EmbedRequest(images=[image]), timeout=60)
        return 1e3 * (server.cpu_s() - began) / count


def large(path: Path) -> bytes:
    file = io.BytesIO()
    Image.open(path).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
