"""Ray clusters whose nodes are all on this machine: for tests, measurements and the demo."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

_MEMORY_BYTES = 80 * 2**20
"""Of a node's object store, the least that Ray allows: nothing that we send goes through it."""
_START_S = 240.0
_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@contextmanager
def ray_nodes(count: int, cores: int = 1, **head: Any) -> Iterator[Any]:
    """Yield a `ray.cluster_utils.Cluster` of so many nodes, each of which believes that it has so many cores.

    `head` are more arguments of its first node. The nodes end with the block.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray  # noqa: PLC0415 (takes seconds, and is an extra)
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    cluster = Cluster()
    try:
        for number in range(count):
            add_node(cluster, cores, **(head if number == 0 else {}))
        yield cluster
    finally:
        ray.shutdown()  # this process, if connected, cannot outlive its node
        cluster.shutdown()


def add_node(cluster: Any, cores: int = 1, **more: Any) -> Any:
    """Add a node to the cluster, and return it once it is alive."""
    size = {"num_cpus": cores, "object_store_memory": _MEMORY_BYTES}
    with _without_haste():
        return cluster.add_node(**size, include_dashboard=False, **_free_ports(), **more)


@contextmanager
def _without_haste() -> Iterator[None]:
    """Let a node that is started in this block take its time.

    Ray aborts it if a helper process has not written down its port in fifteen seconds, which a busy machine may need. Told the
    ports, it waits for one file all the same; and the process that starts the node gives it half a minute, whatever is set.
    """
    from ray._private import node, services  # noqa: PLC0415

    start: Any = node.Node.start_ray_processes
    find: Any = services.get_node

    def start_with_file(self: Any) -> None:
        port = self._ray_params.dashboard_agent_listen_port
        Path(self._session_dir, f"dashboard_agent_listen_port_{self._node_id}").write_text(str(port))
        start(self)

    def find_in_time(*about: Any) -> Any:
        end = time.monotonic() + _START_S
        while True:
            try:
                return find(*about)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    with (
        patch.object(node.Node, "start_ray_processes", start_with_file),
        patch.object(services, "get_node", find_in_time),
    ):
        yield


def _free_ports() -> dict[str, int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("", 0))) for _ in _PORTS]
        return {name: each.getsockname()[1] for name, each in zip(_PORTS, sockets, strict=True)}
