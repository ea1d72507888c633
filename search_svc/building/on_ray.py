"""Tasks of a build on a Ray cluster, each on a core of some node; they leave what they make on the storage that all nodes share."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from svckit import ray_cluster
from svckit.cli import CommandError

_RETRIES = 3
"""The times a task is run again whose process or node died."""
_LOOK_EVERY_S = 2.0


def run(ray: Any, tasks: Sequence[Callable[[], None]], at_once: int, meanwhile: Callable[[], None]) -> None:
    """Run the tasks, which are pickled, so many at a time; call `meanwhile` every few seconds, and at the end.

    A task may be run again, while a first run of it that Ray has lost sight of goes on. Raise what a task raises, or CommandError.
    """
    remote = ray.remote(_call).options(num_cpus=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")
    left, running = deque(tasks), list[Any]()
    while left or running:
        while left and len(running) < at_once:
            running.append(remote.remote(left.popleft()))
        ready, running = ray.wait(running, timeout=_LOOK_EVERY_S)
        for reference in ready:
            _end(ray, reference)
        meanwhile()


def _call(task: Callable[[], None]) -> None:
    task()


def _end(ray: Any, reference: Any) -> None:
    try:
        ray_cluster.result(ray, reference, "a part of the build")
    except FileNotFoundError as error:
        raise CommandError(
            f"{error.filename} is not there on a node of the cluster: with --ray, the index must be on storage that all nodes share, "
            "under the same path"
        ) from error
