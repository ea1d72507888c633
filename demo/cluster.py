"""`make cluster-demo`: the gallery that ships, on a Ray cluster of two nodes on this machine; one node is killed while it is asked.

Every answer is compared with that of an engine in this process, to the bit.
"""

import argparse
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from demo.commands import ROOT
from demo.ray_nodes import ray_nodes
from demo.screen import say, step, style
from demo.servers import running
from search_svc.engine.cluster.connection import connect
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion
from svckit import cli, shipped
from svckit.cli import CommandError

_WORK = ROOT / ".cache" / "demo" / "cluster"
_QUERIES, _RATE = 64, 50.0
_CALL_S = 20.0
_AGAIN_S = 0.1
_SLOW_S = 0.25
Answer = list[tuple[str, float]]
"""Item ids and scores."""


@dataclass
class Outcome:
    """What became of a call."""

    sent: float
    took_s: float
    kind: str
    """right, wrong, partial (and said so), or the reason of an error."""


@dataclass
class Load:
    """Asks a server 50 times a second, one query a call, and compares every answer. Runs from `start` to `stop`."""

    address: str
    version: IndexVersion
    allow_partial: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    retries: int = 0
    """How many calls were sent again, for the server was busy."""

    def start(self) -> None:
        queries = asked_of(self.version)
        self._expected = expected(self.version, queries)
        options = search_pb2.SearchOptions(allow_partial=self.allow_partial)
        self._requests = [
            search_pb2.SearchRequest(queries=wire.pack(self.version.manifest.model, each[None]), options=options)
            for each in queries
        ]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def since(self, moment: float) -> list[Outcome]:
        """Return the outcomes of the calls that were sent since then."""
        return [each for each in list(self.outcomes) if each.sent >= moment]

    def counts(self) -> Counter[str]:
        return Counter(each.kind for each in list(self.outcomes))

    def _ask(self) -> None:
        begun, asked = time.monotonic(), 0
        with grpc.insecure_channel(self.address) as channel:
            self._search = search_pb2_grpc.SearchServiceStub(channel).Search
            while not self._stopped.wait(max(0.0, begun + asked / _RATE - time.monotonic())):
                self._send(asked % _QUERIES, time.monotonic())
                asked += 1
            while len(self.outcomes) < asked:  # each has a deadline
                time.sleep(0.01)

    def _send(self, number: int, sent: float) -> None:
        call = self._search.future(self._requests[number], timeout=max(0.01, sent + _CALL_S - time.monotonic()))
        call.add_done_callback(partial(self._note, number, sent))

    def _note(self, number: int, sent: float, call: Any) -> None:
        """Keep the outcome of a call; ask again a moment later if the server is busy, as its clients do."""
        error, took_s = call.exception(), time.monotonic() - sent
        if error is not None and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and took_s < _CALL_S:
            self.retries += 1
            threading.Timer(_AGAIN_S, self._send, (number, sent)).start()
            return
        self.outcomes.append(Outcome(sent, took_s, error.code().name if error else self._kind(call.result(), number)))

    def _kind(self, response: Any, number: int) -> str:
        if response.provenance.shards_answered < response.provenance.shards_total:
            return "partial"
        answer = [(each.item_id, each.score) for each in response.results[0].neighbours]
        return "right" if answer == self._expected[number] else "wrong"


def asked_of(version: IndexVersion) -> NDArray[np.float32]:
    """Return queries (64, dimension), photos of the gallery that are not quite themselves."""
    rows = np.linspace(0, version.manifest.items - 1, _QUERIES).astype(int)
    noise = np.random.default_rng(0).standard_normal((_QUERIES, version.manifest.dimension))
    queries = version.embeddings[rows] + 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    return unit


def expected(version: IndexVersion, queries: NDArray[np.float32]) -> list[Answer]:
    with LocalEngine.open(version) as engine:
        hits = engine.search(queries, version.manifest.k).hits
    return [
        list(zip(version.items.take(ids.tolist())[0], scores.tolist(), strict=True))
        for ids, scores in zip(hits.ids, hits.scores, strict=True)
    ]


def degraded_s(outcomes: Sequence[Outcome], fault: float) -> float:
    """Return how long after a fault calls still failed, or took more than a quarter of a second."""
    bad = [each.sent + each.took_s for each in outcomes if each.kind != "right" or each.took_s > _SLOW_S]
    return max([0.0, *(moment - fault for moment in bad)])


def processes(node: str | None = None) -> dict[str, int]:
    """Return the replicas, on a node or on all, and their processes. This process must be connected."""
    import ray  # noqa: PLC0415 (an extra)

    names = [name for name in ray.util.list_named_actors() if name.count("/") == 2 and (node or "") in name]
    pids = [ray.get_actor(name).__ray_call__.remote(lambda _: os.getpid()) for name in names]
    return dict(zip(names, ray.get(pids, timeout=60), strict=True))


def kill_node(node: Any) -> None:
    """Kill a node with all that runs on it, as a power cut would."""
    victims = processes(node.node_id)
    node.kill_raylet(check_alive=False)
    for pid in victims.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def served(address: str, index: Path, work: Path, replicas: int) -> Iterator[str]:
    """Serve an index with engine `ray` while the block lasts; yield the server's address once it is healthy."""
    flags = ["--engine", "ray", "--ray-address", address, "--replicas", str(replicas), "--read-only"]
    with running("search", work, "--index", index, *flags) as server:
        yield server.address()
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, metavar="DIR", default=_WORK, help="folder for what it makes")
    _show(parser.parse_args().work.resolve())


def _show(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copytree(shipped.gallery(), work / "index")
    version = IndexVersion.open(work / "index")
    say(style("bold", "\nvmmr, on a cluster of two nodes\n"))
    with ExitStack() as stack:
        with step("nodes") as starting:
            cluster = stack.enter_context(ray_nodes(2))
            starting.result = f"two nodes, whose head is at {cluster.address}"
        with step("serve") as starting:
            address = stack.enter_context(served(cluster.address, work / "index", work, 2))
            starting.result = f"{version.manifest.items} photos, two replicas of each shard, on {address}"
        connect(cluster.address)
        _ask(Load(address, version), next(iter(cluster.worker_nodes)))


def _ask(load: Load, victim: Any) -> None:
    load.start()
    with step("ask") as asking:
        time.sleep(5)
        asking.result = f"{load.counts()['right']} answers, at 50 a second, those of one machine to the bit"
    with step("kill") as killing:
        fault = time.monotonic()
        kill_node(victim)
        time.sleep(10)
        load.stop()
        after = load.since(fault)
        failed = sum(each.kind != "right" for each in after)
        killing.result = (
            f"a node, under load: of {len(after)} answers since then {failed} lack or differ, "
            f"and none is late from {degraded_s(after, fault):.2f} s on"
        )
    if failed or load.counts()["wrong"]:
        raise CommandError(f"not every answer was right: {dict(load.counts())}")


if __name__ == "__main__":
    cli.run(main, "python -m demo.cluster")
