"""What the main car is worth on photos as people take them: `python -m bench.quality.wild`, of the pair that ships.

The photos of ../shared/data are asked for through both services, whole and cut to the main car. Of makes that the gallery has it is told how
many are answered with the right make, of makes that it lacks how many are told as `unknown`, of all in how many a car was found.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vmmr

from bench.lib import machine
from bench.lib.paths import RESULTS, ROOT
from bench.lib.servers import pair

DATA = ROOT.parent / "shared/data"
OUT = RESULTS / "wild.json"
KNOWN = {
    "audi": ["wild/audi"],
    "rolls royce": [
        "boxed/rolls_royce",
        "boxed/rolls_royce_ghost",
        "boxed/rolls_royce_phantom",
        "boxed/rolls_royce_spectre",
    ],
    "toyota": ["wild/toyota_camry_2006", "wild/toyota_camry_2009"],
}
"""Folders of photos, by a make that the gallery has."""
LACKING = {"mahindra": ["wild/mahindra_scorpio"], "lada": ["wild/lada_xray_cross_2015"], "kia": ["wild/kia_rio_2009"]}
SUBJECTS = ("whole", "main_car")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    out: Path = parser.parse_args().out
    with (
        pair("--log-level", "warning") as (embedder, search),
        vmmr.Client(embedder.address, search.address, timeout_s=60) as client,
    ):
        found = {make: asked(client, make, photos_in(folders)) for make, folders in {**KNOWN, **LACKING}.items()}
    out.write_text(json.dumps({"machine": machine.describe(), "makes": found}, indent=1) + "\n")
    tables(out)


def photos_in(folders: Sequence[str]) -> list[Path]:
    return [path for folder in folders for path in sorted((DATA / folder).glob("*.jpg"))]


def asked(client: vmmr.Client, make: str, paths: Sequence[Path]) -> dict[str, Any]:
    result: dict[str, Any] = {"photos": len(paths)}
    for subject in SUBJECTS:
        answers = [each.result() for each in client.identify_many(vmmr.Photo(path, subject=subject) for path in paths)]
        result[subject] = {
            "make_right": percent(each.answer is not None and each.answer.make == make for each in answers),
            "unknown": percent(each.verdict == "unknown" for each in answers),
            "car_found": percent(not each.no_car_found for each in answers),
        }
    return result


def percent(of: Any) -> float:
    found = list(of)
    return round(100 * sum(found) / len(found), 1)


def tables(stored: Path = OUT) -> None:
    """Print a Markdown table: whole / main car, in percent."""
    print(
        "| make | photos | car found | make right: whole / main car | called unknown: whole / main car |\n|---|---|---|---|---|"
    )
    for make, found in json.loads(stored.read_text())["makes"].items():
        right = " / ".join(f"{found[subject]['make_right']:.0f}" for subject in SUBJECTS) if make in KNOWN else "-"
        unknown = " / ".join(f"{found[subject]['unknown']:.0f}" for subject in SUBJECTS)
        print(f"| {make} | {found['photos']} | {found['main_car']['car_found']} | {right} | {unknown} |")


if __name__ == "__main__":
    main()
