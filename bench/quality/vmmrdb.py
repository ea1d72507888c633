"""VMMRdb's photos through the whole chain, with the model that ships: `python -m bench.quality.vmmrdb`.

The 473 photos of four cars that lie in ../shared/data/vmmrdb_sample are split, embedded and built into an index of their own, by the commands that
docs/evaluation.md names, and its test photos are asked for; and each of all photos against the others. Four labels are few to confuse. So the four cars are also
enrolled into the gallery that ships, beside its 196, from 1 to 20 photos each, and their other photos are asked for; what that costs the
known cars is measured with the test photos of ../shared/data/stanford_cars.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.quality.shipped import without_curves

DATA = ROOT.parent / "shared/data"
SAMPLE, STANFORD = DATA / "vmmrdb_sample", DATA / "stanford_cars"
SHIPPED = ROOT / "models/stanford-cars"
OUT = RESULTS / "vmmrdb.json"
KEPT = ("photos", "gallery", "labels", "no_car_found", "scores", "makes", "confused", "enrolment", "known")
"""What is stored of a report."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        found = {"machine": machine.describe(), **measured(Path(work))}
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(out)


def measured(work: Path) -> dict[str, Any]:
    """Return the reports, by what was asked."""
    embeddings = embedded(SAMPLE, work / "vmmrdb")
    about = json.loads((embeddings / "manifest.json").read_text())
    run("vmmr-search", "build", embeddings, "--out", work / "index")
    known = embedded(STANFORD, work / "stanford", only="test")
    enrolled = ("--enrol", "1,2,5,10,20", "--enrol-from", embeddings)
    return {
        "embedded": {name: about[name] for name in ("count", "cut", "no_car_found")},
        "test": evaluated(work, embeddings, "--index", work / "index"),
        "each against the others": evaluated(work, embeddings, "--index", work / "index", "--split", "train"),
        "among 200": evaluated(work, known, "--index", SHIPPED, *enrolled),
    }


def embedded(photos: Path, work: Path, *, only: str | None = None) -> Path:
    """Return a folder of embeddings of the photos, or of one of their splits."""
    manifest = work / "manifest.csv"
    run("vmmr-search", "split", photos, "--out", manifest)
    if only:
        with manifest.open(newline="") as file:
            heading, *rows = csv.reader(file)
        with manifest.open("w", newline="") as file:
            csv.writer(file).writerows([heading, *(row for row in rows if row[heading.index("split")] == only)])
    run("vmmr-embedder", "embed", manifest, "--photos", photos, "--out", work / "embeddings")
    return work / "embeddings"


def evaluated(work: Path, *argv: object) -> dict[str, Any]:
    report = work / "report.json"
    run("vmmr-search", "evaluate", *argv, "--json", report)
    kept = {name: value for name, value in json.loads(report.read_text()).items() if name in KEPT}
    return without_curves(kept)  # type: ignore[no-any-return]


def run(program: str, *argv: object) -> None:
    """Run one of vmmr's commands, and end if it fails."""
    subprocess.run([str(Path(sys.executable).with_name(program)), *map(str, argv)], check=True)


if __name__ == "__main__":
    main()
