"""Makes a Ray cluster fail while it is asked, and compares every answer.

    python -m tests.cluster

Two nodes on this machine hold a gallery in two shards, and a server is asked 50 times a second. A replica is killed, one is stopped, a
node is killed as by a power cut and another added, and the head's GCS is killed. With two replicas no call may fail or lack a shard; with one,
calls are refused, or partial and say so, until there is a replica again. No answer may ever be wrong. Prints a line for each fault, and
writes them as JSON to a file; exit code 1 if anything is not as it must be.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from demo.cluster import Load, degraded_s, kill_node, processes, served
from demo.ray_nodes import add_node, ray_nodes
from search_svc.building.spec import IndexSpec
from search_svc.engine.cluster.connection import connect
from search_svc.index.version import IndexVersion
from search_svc.voting.labels import parse
from tests.search_svc.builds import build_version

PHOTOS, DIMENSION, SHARDS = 20_000, 256, 2
WAIT_S = 300.0
QUIET_S = 5.0
REFUSED = "DEADLINE_EXCEEDED"


class Trial:
    """One server with so many replicas, and what became of its calls around each fault."""

    def __init__(self, cluster: Any, load: Load, replicas: int) -> None:
        self.cluster, self.load, self.replicas = cluster, load, replicas
        self.found: list[dict[str, Any]] = []

    def run(self) -> None:
        self.fault("a replica is killed", lambda: self._signal(signal.SIGKILL))
        self.fault("a replica is stopped for 10 s", self._stop_one)
        self.fault("a node is killed, and another added", self._replace_node)
        if self.replicas > 1:
            self.fault("the GCS is killed, and started again after 5 s", self._restart_gcs)

    def fault(self, name: str, make: Callable[[], None]) -> None:
        moment, retries = time.monotonic(), self.load.retries
        make()
        self._settle()
        after = self.load.since(moment)
        counts = Counter(each.kind for each in after)
        found = {
            "replicas": self.replicas,
            "fault": name,
            "calls": len(after),
            "retries": self.load.retries - retries,
            **counts,
            "longest_s": round(max(each.took_s for each in after), 2),
            "degraded_s": round(degraded_s(after, moment), 2),
            "well": self._well(counts),
        }
        self.found.append(found)
        print(json.dumps(found), flush=True)

    def _well(self, counts: Counter[str]) -> bool:
        allowed = {"right"}
        if self.replicas == 1:
            allowed |= {"partial", REFUSED} if self.load.allow_partial else {REFUSED}
        return bool(counts["right"]) and counts.keys() <= allowed

    def _settle(self) -> None:
        """Wait until every replica that there should be answers, and calls have been answered for a while."""
        until(lambda: len(processes()) == SHARDS * self.replicas)
        quiet = time.monotonic()
        until(
            lambda: (late := self.load.since(quiet)) and time.monotonic() > quiet + QUIET_S and late[-1].kind == "right"
        )

    def _signal(self, number: int) -> int:
        pid = min(processes().values())
        os.kill(pid, number)
        return pid

    def _stop_one(self) -> None:
        pid = self._signal(signal.SIGSTOP)
        time.sleep(10)
        os.kill(pid, signal.SIGCONT)

    def _replace_node(self) -> None:
        """Kill a node that is not the head, one with a replica if that may be chosen."""
        (victim,) = self.cluster.worker_nodes
        kill_node(victim)
        until(lambda: victim.node_id not in alive())
        self.cluster.worker_nodes.clear()
        add_node(self.cluster)

    def _restart_gcs(self) -> None:
        self.cluster.head_node.kill_gcs_server()
        time.sleep(5)
        self.cluster.head_node.start_gcs_server()


def built(index: Path) -> IndexVersion:
    vectors = np.random.default_rng(0).standard_normal((PHOTOS, DIMENSION)).astype(np.float32)
    return build_version(
        index,
        embeddings=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        item_ids=[f"photo {row}" for row in range(PHOTOS)],
        labels=[parse(f"make_model {row % 100}_2000") for row in range(PHOTOS)],
        uris=[""] * PHOTOS,
        model=64 * "c",
        model_name="test",
        spec=IndexSpec("Flat", shards=SHARDS, k=10),
    )


def alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        error = None
        try:
            if condition():
                return
        except RayError as unavailable:  # what is asked is just being restarted
            error = unavailable
        if time.monotonic() > end:
            raise TimeoutError from error
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="vmmr-cluster-") as directory:
        work = Path(directory)
        # The GCS writes down what it knows, and finds it when it is started again.
        os.environ |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": f"{directory}/gcs"}
        version = built(work / "index")
        for replicas, allow_partial in ((2, False), (1, False), (1, True)):
            shutil.rmtree(work / "gcs", ignore_errors=True)
            with ray_nodes(2) as cluster, served(cluster.address, work / "index", work, replicas) as address:
                connect(cluster.address)
                load = Load(address, version, allow_partial)
                load.start()
                try:
                    trial = Trial(cluster, load, replicas)
                    trial.run()
                finally:
                    load.stop()
                found += trial.found
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(each["well"] for each in found) else 1)


if __name__ == "__main__":
    main()
