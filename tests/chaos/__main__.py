"""Faults under load: a real pair and a reader of the same gallery, asked by the SDK, while what they stand on fails.

    python -m tests.chaos --faults 30 --minutes 60 --out bench/results/chaos.json

The servers run in a network namespace of their own, their gallery on a small disk of its own, under a clock of their own, as far as the machine allows (root, `ip`,
libfaketime); faults that it does not allow are named and left out. Callers add items, ask both search servers for items that were acknowledged, and have photos identified. Each fault has three
parts of equal length: before, during and after. At the end every acknowledged item must be there, on the disk and in the answers of a server that is started anew. Exit code 1 if one is lost,
if any answer was wrong, or if calls do not succeed again after a fault.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.lib import machine
from bench.lib.paths import RESULTS
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.load import PARTS, Load
from tests.chaos.stage import Stage

PATIENCE_S = 120.0
"""Longest time after a fault until all calls succeed again, on a machine that does other work, too."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument(
        "--minutes", type=float, default=60, help="for all of them; each gets its share, in three parts"
    )
    parser.add_argument("--kinds", default="", help="of FAULTS, separated by commas; default: all, in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="JSON")
    args = parser.parse_args()
    part_s = 60 * args.minutes / args.faults / len(PARTS)
    kinds = order(args)
    needs = {FAULTS[kind].needs for kind in kinds}
    needs |= {"disk"} if "throttle" in needs else set()
    with tempfile.TemporaryDirectory(prefix="vmmr-chaos-") as work, Stage(Path(work), needs) as stage:
        result = run(stage, kinds, part_s, args.seed)
    print(table(result))
    if args.out:
        args.out.write_text(f"{json.dumps(result, indent=1)}\n")
    sys.exit(not well(result))


def order(args: argparse.Namespace) -> list[str]:
    """Return the kinds of faults, each as often as the others, in any order."""
    kinds = [kind for kind in args.kinds.split(",") if kind] or list(FAULTS)
    rng, found = random.Random(args.seed), list[str]()
    while len(found) < args.faults:
        found += rng.sample(kinds, len(kinds))
    return found[: args.faults]


def run(stage: Stage, kinds: list[str], part_s: float, seed: int) -> dict:
    left_out = {kind: why for kind in dict.fromkeys(kinds) if (why := FAULTS[kind].impossible(stage))}
    for kind, why in left_out.items():
        print(f"left out: {kind}: {why}", file=sys.stderr)
    stage.start()
    load = Load(stage, seed)
    load.start()
    try:
        done = [one(stage, load, FAULTS[kind], part_s) for kind in kinds if kind not in left_out]
    finally:
        load.stop()
    stage.restart("writer")
    lost = load.lost()
    return {
        "machine": machine.describe(),
        "part_s": part_s,
        "faults": done,
        "left_out": left_out,
        "acknowledged": len(load.acknowledged),
        "lost": len(lost),
        "wrong": load.wrong,
        "calls": len(load.calls),
    }


def one(stage: Stage, load: Load, fault: Fault, part_s: float) -> dict:
    """Make one fault, and return what the callers saw before, during and after."""
    times = [time.monotonic()]
    time.sleep(part_s)
    times.append(time.monotonic())
    with fault.made(stage):
        time.sleep(part_s)
    times.append(time.monotonic())
    recovered_s = load.recovered(times[-1], patience_s=PATIENCE_S)
    time.sleep(max(0.0, part_s - (time.monotonic() - times[-1])))
    times.append(time.monotonic())
    parts = {name: load.figures(*span) for name, span in zip(PARTS, itertools.pairwise(times), strict=True)}
    figures = {"fault": fault.name, "recovered_s": recovered_s, **parts}
    print(f"{fault.name}: again well after {recovered_s} s; " + told(parts), file=sys.stderr, flush=True)
    return figures


def told(parts: dict) -> str:
    return ", ".join(
        f"{name} {part['good_per_s']:.1f}/s {part['errors'] or ''}".strip() for name, part in parts.items()
    )


def well(result: dict) -> bool:
    stuck = [each["fault"] for each in result["faults"] if each["recovered_s"] is None]
    return not (result["lost"] or result["wrong"] or stuck) and bool(result["faults"])


def table(result: dict) -> str:
    rows = [
        "| fault | good calls/s before | during | after | well again after, s | errors during and after, by reason |"
    ]
    rows.append("|---|---|---|---|---|---|")
    rows += map(row, result["faults"])
    rows.append("")
    rows.append(
        f"{len(result['faults'])} faults, {result['calls']} calls, {result['acknowledged']} items acknowledged: "
        f"lost = {result['lost']}, wrong answers = {result['wrong']}"
    )
    return "\n".join([*rows, *(f"left out: {kind}: {why}" for kind, why in result["left_out"].items())])


def tables() -> None:
    """Print what is stored, a row for each kind of fault, as docs/live.md has it."""
    kinds: dict[str, list[dict]] = {}
    for each in json.loads((RESULTS / "chaos.json").read_text())["faults"]:
        kinds.setdefault(each["fault"], []).append(each)
    for kind, faults in sorted(kinds.items()):
        good = " | ".join(f"{statistics.median(each[name]['good_per_s'] for each in faults):.1f}" for name in PARTS)
        again = [each["recovered_s"] for each in faults]
        print(f"| {kind} | {len(faults)} | {good} | {min(again):.1f} to {max(again):.1f} |")


def row(each: dict) -> str:
    good = " | ".join(f"{each[name]['good_per_s']:.1f}" for name in PARTS)
    errors = dict(each["during"]["errors"])
    for reason, number in each["after"]["errors"].items():
        errors[reason] = errors.get(reason, 0) + number
    named = ", ".join(f"{reason} {number}" for reason, number in sorted(errors.items())) or "none"
    again = "never" if each["recovered_s"] is None else f"{each['recovered_s']:.1f}"
    return f"| {each['fault']} | {good} | {again} | {named} |"


if __name__ == "__main__":
    main()
