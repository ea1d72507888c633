"""The connection to a Ray cluster, for commands that spread their work over one."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from svckit.cli import CommandError
from svckit.extras import needing

_REACHED_WITHIN_S = 5.0


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect this process, on a node of the cluster at HOST:PORT, to it, and yield the module `ray`; what it started there ends with the block.

    Raise CommandError if Ray is not installed, or there is no cluster.
    """
    ray = connect(address, "--ray")
    try:
        yield ray
    finally:
        ray.shutdown()


def connect(address: str, flag: str, **options: Any) -> Any:
    """Connect this process as above, with these options of `ray.init`, until it calls `ray.shutdown`; return the module `ray`.

    Raise CommandError, naming the flag.
    """
    ray = check(address, flag)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise CommandError(f"{flag}: there is no Ray cluster at {address}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray takes it
    return ray


def check(address: str, flag: str = "--ray") -> Any:
    """Return the module `ray`. Raise CommandError, naming the flag, if it is not installed, or nothing listens at HOST:PORT: Ray itself would try for minutes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needing("ray", CommandError):
        import ray  # noqa: PLC0415 (it takes seconds, and is an extra)
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise CommandError(f"{flag} must be HOST:PORT, got {address}")
    try:
        socket.create_connection((host, int(port)), _REACHED_WITHIN_S).close()
    except OSError as error:
        raise CommandError(f"{flag}: there is no Ray cluster at {address}: {error.strerror or error}") from error
    return ray


def result(ray: Any, reference: Any, work: str) -> Any:
    """Return what a task returned. Raise what it raised, or CommandError if Ray gave it up; `work` names it then."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise CommandError(f"Ray gave up on {work}: {error}") from error


def put(ray: Any, value: Any) -> bytes:
    """Put a value into the cluster's object store, for as long as this process is connected, and return what `get` finds it by."""
    # Pickled: of a plain reference, Ray would warn that no actor can be started again once it is lost, which it is with this process alone.
    pickled: bytes = ray.cloudpickle.dumps(ray.put(value))
    return pickled


def get(reference: bytes) -> Any:
    """Return a value of the object store, in a process of the cluster."""
    import ray  # noqa: PLC0415 (an extra, which such a process has)

    return ray.get(ray.cloudpickle.loads(reference))


def room(nodes: Sequence[Mapping[str, Any]], needed: Mapping[str, float]) -> int:
    """Return how many processes that need so much each the nodes, as `ray.nodes` gives them, have room for in all."""
    return sum(
        int(min(node["Resources"].get(kind, 0) / amount for kind, amount in needed.items() if amount))
        for node in nodes
        if node["Alive"]
    )
