"""What does a backup copy, and how long does it take, beside a copy of the whole index? `python -m bench.gallery.backups`.

Of a gallery of 100,000 items of 256 floats that 1,000 writes were made to. In each round a few more items are written, and then, in turns: the index is copied whole, as a
backup without a memory would do it (`vmmr-search backup` to a new folder; and plain copies of its files, flushed, which verify nothing), and backed up to the folder
that has the backups before it. Times are CPU seconds of the process and of the kernel for it: what else the machine does hardly changes them.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib import machine
from bench.lib.paths import RESULTS
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.index.backup import back_up, restore
from search_svc.index.base import VersionBase
from search_svc.index.journal import StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add
from search_svc.voting.labels import parse
from svckit.artifact import flush

MODEL = "c0ffee" + 58 * "0"
LABELS = 200
OUT = RESULTS / "backups.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--before", type=int, default=1000, help="items written before the first backup")
    parser.add_argument("--between", type=int, default=100, help="items written before each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="vmmr-backups-") as folder:
        work = Path(folder)
        index = built(work / "index", args.items, args.dimension)
        add(index, args.before, args.dimension, "before")
        first, first_s = timed(lambda: back_up(index, str(work / "backups")))
        rounds = [measured(index, work, number, args) for number in range(args.rounds)]
        _, restore_s = timed(lambda: restore(str(work / "backups"), work / "restored"))
    result = {
        "machine": about,
        "items": args.items,
        "dimension": args.dimension,
        "written_between": args.between,
        "first": {"cpu_s": first_s, "mb": first.copied / 1e6},
        "restore_cpu_s": restore_s,
        "rounds": rounds,
        "summary": {name: spread([each[name] for each in rounds]) for name in rounds[0]},
    }
    print("\n".join(f"{name}: {value}" for name, value in result["summary"].items()))
    args.out.write_text(f"{json.dumps(result, indent=1)}\n")


def measured(index: Path, work: Path, number: int, args: argparse.Namespace) -> dict[str, float]:
    """Return what each way costs after some more items were written, and the ratios. The order changes with the rounds."""
    add(index, args.between, args.dimension, f"round {number}")
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: copied(index, work / "plain"),
        "whole": lambda: back_up(index, str(work / "whole")),
        "next": lambda: back_up(index, str(work / "backups")),
    }
    done = {name: timed(ways[name]) for name in (list(ways) if number % 2 else list(reversed(ways)))}
    unchanged, unchanged_s = timed(lambda: back_up(index, str(work / "backups")))
    for name in ("plain", "whole"):
        shutil.rmtree(work / name)
    (whole, whole_s), (following, next_s), (plain, plain_s) = (done[name] for name in ("whole", "next", "plain"))
    return {
        "whole_cpu_s": whole_s,
        "whole_mb": whole.copied / 1e6,
        "plain_cpu_s": plain_s,
        "plain_mb": plain / 1e6,
        "next_cpu_s": next_s,
        "next_mb": following.copied / 1e6,
        "unchanged_cpu_s": unchanged_s,
        "unchanged_mb": unchanged.copied / 1e6,
        "next / whole, CPU": next_s / whole_s,
        "next / whole, bytes": following.copied / whole.copied,
        "next / plain, CPU": next_s / plain_s,
    }


def timed(do: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    done = do()
    return done, time.process_time() - before


def copied(index: Path, place: Path) -> int:
    """Copy the files of an index and flush them; return their bytes."""
    shutil.copytree(index, place)
    flush(place)
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def spread(values: list[float]) -> dict[str, float]:
    return {"value": statistics.median(values), "least": min(values), "most": max(values)}


def built(index: Path, items: int, dimension: int) -> Path:
    rng = np.random.default_rng(0)
    labels = [parse(f"make{number % 20}_model{number}_2015") for number in range(LABELS)]
    build_version(
        index,
        BuildSource(
            embeddings=rng.standard_normal((items, dimension)).astype(np.float16),
            rows=np.arange(items),
            item_ids=[f"photos/{number:07d}.jpg" for number in range(items)],
            labels=[labels[number * LABELS // items] for number in range(items)],
            uris=[f"photos/{number:07d}.jpg" for number in range(items)],
            model=MODEL,
            model_name="bench",
        ),
        IndexSpec(),
    )
    return index


def add(index: Path, count: int, dimension: int, name: str) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, dimension)).astype("<f2")
    base = VersionBase(IndexVersion.open(index, verify=False))
    writer = JournalWriter(index, lambda: base)
    items = {
        f"{name}: {row}": StoredItem("make1_model1_2015", "", "", {}, vector.tobytes())
        for row, vector in enumerate(vectors)
    }
    (outcome,) = writer.commit([Add(items)])
    assert not isinstance(outcome, Exception), outcome
    writer.close()


if __name__ == "__main__":
    main()
