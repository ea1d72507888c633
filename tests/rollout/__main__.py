"""A rolling update with real processes: `python -m tests.rollout --calls 10000`.

Both services that ship run in several processes each, at addresses of this machine of their own, behind names that a DNS server here
resolves to all that are ready: a headless Service. Callers use the SDK as it comes. Each server is replaced, some calls apart: the new one is
ready first; the old one leaves the name, and gets SIGTERM some seconds later (`preStop`), while calls go on.
"""

import argparse
import io
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from PIL import Image

from bench.lib.machine import describe
from tests.rollout.callers import Callers, SentAgain
from tests.rollout.fleet import Fleet, Names, free_port

EMBEDDER = ("-m", "embedder_svc", "serve", "--cache-photos", 10, "--threads", 1, "--decode-threads", 1)
SEARCH = ("-m", "search_svc", "serve", "--read-only", "--no-verify")


@dataclass(frozen=True)
class Rollout:
    calls: int
    replicas: int
    callers: int
    pre_stop_s: float


def run(rollout: Rollout, photo: bytes) -> dict[str, Any]:
    """Return what callers saw while all servers were replaced once."""
    with _counting() as again, fleets(rollout.replicas) as (embedders, searches):
        both = (embedders, searches)
        with Callers(embedders.target, searches.target, photo, callers=rollout.callers) as callers:
            callers.until(rollout.calls // 10)
            exits = [code for fleet in both for code in fleet.replace(rollout.pre_stop_s)]
            callers.until(max(rollout.calls, callers.seen.calls + rollout.calls // 10))
    seen = callers.seen
    percents = quantiles([1e3 * each for each in seen.seconds], n=1000)
    return {
        "calls": seen.calls,
        "failed": len(seen.failed),
        "failures": seen.failed[:10],
        "sent_again": again.count,
        "replaced": len(exits),
        "exit_codes": sorted(set(exits)),
        "replicas": rollout.replicas,
        "callers": rollout.callers,
        "pre_stop_s": rollout.pre_stop_s,
        "p50_ms": round(percents[499], 1),
        "p99_ms": round(percents[989], 1),
        "most_ms": round(1e3 * max(seen.seconds), 1),
    }


@contextmanager
def fleets(replicas: int) -> Iterator[tuple[Fleet, Fleet]]:
    with Names().served() as names, ExitStack() as stack:
        embedders = Fleet("embedder.vmmr.internal", EMBEDDER, names, free_port(), stack)
        searches = Fleet("search.vmmr.internal", SEARCH, names, free_port(), stack)
        for fleet in (embedders, searches):
            for _ in range(replicas):
                fleet.start()
        yield embedders, searches


@contextmanager
def _counting() -> Iterator[SentAgain]:
    log, again = logging.getLogger("vmmr"), SentAgain()
    log.addHandler(again)
    log.setLevel(logging.INFO)
    try:
        yield again
    finally:
        log.removeHandler(again)


def drawn_photo() -> bytes:
    """Return a photo, of no car."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "JPEG")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rollout", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="least number of calls (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=3, help="processes of each service (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=4, help="clients, each in a thread (default: %(default)s)")
    parser.add_argument("--pre-stop-s", type=float, default=5.0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    args = parser.parse_args()
    result = run(Rollout(args.calls, args.replicas, args.callers, args.pre_stop_s), drawn_photo())
    text = json.dumps({"machine": describe(), **result}, indent=2)
    print(text)
    if args.out:
        args.out.write_text(f"{text}\n")
    raise SystemExit(1 if result["failed"] or result["exit_codes"] != [0] else 0)


if __name__ == "__main__":
    main()
