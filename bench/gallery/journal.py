"""Single adds to a gallery that serves: how many are on the disk in a second, for one caller and for eight.

    python -m bench.gallery.journal [--count 100000] [--callers 1 8] [--seconds 300] [--out bench/results/journal.json]

Each call adds one item of 512 floats and is answered once the item is on the disk. The count is of all callers together, and so is
the time limit, for each number of callers; the server is a process of its own, compaction by itself is off, and every run has an
index of its own. With it goes the CPU time that the server took for an add, which other work on the machine hardly changes. Beside it, in the same run: what SQLite alone does, one transaction an item, in one thread, and what the
journal's writer takes without a server. Then the server
is stopped and started again: how long until it has read all of it, and is ready.
"""

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc

from bench.lib import machine, servers
from bench.lib.servers import Served
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.index.journal import StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.writes import Add
from search_svc.voting.labels import parse

D = 512
MODEL = "c0ffee" + 58 * "0"
BASE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--folder", type=Path, help="where the indexes are made (default: the system's temporary one)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vmmr-journal-", dir=args.folder) as folder:
        result = {
            "machine": machine.describe(),
            "sqlite_alone_per_s": round(sqlite_alone(Path(folder)), 1),
            "writer_cpu_us_per_add": round(writer_alone(Path(folder))),
            "served": [measured(Path(folder), callers, args.count, args.seconds) for callers in args.callers],
        }
    print(table(result))
    if args.out:
        args.out.write_text(f"{json.dumps(result, indent=1)}\n")


def sqlite_alone(folder: Path, seconds: float = 3.0) -> float:
    """Return how many transactions SQLite commits in a second, each of one row as large as an item."""
    connection = sqlite3.connect(folder / "alone.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE entries (sequence INTEGER PRIMARY KEY, embedding BLOB)")
    row, count, end = os.urandom(2 * D), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.execute("INSERT INTO entries (embedding) VALUES (?)", (row,))
        count += 1
    connection.close()
    return count / seconds


def writer_alone(folder: Path, adds: int = 1000) -> float:
    """CPU microseconds, in user and kernel, of an add that is committed alone, without a server or a network."""
    base = SimpleNamespace(journal_sequence=0, model=MODEL, dimension=D, item=lambda _: None)
    (folder / "alone").mkdir()
    writer, embedding = JournalWriter(folder / "alone", lambda: base), os.urandom(2 * D)
    started = 0.0
    for number in range(-50, adds):
        if number == 0:
            started = time.process_time()
        (done,) = writer.commit([Add({f"item {number}": StoredItem("make_model_1990", "", "", {}, embedding)})])
        assert done.added == 1
    took = time.process_time() - started
    writer.close()
    return 1e6 * took / adds


def measured(folder: Path, callers: int, count: int, seconds: float) -> dict:
    index = folder / f"index-{callers}"
    build(index)
    with serving(index) as server:
        before = server.cpu_s()
        took, times = asyncio.run(add(server.address, callers, count, seconds))
        cpu = server.cpu_s() - before
        size = sum(file.stat().st_size for file in index.glob("journal.db*"))
    start_up = restarted(index, len(times))
    at = {f"p{q}_ms": round(1e3 * float(np.quantile(times, q / 100)), 2) for q in (50, 99)}
    shutil.rmtree(index)
    return {
        "callers": callers,
        "adds": len(times),
        "per_s": round(len(times) / took, 1),
        **at,
        "server_cpu_us_per_add": round(1e6 * cpu / len(times)),
        "journal_bytes": size,
        "bytes_per_add": round(size / len(times)),
        **start_up,
    }


def serving(index: Path) -> AbstractContextManager[Served]:
    return servers.serving("search_svc", "--index", index, "--compact-at", 0, "--log-level", "warning")


def restarted(index: Path, adds: int) -> dict:
    """Return the seconds until a server is ready, with the whole journal and without it. Check that every item is there."""
    with serving(index) as server, grpc.insecure_channel(server.address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        held = stub.ListVersions(gallery_pb2.ListVersionsRequest()).journal_depth
        assert held == adds, f"{held} entries of {adds}"
        with_journal = server.start_s
    for file in index.glob("journal.*"):
        file.unlink()
    with serving(index) as server:
        return {"start_up_s": round(with_journal, 2), "start_up_without_s": round(server.start_s, 2)}


async def add(address: str, callers: int, count: int, seconds: float) -> tuple[float, list[float]]:
    """Add items until `count` are there or the time is over. Return the seconds that took, and those of each call."""
    vectors = np.random.default_rng(0).standard_normal((64, D)).astype(np.float32)
    packed = [wire.pack(MODEL, row[None] / np.linalg.norm(row)) for row in vectors]
    numbers, times = iter(range(count)), []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = gallery_pb2_grpc.GalleryServiceStub(channel)
        await channel.channel_ready()
        started = time.perf_counter()

        async def caller() -> None:
            for number in numbers:
                item = gallery_pb2.Item(item_id=f"item {number}", label=f"make_model_{1990 + number % 30}")
                began = time.perf_counter()
                await stub.AddItems(
                    gallery_pb2.AddItemsRequest(items=[item], embeddings=packed[number % 64]), timeout=60
                )
                times.append(time.perf_counter() - began)
                if time.perf_counter() - started > seconds:
                    return

        await asyncio.gather(*(caller() for _ in range(callers)))
        return time.perf_counter() - started, times


def build(index: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((BASE, D)).astype(np.float32)
    names = [f"base {n}" for n in range(BASE)]
    build_version(
        index,
        BuildSource(
            embeddings=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
            item_ids=names,
            labels=[parse(f"make_model_{1990 + n % 30}") for n in range(BASE)],
            uris=names,
            model=MODEL,
            model_name="bench",
            rows=np.arange(len(names)),
        ),
        IndexSpec(),
    )


def table(result: dict) -> str:
    lines = [
        machine.line(result["machine"]),
        f"SQLite alone, one thread: {result['sqlite_alone_per_s']} transactions/s",
    ]
    lines.append(f"the journal's writer alone: {result['writer_cpu_us_per_add']} us of CPU for an add")
    lines.append("callers    adds  acknowledged/s  p50 ms  p99 ms  CPU us/add  journal MB  start-up s (without)")
    lines += [
        f"{r['callers']:7d} {r['adds']:7d} {r['per_s']:15.0f} {r['p50_ms']:7.2f} {r['p99_ms']:7.2f} "
        f"{r['server_cpu_us_per_add']:11d} {r['journal_bytes'] / 1e6:11.1f} {r['start_up_s']:11.2f} ({r['start_up_without_s']:.2f})"
        for r in result["served"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
