"""How large a cluster a gallery takes, on paper: `python -m bench.lib.sizing`, from what was measured of one shard, and of a photo embedded.

A shard holds a million photos of 512 floats, so that nothing of a shard is extrapolated: its memory, its time and its building are those of
`bench.search.index`. A query asks every shard. A node keeps in memory its shards, and where candidates are reranked their embeddings, too.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.lib.paths import RESULTS

PHOTOS = (10_000_000, 100_000_000, 1_000_000_000)
SHARD = 1_000_000
EMBEDDING_BYTES = 1024
"""512 floats of two bytes."""
CORES = 16
USABLE_BYTES = 48 << 30
"""Of a node's memory of 64 GiB: the rest is Ray's, the system's, and the processes'."""


@dataclass(frozen=True)
class Shard:
    """What was measured of a shard of a million photos."""

    index: str
    search: str
    recall: float
    bytes: int
    """In memory, with the embeddings that reranking reads."""
    query_ms: float
    """Of a core, for a query alone."""
    batched_ms: float
    """Of a core, for a query of a batch of 64."""
    build_s: float
    """Of a core."""


def main() -> None:
    tables()


def tables() -> None:
    """Print the table in Markdown."""
    titles = [
        "photos",
        "index of each shard",
        "nodes, R = 1 / 2",
        "index memory a node",
        "a query: CPU, alone",
        "queries/s",
    ]
    titles += ["build: core hours, hours", "embedding: core hours, hours"]
    print(f"| {' | '.join(titles)} |\n{len(titles) * '|---'}|")
    for photos in PHOTOS:
        for shard in shards():
            print(f"| {' | '.join(row(photos, shard))} |")


def row(photos: int, shard: Shard) -> Iterator[str]:
    number = photos // SHARD
    nodes = [max(replicas, math.ceil(replicas * number * shard.bytes / USABLE_BYTES)) for replicas in (1, 2)]
    a_node = math.ceil(number / nodes[0])
    cores = nodes[0] * CORES
    build = number * shard.build_s / 3600
    embedding = photos * embedding_ms() / 3.6e6
    yield f"{number:,} M"
    yield f"{shard.index}, {shard.search}"
    yield f"{nodes[0]} / {nodes[1]}"
    yield f"{short(a_node * shard.bytes / 2**30)} GiB"
    yield f"{short(number * shard.query_ms)} ms, {short(math.ceil(a_node / CORES) * shard.query_ms)} ms"
    yield short(1e3 * cores / (number * shard.batched_ms))
    yield f"{short(build)}, {short(build / cores)}"
    yield f"{short(embedding)}, {short(embedding / cores)}"


def short(number: float) -> str:
    """Return the number with two digits at least, and none behind the point from ten on."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def shards() -> list[Shard]:
    return [
        _measured("IVF2048,SQ8", "nprobe 128", rerank=None),
        _measured("IVF2048,RaBitQ", "nprobe 128, rerank 10", rerank=10),
    ]


def embedding_ms() -> float:
    """Return the CPU time of a photo of 500 x 375 whose car is found and embedded, int8, of the whole service."""
    ms: float = _stored("looking.json")["served_ms"]["with"]
    return ms


def _measured(index: str, search: str, *, rerank: int | None) -> Shard:
    found = _stored("index-512-1000000.json")[index]
    (point,) = [each for each in found["points"] if (each["nprobe"], each["rerank"]) == (128, rerank)]
    return Shard(
        index=index,
        search=search,
        recall=point["recall@10"],
        bytes=found["bytes"] + (SHARD * EMBEDDING_BYTES if rerank else 0),
        query_ms=point["p50_ms"],
        batched_ms=1e3 / point["qps_64"],
        build_s=found["cpu_seconds"],
    )


def _stored(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


if __name__ == "__main__":
    main()
