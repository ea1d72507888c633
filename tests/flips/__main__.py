"""Flips one bit at a time in every file of small indexes, and looks for answers that are wrong without a word.

    python -m tests.flips --most 1000000 --tools 100 --out bench/results/flips.json

Of each file up to --most places are tried, one bit at every byte if it has no more, else a seeded sample; each as a server
opens it, and some of them with `backup`, `compact`, `repair` and `rollback`. Exit code 1 if anything is answered wrong, or refused without naming the
file and the way out. The lines of a file are printed, and added to --out, as soon as it is done: all of it takes hours, and the same command goes on where it
was stopped; once it has ended, it begins anew.
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

Count = collections.Counter[str]
"""How often each kind came of a flipped bit."""
_CHUNK = 40
_FEW = 50
"""Places of a file that is made anew at every start."""
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
    parser.add_argument(
        "--out", type=Path, metavar="JSON", help="a file for the table, and for what was silent or a riddle"
    )
    args = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="vmmr-flips-", dir=memory if memory.is_dir() else None) as directory:
        sys.exit(0 if flip_all(Path(directory), args) else 1)


def flip_all(directory: Path, args: argparse.Namespace) -> bool:
    """Flip bits, print what came of it, and return whether every answer was right or refused by name with a way out."""
    table, started = begun(args), time.monotonic()
    print(HEAD, *map(line, table["rows"]), sep="\n")
    done = {(each["index"], each["file"]) for each in table["rows"]}
    of_files = itertools.groupby(trials(directory, args, done), key=lambda trial: (trial[1][0].scene, trial[1][0].file))
    for (scene, file), tried in of_files:
        counts: dict[str, Count] = {"served": collections.Counter(), "commands": collections.Counter()}
        for way, places, outcomes in tried:
            for place, outcome in zip(places, outcomes, strict=True):
                counts["served" if way == "serve" else "commands"][outcome.kind] += 1
                if outcome.kind in (SILENT, RIDDLE):
                    table["bad"].append({"way": way, **vars(place), **vars(outcome)})
        found = [row(scene, file, how, count) for how, count in counts.items() if count]
        table["rows"] += found
        table["seconds"] += round(time.monotonic() - started)
        started = time.monotonic()
        print(*map(line, found), sep="\n", flush=True)
        store(table, args)
    store(table | {"ended": True}, args)
    print(line(row("", "", "", total(table["rows"]))))
    for each in table["bad"][:: max(1, len(table["bad"]) // 20)]:
        print("{kind}: {way} of {scene}/{file}, byte {offset} bit {bit}: {told}".format_map(each))
    print(f"{table['seconds']} s, seed {args.seed}")
    return not table["bad"]


def begun(args: argparse.Namespace) -> dict[str, Any]:
    """Return the table that a run with the same settings was stopped at, or an empty one."""
    settings = {name: getattr(args, name) for name in ("most", "tools", "only", "seed", "ways")}
    new = {"machine": machine.describe(), "settings": settings, "ended": False, "seconds": 0, "rows": [], "bad": []}
    stored = json.loads(args.out.read_text()) if args.out and args.out.exists() else new
    return stored if stored["settings"] == settings and not stored["ended"] else new


def store(table: dict[str, Any], args: argparse.Namespace) -> None:
    if args.out:
        stored = table | {"all": row("", "", "", total(table["rows"]))}
        args.out.write_text(f"{json.dumps(stored, indent=1)}\n")


def trials(
    directory: Path, args: argparse.Namespace, done: set[tuple[str, str]]
) -> Iterator[tuple[str, list[Place], list[Outcome]]]:
    """Yield what was tried, where, and what came of it, in the files that are not done."""
    scenes = build_all(directory)
    context = get_context("spawn")  # faiss and Arrow have threads
    with ProcessPoolExecutor(args.processes, context, initializer=prepare, initargs=(scenes, directory)) as pool:
        yield from pool.map(attempt_all, *zip(*tasks(scenes, args, done), strict=True))


def tasks(
    scenes: list[Scene], args: argparse.Namespace, done: set[tuple[str, str]]
) -> Iterator[tuple[str, list[Place]]]:
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
                for start in range(0, len(places) if (scene.name, name) not in done else 0, _CHUNK):
                    yield way, places[start : start + _CHUNK]


def row(scene: str, file: str, how: str, count: Count) -> dict[str, Any]:
    return {"index": scene, "file": file, "how": how, "places": count.total(), **{kind: count[kind] for kind in KINDS}}


def total(rows: list[dict[str, Any]]) -> Count:
    return sum((collections.Counter({kind: each[kind] for kind in KINDS}) for each in rows), collections.Counter())


def line(row: dict[str, Any]) -> str:
    kinds = " ".join(f"{row[kind]:8}" for kind in KINDS)
    return f"{row['index']:9} {row['file']:42} {row['how']:8} {row['places']:7} {kinds}"


if __name__ == "__main__":
    main()
