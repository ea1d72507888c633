"""What photos of each format cost, and which damaged JPEGs are refused: `python -m bench.embedder.formats`.

- cost: CPU time and memory of decoding a photo of 12 megapixels, of noise that was enlarged, each format in processes of its own: of the process
  that asks, and of the one apart, if there is one. JPEGs of 50 and 108 megapixels, as a server decodes them;
- damage: of 60 train photos of Stanford Cars, encoded anew in four ways, how many are refused with 512 and 4,096 bytes set to zero in their
  middle half, and with zeros from the middle to the end.
"""

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from svckit.photos.photo import Limits, Photo, PhotoError

LIMITS = Limits(20_000_000, 25_000_000, 10)
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}
PHOTOS = 60
_MEASURE = """
import json, pathlib, resource, sys
from svckit.photos import apart
from svckit.photos.photo import Limits, Photo
def used(): return resource.getrusage(resource.RUSAGE_SELF)
def most(pid): return int(pathlib.Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
content = pathlib.Path(sys.argv[1]).read_bytes()
Photo.open(pathlib.Path(sys.argv[2]).read_bytes(), Limits(10**8, 25_000_000, 10)).decode()
child = getattr(apart._mine, "process", None)
def stat():
    if child is None: return 0.0, 0
    fields = pathlib.Path(f"/proc/{child._popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100, most(child._popen.pid)
before, mb, apart_before = used(), most("self"), stat()
photo = Photo.open(content, Limits(10**8, 25_000_000, 10))
photo.decode(min(photo.divisors))
after, apart_after = used(), stat()
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"cpu_ms": round(1e3 * (cpu + apart_after[0] - apart_before[0])), "mb": round((most("self") - mb) / 1e3),
                  "mb_apart": round((apart_after[1] - apart_before[1]) / 1e3)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "formats.json", metavar="JSON")
    args = parser.parse_args()
    report = {"machine": machine.describe(("pillow", "pillow-heif", "numpy")), "cost": costs(), "damage": damage()}
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def costs() -> dict[str, dict[str, int]]:
    """Return what decoding costs, by format."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    forms = {
        "JPEG": {},
        "JPEG progressive": {"progressive": True},
        "PNG": {},
        "WEBP": {},
        "AVIF": {"speed": 10},
        "HEIF": {},
    }
    return {
        **{name: cost(noise, (4000, 3000), name.split()[0], options) for name, options in forms.items()},
        "JPEG 50 MP": cost(noise, (8160, 6120), "JPEG", {}),
        "JPEG 108 MP": cost(noise, (12000, 9000), "JPEG", {}),
    }


def cost(picture: Image.Image, size: tuple[int, int], form: str, options: dict[str, Any]) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        large.write_bytes(encoded(picture.resize(size), form, options))
        small.write_bytes(encoded(picture.resize((64, 48)), form, options))
        command = [sys.executable, "-c", _MEASURE, large, small]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def encoded(picture: Image.Image, form: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    if form == "HEIF":
        pillow_heif.from_pillow(picture).save(file, quality=80, enc_params={"preset": "ultrafast"})
    else:
        picture.save(file, form, **({"quality": 80} if form != "PNG" else {"compress_level": 1}), **options)
    return file.getvalue()


def damage() -> dict[str, dict[str, str]]:
    """Return how many damaged photos are refused, by the way they are encoded and the damage."""
    paths = sorted((ROOT.parent / "shared/data/stanford_cars").glob("train/*/*.jpg"))
    rng = random.Random(2)
    photos = [Image.open(path).convert("RGB") for path in rng.sample(paths, PHOTOS)]
    return {name: of_way([encoded(photo, "JPEG", way) for photo in photos], rng) for name, way in WAYS.items()}


def of_way(photos: list[bytes], rng: random.Random) -> dict[str, str]:
    counts = {}
    for length in (512, 4096):
        large = [content for content in photos if len(content) >= 3 * length]
        damaged = []
        for content in large:
            place = rng.randint(len(content) // 4, 3 * len(content) // 4 - length)
            damaged.append(content[:place] + bytes(length) + content[place + length :])
        counts[f"{length} zeros"] = f"{sum(map(refused, damaged))} of {len(damaged)}"
    halves = [content[: len(content) // 2] + bytes(len(content) // 2) for content in photos]
    return counts | {"zeros to the end": f"{sum(map(refused, halves))} of {len(halves)}"}


def refused(content: bytes) -> bool:
    try:
        Photo.open(content, LIMITS).decode()
    except PhotoError:
        return True
    return False


if __name__ == "__main__":
    main()
