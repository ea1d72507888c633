"""Where the time of one request goes: `python -m bench.pair.waterfall [--photos DIR]`.

Starts the pair that ships, identifies one photo at a time, and draws the median of every stage as a waterfall. Stages are
those that the servers report; what is left of a round trip is the way: gRPC on both sides, reading the request and
writing the reply. Writes docs/waterfall.svg and bench/results/waterfall.json.
"""

import argparse
import io
import json
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image
from vmmr import Client

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import pair

OUT = RESULTS / "waterfall.json"
PICTURE = ROOT / "docs" / "waterfall.svg"
PHOTOS = ROOT.parent / "shared" / "data" / "stanford_cars" / "train"
SIZE = (500, 375)
COLOURS = {"client": "#8c8c8c", "embedder": "#1f5f99", "search": "#c26a12"}

Stage = tuple[str, str]
"""Where, and what."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEGs, brought to 500 x 375")
    args = parser.parse_args()
    photos = read(args.photos)
    with (
        pair() as (embedder, search),
        Client(embedder.address, search.address) as client,
    ):
        for photo in photos[:20]:
            client.identify(photo)
        calls = [dict(stages(client, photos[call % len(photos)])) for call in range(args.calls)]
    medians = {stage: statistics.median(call[stage] for call in calls) for stage in calls[0]}
    whole = statistics.median(sum(call.values()) for call in calls)
    for (where, what), ms in medians.items():
        print(f"{where:>9} {what:<28} {ms:7.2f} ms {ms / whole:6.1%}")
    print(f"{'':>9} {'whole request, median':<28} {whole:7.2f} ms")
    draw(medians)
    told = {f"{where}: {what}": round(ms, 3) for (where, what), ms in medians.items()}
    content: dict[str, Any] = {"machine": machine.describe()}
    content |= {"calls": args.calls, "photo": "x".join(map(str, SIZE)), "whole_ms": round(whole, 3), "stages_ms": told}
    OUT.write_text(json.dumps(content, indent=1) + "\n")


def read(folder: Path) -> list[bytes]:
    paths = sorted(folder.rglob("*.jpg"))
    if not paths:
        sys.exit(f"bench/pair/waterfall.py: no *.jpg in {folder}: name a folder of photos with --photos")
    return [resized(path) for path in random.Random(0).sample(paths, min(100, len(paths)))]


def resized(path: Path) -> bytes:
    content = io.BytesIO()
    Image.open(path).convert("RGB").resize(SIZE).save(content, "JPEG", quality=85)
    return content.getvalue()


def stages(client: Client, photo: bytes) -> Iterator[tuple[Stage, float]]:
    """Yield the milliseconds of each stage of one request, in their order."""
    began = perf_counter()
    embeddings = client.embed([photo])
    embedded = perf_counter()
    found = client.classify(embeddings)
    embed, search = embeddings.times, found.times
    assert embed is not None
    yield (
        ("client", "to the embedder and back"),
        1e3 * (embedded - began) - embed.decode_ms - embed.queue_ms - embed.infer_ms,
    )
    yield ("embedder", "decode"), embed.decode_ms
    yield ("embedder", "queue"), embed.queue_ms
    yield ("embedder", "network"), embed.infer_ms
    classified_ms = 1e3 * (perf_counter() - embedded)
    yield (
        ("client", "to the search service and back"),
        classified_ms - search.queue_ms - search.search_ms - search.vote_ms,
    )
    yield ("search", "queue"), search.queue_ms
    yield ("search", "search"), search.search_ms
    yield ("search", "vote"), search.vote_ms


def draw(medians: dict[Stage, float]) -> None:
    mpl.rcParams["svg.hashsalt"] = "vmmr"
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    begins = 0.0
    for row, ((where, _), ms) in enumerate(medians.items()):
        axes.barh(row, ms, left=begins, color=COLOURS[where])
        axes.annotate(f" {ms:.2f}", (begins + ms, row), va="center", fontsize=8)
        begins += ms
    axes.set_yticks(range(len(medians)), [f"{where}: {what}" for where, what in medians], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds, median of one photo at a time")
    axes.set_xlim(0, 1.12 * begins)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
