"""Flips one bit at a time in every file of small indexes, and looks for answers that are wrong without a word.

    python -m tests.flips --most 1000000 --tools 100 --out bench/results/flips.json

Of each file up to --most places are tried, one bit at every byte if it has no more, else a seeded sample; each as a server
opens it, and some of them with `backup`, `compact`, `repair` and `rollback`. Exit code 1 if anything is answered wrong, or refused without naming the
file and the way out. The lines of a file are printed as soon as it is done.
"""

import argparse
import collections
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.lib import machine
from tests.flips.scenes import Scene, build_all
from tests.flips.trial import REFUSED, RIDDLE, RIGHT, SILENT, WAYS, Outcome, Place, files
from tests.flips.working import attempt_all, prepare

_CHUNK = 40
_FEW = 50
"""Places of a file that is made anew at every start."""
Counts = dict[tuple[str, str, str], collections.Counter[str]]
"""How often each kind came of the places of a file, by index, file and way."""
_NOT_READ = ("build.lock", "journal.lock")
KINDS = (RIGHT, REFUSED, RIDDLE, SILENT)
HEAD = f"{'index':9} {'file':42} {'':8} {'places':>7} " + " ".join(f"{kind:>8}" for kind in KINDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.flips", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--most", type=int, default=20_000, help="places of a file that are opened as a server does")
    parser.add_argument("--tools", type=int, default=500, help="places of a file that the commands are tried with")
    parser.add_argument("--only", default="", help="only files, with the scene before, that have this in their name")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", type=Path, help="a file for what was silent or a riddle, a line of JSON each")
    parser.add_argument("--out", type=Path, metavar="JSON", help="a file for the table")
    args = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="vmmr-flips-", dir=memory if memory.is_dir() else None) as directory:
        sys.exit(0 if flip_all(Path(directory), args) else 1)


def flip_all(directory: Path, args: argparse.Namespace) -> bool:
    """Flip bits, print what came of it, and return whether every answer was right or refused by name with a way out."""
    started, about = time.monotonic(), machine.describe()
    counts: Counts = collections.defaultdict(collections.Counter)
    bad: list[tuple[str, Place, Outcome]] = []
    print(HEAD)
    of_files = itertools.groupby(trials(directory, args), key=lambda trial: (trial[1][0].scene, trial[1][0].file))
    for (scene, file), tried in of_files:
        for way, places, outcomes in tried:
            for place, outcome in zip(places, outcomes, strict=True):
                counts[scene, file, way][outcome.kind] += 1
                if outcome.kind in (SILENT, RIDDLE):
                    bad.append((way, place, outcome))
        print(*lines(scene, file, counts), sep="\n", flush=True)
    print(line("", "", "", sum(counts.values(), collections.Counter())))
    for way, place, outcome in bad[:: max(1, len(bad) // 20)]:
        print(
            f"{outcome.kind}: {way} of {place.scene}/{place.file}, byte {place.offset} bit {place.bit}: {outcome.told}"
        )
    if args.list:
        bad_lines = (json.dumps([way, *vars(place).values(), *vars(outcome).values()]) for way, place, outcome in bad)
        args.list.write_text("".join(f"{told}\n" for told in bad_lines))
    seconds = round(time.monotonic() - started)
    if args.out:
        about |= {"most": args.most, "tools": args.tools, "only": args.only, "seed": args.seed, "seconds": seconds}
        args.out.write_text(f"{json.dumps({'machine': about, **result(counts)}, indent=1)}\n")
    print(f"{seconds} s, seed {args.seed}")
    return not bad


def result(counts: Counts) -> dict[str, Any]:
    """Return what is stored: a row for each file and each thing that was done with its index, and their sums."""
    rows = [
        {"index": scene, "file": file, "way": way, "places": count.total(), **{kind: count[kind] for kind in KINDS}}
        for (scene, file, way), count in counts.items()
    ]
    of_way = {
        way: {kind: sum(row[kind] for row in rows if row["way"] == way) for kind in ("places", *KINDS)} for way in WAYS
    }
    return {"all": {kind: sum(row[kind] for row in rows) for kind in ("places", *KINDS)}, "ways": of_way, "rows": rows}


def trials(directory: Path, args: argparse.Namespace) -> Iterator[tuple[str, list[Place], list[Outcome]]]:
    """What was tried, where, and what came of it."""
    scenes = build_all(directory)
    context = get_context("spawn")  # faiss and Arrow have threads
    with ProcessPoolExecutor(args.processes, context, initializer=prepare, initargs=(scenes, directory)) as pool:
        yield from pool.map(attempt_all, *zip(*tasks(scenes, args), strict=True))


def tasks(scenes: list[Scene], args: argparse.Namespace) -> Iterator[tuple[str, list[Place]]]:
    rng = random.Random(args.seed)
    for scene in scenes:
        for path in files(scene.index):
            name, size = str(path.relative_to(scene.index)), path.stat().st_size
            if name in _NOT_READ or args.only not in f"{scene.name}/{name}":
                continue
            for way in filter(args.ways.__contains__, scene.ways):
                most = _FEW if name.endswith("-shm") else args.most if way == "serve" else args.tools
                offsets = sorted(rng.sample(range(size), min(size, most)))
                places = [Place(scene.name, name, offset, rng.randrange(8)) for offset in offsets]
                for start in range(0, len(places), _CHUNK):
                    yield way, places[start : start + _CHUNK]


def lines(scene: str, file: str, counts: Counts) -> Iterator[str]:
    """Yield a line for a file of an index as it is served, and one as commands are given it."""
    served = counts.get((scene, file, "serve"))
    commands = sum(
        (counts[key] for key in counts if key[:2] == (scene, file) and key[2] != "serve"), collections.Counter()
    )
    if served:
        yield line(scene, file, "served", served)
    if commands:
        yield line(scene, file, "commands", commands)


def line(scene: str, file: str, how: str, count: collections.Counter[str]) -> str:
    return f"{scene:9} {file:42} {how:8} {count.total():7} " + " ".join(f"{count[kind]:8}" for kind in KINDS)


if __name__ == "__main__":
    main()
