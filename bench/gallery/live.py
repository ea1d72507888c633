"""What a living gallery costs: `python -m bench.gallery.live [--photos N] [--rounds N]`, under three minutes.

All figures are of one process and one run, in turns, medians of rounds; times are CPU seconds of the whole process where a
thread works alone, and wall seconds where processes wait for each other.

- nothing written: a view beside its engine, one query at a time.
- written: a query, and 64 together, of galleries with more and more written since the version was built, beside none.
- deleted: the same, with photos of the version deleted.
- snapshots: a write and the view after it, with 1,000 and with 100,000 items written before. A view must not cost more for what is
  there already; the first query of a view finds out what is alive.
- catching up: another process writes an item every 20 ms; from when the write is on the disk until this process shows it.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from bench.lib import machine
from bench.lib.paths import RESULTS
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.index.base import VersionBase
from search_svc.index.journal import Entry, Journal, StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add
from search_svc.live.delta import Delta
from search_svc.live.following import Follower, Replay
from search_svc.live.opening import Opener
from search_svc.live.view import Opened, View
from search_svc.voting.labels import parse

D, K, LABELS = 512, 10, 1000
SPECS = {"flat": IndexSpec("Flat", k=K), "ivf": IndexSpec("IVF256,SQ8", nprobe=8, k=K)}
WRITTEN = (0, 1_000, 10_000)
DELETED = (1, 100, 1_000, 10_000)
BATCHES = (1, 64)
CAUGHT_UP = 250
OUT = RESULTS / "live.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine.describe(), "cores": os.cpu_count(), "photos": args.photos, "k": K}
    report |= {"dimension": D, "rounds": args.rounds}
    with tempfile.TemporaryDirectory() as directory:
        for name, spec in SPECS.items():
            version = built(Path(directory) / name, spec, args.photos)
            with LocalEngine.open(version) as engine:
                report[name] = searches(Opened(version, engine), args.rounds)
                print(f"\n{name}, {args.photos} photos of {D} dimensions, k = {K}: times of the engine without a view")
                print(table(report[name]), flush=True)
        report["snapshots"] = snapshots(version, args.rounds)
        print("\nwrites and views: " + json.dumps(report["snapshots"]), flush=True)
        report["catching up, ms"] = catching_up(Path(directory) / "flat")
        print("catching up, ms: " + json.dumps(report["catching up, ms"]))
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")


def vectors(rows: int, seed: int) -> NDArray[np.float32]:
    """Return clustered vectors of unit length."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((LABELS, D))
    found = centres[np.arange(rows) % LABELS] + rng.standard_normal((rows, D))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def label(row: int) -> str:
    return f"make{row % LABELS // 10}_model{row % LABELS}_2011"


def built(path: Path, spec: IndexSpec, photos: int) -> IndexVersion:
    names = [f"photo {row:07d}" for row in range(photos)]
    return build_version(
        path,
        BuildSource(
            embeddings=vectors(photos, 1),
            item_ids=names,
            labels=[parse(label(row)) for row in range(photos)],
            uris=names,
            model=64 * "0",
            model_name="bench",
            rows=np.arange(len(names)),
        ),
        spec,
    )


def searches(opened: Opened, rounds: int) -> dict[str, dict[str, float]]:
    """Return, by gallery and batch, the CPU time of a search as a ratio to the bare engine's in the same round."""
    galleries = {f"{count} written": view(opened, written=count) for count in WRITTEN}
    galleries |= {f"{count} deleted": view(opened, deleted=count) for count in DELETED}
    galleries["a new label in 1000 written, filtered"] = galleries["1000 written"]
    manifest, found = opened.version.manifest, defaultdict(lambda: defaultdict(list))
    for batch in BATCHES:
        queries = vectors(batch, 3)
        for _ in range(rounds):
            alone = cpu(partial(opened.engine.search, queries, K, params=manifest.search), batch)
            for name, gallery in galleries.items():
                labels = newest(gallery) if "filtered" in name else None
                found[name][str(batch)].append(cpu(partial(search, gallery, queries, labels), batch) / alone)
    return {
        name: {batch: round(statistics.median(of), 3) for batch, of in each.items()} for name, each in found.items()
    }


def newest(gallery: View) -> NDArray[np.bool_]:
    allowed = np.zeros(len(gallery.items.counts), np.bool_)
    allowed[-1] = True
    return allowed


def search(gallery: View, queries: NDArray[np.float32], labels: NDArray[np.bool_] | None = None) -> object:
    how = {"params": gallery.manifest.search, "exact": False, "timeout_s": None, "allow_partial": False}
    return gallery.search(queries, K, labels=labels, **how)


def cpu(run: Callable[[], object], batch: int) -> float:
    """Return the CPU seconds of all threads for one call."""
    times = 20 if batch == 1 else 3
    run()
    started = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - started) / times


def view(opened: Opened, *, written: int = 0, deleted: int = 0) -> View:
    if not written + deleted:
        return View(opened)
    delta = Delta(opened.version)
    for row, vector in enumerate(vectors(written, 5)):
        delta.write(entry(row, vector))
    rows = np.random.default_rng(7).choice(len(opened.version.items), deleted, replace=False)
    for row in rows.tolist():
        delta.write(Entry(row, f"photo {row:07d}", None))
    if written:
        delta.write(entry(written, vectors(1, 9)[0], "brand_new_2026"))
    return View(opened, delta.snapshot())


def entry(row: int, vector: NDArray[np.float32], name: str | None = None) -> Entry:
    return Entry(row + 1, f"new {row}", StoredItem(name or label(row), "", "", {}, vector.astype("<f2").tobytes()))


def snapshots(version: IndexVersion, rounds: int) -> dict[str, float]:
    """Return the microseconds of CPU that each stage of a write and a view takes."""
    deltas = {f"{count:,}": filled(version, count) for count in (1_000, 100_000)}
    entries = [entry(row, vector) for row, vector in enumerate(vectors(20 * rounds, 11), 200_000)]
    found = defaultdict(list)
    with LocalEngine.open(version) as engine:
        opened = Opened(version, engine)
        for turn in range(rounds):
            for count, delta in deltas.items():
                for stage, seconds in stages(opened, delta, entries[20 * turn : 20 * turn + 20]).items():
                    found[f"{stage}, beside {count}"].append(seconds)
    return {name: round(1e6 * statistics.median(times), 1) for name, times in found.items()}


def stages(opened: Opened, delta: Delta, entries: Sequence[Entry]) -> dict[str, float]:
    started = time.process_time()
    for each in entries:
        delta.write(each)
    written = time.process_time()
    view_ = View(opened, delta.snapshot())
    _, _ = view_.items, view_.filters
    taken = time.process_time()
    assert view_.written is not None
    _, _ = view_.written.live, view_.written.gone_rows
    asked = time.process_time()
    return {
        "a write": (written - started) / len(entries),
        "a view": taken - written,
        "what is alive, for its first query": asked - taken,
    }


def filled(version: IndexVersion, count: int) -> Delta:
    delta = Delta(version)
    for start in range(0, count, 10_000):
        for row, vector in enumerate(vectors(min(10_000, count - start), start), start):
            delta.write(entry(row, vector))
    return delta


def catching_up(path: Path) -> dict[str, float]:
    """Return the time from a write's commit in one process to its view in this one. Both read a clock that they share."""
    opener = Opener(path, LocalEngine.open, max_k=1000)
    with Journal.open(path) as journal:
        replay = Replay(opener.current(), journal)
        follower = Follower(path, journal, replay, opener.current)
        shown: dict[int, float] = {}
        show = follower.gallery.show

        def noticed(view: View) -> None:
            show(view)
            shown[view.sequence] = time.monotonic()

        follower.gallery.show = noticed  # type: ignore[method-assign]
        follower.start()
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        writer = context.Process(target=write, args=(path, queue))
        writer.start()
        committed = [queue.get(timeout=60) for _ in range(CAUGHT_UP)]
        writer.join()
        wait(lambda: follower.gallery.view.sequence >= committed[-1][0])
        follower.stop()
    opener.close()
    took = sorted(1e3 * (first_at(shown, sequence) - at) for sequence, at in committed)
    return {
        name: round(took[int(share * (len(took) - 1))], 2)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
    }


def first_at(shown: dict[int, float], sequence: int) -> float:
    return min(at for last, at in shown.items() if last >= sequence)


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def write(path: Path, queue: Any) -> None:
    version = IndexVersion.open(path, verify=False)
    writer = JournalWriter(path, lambda: VersionBase(version))
    for row, vector in enumerate(vectors(CAUGHT_UP, 13)):
        item = StoredItem(label(row), "", "", {}, vector.astype("<f2").tobytes())
        (done,) = writer.commit([Add({f"late {row}": item})])
        queue.put((done.sequence, time.monotonic()))  # type: ignore[union-attr]
        time.sleep(0.02)
    writer.close()


def table(found: dict[str, dict[str, float]]) -> str:
    names: Sequence[str] = list(found)
    width = max(map(len, names))
    head = f"{'':{width}}  " + "  ".join(f"{batch:>5} together" for batch in map(str, BATCHES))
    rows = (f"{name:{width}}  " + "  ".join(f"{found[name][str(batch)]:14.2f}" for batch in BATCHES) for name in names)
    return "\n".join([head, *rows])


if __name__ == "__main__":
    main()
