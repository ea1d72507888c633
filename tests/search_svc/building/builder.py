"""A build of small chunks, with a checkpoint after each, that can be stopped anywhere: `python builder.py INDEX JSON`.

JSON: `spec`, the fields of an IndexSpec; `processes`; `stop`: [function, times], where it says "here" and waits to be killed;
or `one_worker_starts`: a file to be made by the one worker that does; others never come as far as that.
The workers of a build are spawned, and run this file as well, so what is changed here is changed in them.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest

from search_svc.building import build_source as gallery
from search_svc.building import checkpoints, shard_files
from search_svc.building.spec import IndexSpec
from search_svc.voting.labels import parse
from svckit import cli
from tests.search_svc.builds import build_version

ITEMS = 400


@contextlib.contextmanager
def small_steps():
    with pytest.MonkeyPatch.context() as patch:
        for module in (gallery, shard_files):
            patch.setattr(module, "_CHUNK_ROWS", 32)
        patch.setattr(checkpoints, "_INTERVAL_S", 0.0)
        patch.setattr(checkpoints, "_TIME_SHARE", 1e9)
        faiss.omp_set_num_threads(1)
        yield


def build_it(index, spec, processes=1, **changes):
    names = [str(row) for row in range(ITEMS)]
    shorter = np.linspace(2, 1, ITEMS)[:, None]  # the longest are in the parts that come first
    vectors = (shorter * np.random.default_rng(0).normal(size=(ITEMS, 8)).clip(-1, 1)).astype(np.float32)
    labels = [parse(f"honda_pilot_{2000 + row % 7}") for row in range(ITEMS)]
    inputs = {
        "embeddings": vectors,
        "item_ids": names,
        "labels": labels,
        "uris": names,
        "model": "m",
        "model_name": "n",
    }
    return build_version(index, **inputs | changes, spec=IndexSpec(**spec), processes=processes)


def stop_after(name, times):
    """The function, done for the so-manieth time in a process, is not left."""
    place, _, function = name.rpartition(":")
    module, _, kind = place.partition("/")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    original = getattr(owner, function)
    before = iter(range(times - 1))

    def stopping(*args, **kwargs):
        result = original(*args, **kwargs)
        if next(before, None) is None:
            os.write(sys.stdout.fileno(), b"here\n")  # in one piece: another process says it at the same moment
            threading.Event().wait()
        return result

    setattr(owner, function, stopping)


def main():
    with small_steps():
        cli.run(lambda: build_it(Path(sys.argv[1]), ARGUMENTS["spec"], ARGUMENTS["processes"]), "builder")


if __name__ in {"__main__", "__mp_main__"}:
    ARGUMENTS = json.loads(sys.argv[2])
    if "stop" in ARGUMENTS:
        stop_after(*ARGUMENTS["stop"])
if __name__ == "__main__":
    main()
if __name__ == "__mp_main__":
    if "one_worker_starts" in ARGUMENTS:
        try:
            Path(ARGUMENTS["one_worker_starts"]).touch(exist_ok=False)
        except FileExistsError:
            threading.Event().wait()
    small = small_steps()
    small.__enter__()  # for as long as the process runs
