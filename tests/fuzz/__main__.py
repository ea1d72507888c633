"""Fuzzes what others may send, and what a disk may damage: `python -m tests.fuzz [--executions N] [--targets NAME,...]`.

Each target runs in a process of its own, guided by the coverage of our Python code (atheris, libFuzzer), from its corpus. An error that is not a
named refusal is told once, by its place, with an input that shows it in `--findings`; the run goes on. So it does after a crash of the process, which
is a finding, too. Prints a table, and stores it with `--out`. Exit code 1 if anything was found.

Inputs that were found, and mended, belong into the corpus: tests/fuzz/test_fuzz.py tries it each time.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.lib import machine
from tests.fuzz.weights import WEIGHTS

ROOT = Path(__file__).parents[2]
_MOST_CRASHES = 5
_COVERAGE = re.compile(r"cov: (\d+)")


@dataclass
class Run:
    """What came of a target."""

    target: str
    executions: int = 0
    cpu_s: float = 0.0
    coverage: int = 0
    """Edges of our Python code that were reached, as libFuzzer counts them."""
    findings: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--executions", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="stop after so long, each target after its part; 0: never"
    )
    parser.add_argument("--targets", metavar="NAME,...", default=",".join(WEIGHTS))
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "vmmr-fuzz-findings")
    parser.add_argument("--out", type=Path, metavar="JSON", help="store the table, added to what is there")
    args = parser.parse_args()
    names = args.targets.split(",")
    whole = sum(WEIGHTS[name] for name in names)
    args.findings.mkdir(parents=True, exist_ok=True)
    runs = []
    for name in names:
        runs.append(fuzz(name, round(args.executions * WEIGHTS[name] / whole), args))
        show(runs[-1])
    print(f"{sum(run.executions for run in runs)} executions")
    if args.out:
        runs = added(runs, args.out)
        about = {"machine": machine.describe(), "seed": args.seed, "executions": sum(run.executions for run in runs)}
        args.out.write_text(
            json.dumps({**about, "targets": {run.target: asdict(run) for run in runs}}, indent=1) + "\n"
        )
    sys.exit(any(run.findings for run in runs))


def fuzz(name: str, executions: int, args: argparse.Namespace) -> Run:
    """Run a target until it was executed so often, again if its process crashes."""
    run, found = Run(name), args.findings / name.replace(" ", "-")
    seconds = round(60 * args.minutes / len(args.targets.split(",")))
    found.mkdir(exist_ok=True)
    for attempt in range(_MOST_CRASHES):
        left = executions - run.executions
        if left <= 0:
            break
        command = [sys.executable, "-m", "tests.fuzz.child", name, left, args.seed + attempt, found, seconds]
        done = subprocess.run(
            [*map(str, command)], cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
        )
        (found / f"log-{attempt}").write_text(done.stdout + done.stderr)
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        run.findings += [f"{each['error']} ({each['input']})" for each in told if "error" in each]
        counted = [each for each in told if "executions" in each]
        run.executions += counted[-1]["executions"] if counted else 0
        run.cpu_s += counted[-1]["cpu_s"] if counted else 0.0
        run.coverage = max([run.coverage, *map(int, _COVERAGE.findall(done.stderr))])
        if done.returncode:
            run.findings.append(f"the process ended with {done.returncode}: {found / f'log-{attempt}'}")
        elif args.minutes or not counted:
            break
    return run


def added(runs: list[Run], path: Path) -> list[Run]:
    """Return the runs together with those that are stored."""
    stored = json.loads(path.read_text())["targets"] if path.exists() else {}
    together = {name: Run(**fields) for name, fields in stored.items()}
    for run in runs:
        before = together.get(run.target, Run(run.target))
        together[run.target] = Run(
            run.target,
            before.executions + run.executions,
            round(before.cpu_s + run.cpu_s, 1),
            max(before.coverage, run.coverage),
            before.findings + run.findings,
        )
    return list(together.values())


def show(run: Run) -> None:
    per_s = run.executions / run.cpu_s if run.cpu_s else 0.0
    print(
        f"{run.target:20} {run.executions:8} executions, {per_s:7.0f} a CPU second, {run.coverage:5} edges, {len(run.findings)} findings"
    )
    for finding in run.findings:
        print(f"    {finding}", flush=True)


if __name__ == "__main__":
    main()
