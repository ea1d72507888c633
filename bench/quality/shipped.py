"""Store what `vmmr-search evaluate --json REPORT` has found of the pair that ships: `python -m bench.quality.shipped REPORT`.

The figures of README and of the cards come from bench/results/shipped.json (`python -m bench.figures --write` puts them there). What only
draws curves is left out: it is most of a report, and no page quotes it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench.lib import machine
from bench.lib.paths import RESULTS

CURVES = {"curve", "cuts", "bins"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "shipped.json")
    args = parser.parse_args()
    report = {"machine": machine.describe(), **without_curves(json.loads(args.report.read_text()))}
    args.out.write_text(json.dumps(report, indent=1) + "\n")


def without_curves(found: Any) -> Any:
    """Return the report without lists that only draw curves, at any depth."""
    if isinstance(found, dict):
        return {key: without_curves(value) for key, value in found.items() if key not in CURVES}
    return [without_curves(each) for each in found] if isinstance(found, list) else found


if __name__ == "__main__":
    main()
