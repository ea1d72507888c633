"""Run a load test: from parsed arguments to a table, files and an exit status."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from vmmr import _channel
from vmmr._channel import TLS
from vmmr._types import SearchOptions

from loadtest import compare
from loadtest.compare import Allowed
from loadtest.page import page
from loadtest.plan import Access, Closed, Load, Open, Plan
from loadtest.progress import Line
from loadtest.result import Result
from loadtest.run import run
from loadtest.table import table
from loadtest.workers import WorkerError

__all__ = ["WorkerError", "access", "compared", "test"]

MET, NOT_MET, UNPROVEN, INTERRUPTED = 0, 1, 4, 130
_CORES_A_PROCESS = 4


def test(args: argparse.Namespace, access: Access, options: SearchOptions) -> int:
    """Run the load test of these arguments and return its exit status.

    Raise ValueError or OSError if the plan makes no sense, or a VmmrError or a WorkerError.
    """
    plan = _plan(args, access, options)
    for path in (args.json, args.html):
        _check_writable(path)
    line = Line(plan)
    try:
        result = run(plan, (lambda *_: None) if args.quiet else line)
    finally:
        line.end()
    if args.json:
        args.json.write_text(json.dumps(asdict(result), indent=1) + "\n")
    if args.html:
        args.html.write_text(page(result))
    print(table(result), flush=True)
    return status(result)


def status(result: Result) -> int:
    if result.ended_early == "interrupted":
        return INTERRUPTED
    if result.unproven:
        return UNPROVEN
    return NOT_MET if result.failures else MET


def compared(args: argparse.Namespace) -> int:
    """Compare two results and return the exit status. Raise CannotCompareError, or OSError."""
    allowed = Allowed(args.max_p99_increase, args.max_throughput_decrease, args.max_errors_increase)
    comparison = compare.compare(compare.load(args.old), compare.load(args.new), allowed)
    print(compare.table(comparison, allowed), flush=True)
    return NOT_MET if comparison.regressed else MET


def access(args: argparse.Namespace, tls: TLS | None, token: str | None) -> Access:
    """Return how to call the services. Raise ValueError or OSError if they can't be called so."""
    _channel.check_targets((args.embedder, args.search), tls, token)
    if tls:
        _channel.credentials(tls)
    return Access(args.embedder, args.search, tls, token)


def _plan(args: argparse.Namespace, access: Access, options: SearchOptions) -> Plan:
    settings = {name: getattr(args, name) for name in ("size", "subject") if name in args}
    return Plan(
        target=args.target,
        loads=_loads(args),
        access=access,
        photos=args.photos,
        distinct=args.distinct,
        batch=args.batch,
        options=options,
        duration_s=args.duration,
        warmup_s=args.warmup,
        timeout_s=args.timeout,
        max_calls=args.max_calls,
        arrivals=args.arrivals,
        processes=args.processes or max(1, (os.cpu_count() or 1) // _CORES_A_PROCESS),
        connections=args.connections,
        seed=args.seed,
        slo_p99_ms=args.slo_p99_ms,
        max_errors=args.max_errors,
        max_steps=args.max_steps,
        precision=args.precision,
        **settings,
    )


def _loads(args: argparse.Namespace) -> tuple[Load, ...]:
    if args.rate:
        return tuple(map(Open, args.rate))
    return tuple(map(Closed, args.concurrency or ()))


def _check_writable(path: Path | None) -> None:
    """Raise OSError if the file can't be written: now, and not after minutes of measuring."""
    if path is not None:
        with path.open("a"):
            pass
