"""What opening and serving an index takes: `python -m bench.search.opening INDEX DATA`.

DATA is what bench/lib/synthetic.py made and INDEX was built from. First in this process, then in two servers of the same index,
started from the command line: each is asked the queries of DATA, one by one. RssAnon is memory that only the process can
hold; RssFile are pages of files that it has looked at, which other processes share and the kernel may drop; Pss is both, with
shared pages divided among those who share them.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib import machine
from bench.lib.servers import Served, serving
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion

QUERIES, FEW = 1000, 200
_FIELDS = ("RssAnon", "RssFile", "Pss")


def main(argv: Sequence[str]) -> None:
    index, data = map(Path, argv)
    with np.load(data / "queries.npz") as file:
        queries = file["vectors"][:QUERIES]
    told = {"in this process": in_process(index, queries), "served": served(index, queries)}
    print(json.dumps({"machine": machine.describe(), **told}, indent=1))


def in_process(index: Path, queries: NDArray[np.float32]) -> list[dict[str, object]]:
    stages = [stage("before", 0)]
    started = time.perf_counter()
    version = IndexVersion.open(index, verify=False)
    engine = LocalEngine.open(version)
    stages.append(stage("opened", time.perf_counter() - started))
    started = time.perf_counter()
    for row in range(len(queries)):
        engine.search(queries[row : row + 1], 10)
    stages.append(stage(f"{len(queries)} queries", time.perf_counter() - started))
    engine.close()
    started = time.perf_counter()
    IndexVersion.open(index)
    return [*stages, stage("opened with every byte verified", time.perf_counter() - started)]


def served(index: Path, queries: NDArray[np.float32]) -> list[dict[str, object]]:
    stages = []
    for flag in ("--no-verify", "--verify"):
        with serving("search_svc", "--index", index, flag) as server:
            stages.append(stage(f"from start to listening, {flag}", server.start_s, server.pid))
    with serving("search_svc", "--index", index) as first:
        stages.append(asked(first, index, queries))
        with serving("search_svc", "--index", index) as second:
            stages.append(asked(second, index, queries[:FEW]))
            stages.append(asked(second, index, queries))
            return [*stages, stage("the first of two", 0, first.pid), stage("the second of two", 0, second.pid)]


def asked(server: Served, index: Path, queries: NDArray[np.float32]) -> dict[str, object]:
    model = IndexVersion.open(index, verify=False).manifest.model
    with grpc.insecure_channel(server.address) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        started = time.perf_counter()
        for row in range(len(queries)):
            packed = wire.pack(model, queries[row : row + 1])
            stub.Search(search_pb2.SearchRequest(queries=packed, options=search_pb2.SearchOptions(k=10)))
    return stage(f"{len(queries)} queries, one by one", time.perf_counter() - started, server.pid)


def stage(name: str, seconds: float, pid: int | str | None = "self") -> dict[str, object]:
    """Return the seconds of a stage, and the memory of the process after it in MiB."""
    text = Path(f"/proc/{pid}/status").read_text() + Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {"stage": name, "seconds": round(seconds, 3), **{key: int(lines[key].split()[0]) >> 10 for key in _FIELDS}}


if __name__ == "__main__":
    main(sys.argv[1:])
