"""Every ratio of what is served to what it stands on, in one table: `python -m bench.all [--only NAME ...]`, or `make bench`.

Runs the benches one after the other, each of which compares in turns within its own run, and leaves its own figures in
bench/results/. The table is also in bench/results/all.json, with the machine. A bench that fails is an error by its name, as is a peer that was not measured; the others run all the same. Twenty minutes; nothing else should run meanwhile.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT

MODULES = {
    "embedder": "bench.embedder.serving",
    "workers": "bench.pair.workers",
    "serving": "bench.search.serving",
    "chain": "bench.pair.chain",
    "overload": "bench.embedder.overload",
    "peers": "bench.pair.peers",
}
"""The module of each bench, by the name of its figures."""


@dataclass(frozen=True)
class Ratio:
    """A median over rounds, with the least and the most where the bench tells them."""

    bench: str
    what: str
    value: float
    least: float | None = None
    most: float | None = None
    target: str = ""
    """`>= 0.96`, or nothing where none is set."""

    @property
    def met(self) -> bool | None:
        if not self.target:
            return None
        sign, limit = self.target.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(READ), metavar="NAME", help=f"of {', '.join(READ)}")
    parser.add_argument("--no-run", action="store_true", help="only read what is in --results")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    names = args.only or list(READ)
    about = machine.describe()
    ends = {name: "" if args.no_run else ran(name, args.results) for name in names}
    lacking = {name: "there are no figures" for name in names if not figures(name, args.results).exists()}
    wrong = lacking | {name: end for name, end in ends.items() if end}
    wrong |= absent_peers(args.results) if "peers" in names else {}
    found = [ratio for name in names for ratio in read(name, args.results)]
    print(table(about, found))
    out = {"machine": about, "ratios": [{**asdict(ratio), "met": ratio.met} for ratio in found], "wrong": wrong}
    (args.results / "all.json").write_text(json.dumps(out, indent=1) + "\n")
    if wrong:
        sys.exit("; ".join(f"{name}: {why}" for name, why in wrong.items()))


def figures(name: str, results: Path) -> Path:
    return results / f"{name}.json"


def ran(name: str, results: Path) -> str:
    """Run a bench anew. Return what went wrong, or nothing."""
    out = figures(name, results)
    print(f"--- {name}", file=sys.stderr, flush=True)
    out.unlink(missing_ok=True)  # figures of an earlier run must not pass for this one's
    began = time.monotonic()
    code = subprocess.run([sys.executable, "-m", MODULES[name], "--out", out], cwd=ROOT, check=False).returncode
    print(f"--- {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return f"ended with {code}" if code else ""


def read(name: str, results: Path) -> Iterator[Ratio]:
    if figures(name, results).exists():
        yield from READ[name](json.loads(figures(name, results).read_text()))


def absent_peers(results: Path) -> dict[str, str]:
    """Return why peers are absent, by name: a table without them must not pass for one of all peers."""
    path = figures("peers", results)
    absent = json.loads(path.read_text())["absent"] if path.exists() else {}
    return {f"peers, {name}": why.splitlines()[0] for name, why in absent.items()}


# --- what each bench has found ---


def of(bench: str, what: str, values: Sequence[float], target: str = "") -> Ratio:
    return Ratio(bench, what, statistics.median(values), min(values), max(values), target)


def embedder(result: Result) -> Iterator[Ratio]:
    for precision, figures in result["cases"].items():
        for what, values in figures.items():
            if what.startswith("served / raw"):
                yield of("embedder", f"{precision}: {what}", values, ">= 0.96" if precision == "fp32" else ">= 0.93")
        what = "at 70 %, p99 / raw single"
        yield of("embedder", f"{precision}: {what}", figures[what], "<= 2.5")
    if {"int8", "fp32"} <= result["cases"].keys():
        rates = [statistics.median(result["cases"][name]["raw images/s"]) for name in ("int8", "fp32")]
        target = ">= 3" if result["vnni"] else ""
        yield Ratio("embedder", "int8 / fp32, raw images/s", rates[0] / rates[1], target=target)


def workers(result: Result) -> Iterator[Ratio]:
    for case, found in result["cases"].items():
        for way, figures in found["two workers against"].items():
            for figure in ("calls_per_s", "calls_per_cpu_s"):
                median, least, most = figures[figure]
                yield Ratio("workers", f"{case}: two workers / {way}, {figure}", median, least, most)


def serving(result: Result) -> Iterator[Ratio]:
    for case in result["cases"]:
        for what, values in case["figures"].items():
            if what.startswith("served / faiss") or what == "64 callers / one by one":
                yield of("serving", f"{case['name']}: {what}", values)


def chain(result: Result) -> Iterator[Ratio]:
    for name in ("identify", "identify, async"):
        what = f"{name}: all else, ms"
        yield of("chain", f"{name}, p50 less the network's, ms", result["figures"][what], "<= 3")
    for name in ("identify_many", "identify_many, async"):
        what = f"{name} / the slower service alone"
        yield of("chain", what, result["figures"][what], ">= 0.9")


def overload(result: Result) -> Iterator[Ratio]:
    def within(figure: float | None) -> float:
        return math.inf if figure is None else figure

    yield Ratio("overload", "goodput at 3x / peak", result["goodput_of_peak"], target=">= 0.9")
    # None: nobody was refused, though two of three should have been; or it never recovered.
    yield Ratio("overload", "refusals, p99, ms", within(result["refused_p99_ms"]), target="<= 50")
    yield Ratio("overload", "recovery, s", within(result["recovery_s"]), target="<= 2")
    yield Ratio("overload", "growth of memory", result["memory_growth"])


def peers(result: Result) -> Iterator[Ratio]:
    for name, found in result["ratios"].items():
        equal = found["throughput_at_equal_p99"]
        # None: vmmr never had a p99 as low, which is behind by any measure.
        yield Ratio("peers", f"vmmr / {name}, photos/s at equal p99", equal or 0.0, target=">= 1")
        yield Ratio("peers", f"{name} / vmmr, p50 of one caller", found["p50_of_one_caller"], target=">= 1")
        yield Ratio("peers", f"{name} / vmmr, CPU of a photo", found["cpu_of_a_photo"])


READ: dict[str, Callable[[Result], Iterator[Ratio]]] = {
    "embedder": embedder,
    "workers": workers,
    "serving": serving,
    "chain": chain,
    "overload": overload,
    "peers": peers,
}


# --- telling ---


def table(about: dict[str, Any], found: Sequence[Ratio]) -> str:
    lines = [
        machine.line(about),
        "",
        "| bench | what | ratio | least to most | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [row(ratio) for ratio in found])


def row(ratio: Ratio) -> str:
    span = "" if ratio.least is None or ratio.most is None else f"{ratio.least:.2f} to {ratio.most:.2f}"
    met = {None: "", True: "met", False: "**missed**"}[ratio.met]
    return f"| {ratio.bench} | {ratio.what} | {ratio.value:.2f} | {span} | {ratio.target} | {met} |"


if __name__ == "__main__":
    main()
