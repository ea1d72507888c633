"""What each setting of the trainer is worth: `python -m bench.quality.ablation MANIFEST --photos DIR --weights WEIGHTS --work DIR`.

MANIFEST is a split with unseen labels (`vmmr-search split --unseen 98`). A network is trained by a short recipe, and again with one setting
changed at a time; each is judged as the one that ships is chosen: by dev photos of the labels that it has learned, and by photos of
`unseen-dev`, of which n of each label are enrolled and the others asked for, among all of them; both behind a whitened head that is fitted to the
train photos. No test photo is looked at. Runs that are finished, or were stopped, are gone on with.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.lib import machine
from bench.lib.paths import RESULTS
from bench.quality import heads, pooled
from embedder_svc.exporting.whitening import Whitening, fit
from search_svc.dataset.embeddings import Embeddings

OUT = RESULTS / "ablation.json"
SHORT = "--epochs 8 --stages 0:128 --test-sizes 160 --ema-steps 100"
CHANGES = {
    "as it is": (),
    "no colours": ("--colour", "0"),
    "nothing erased": ("--erase", "0"),
    "crops of half a photo or more": ("--crop-area", "0.5"),
    "no label smoothing": ("--smoothing", "0"),
    "scale 30": ("--scale", "30"),
    "no average": ("--ema-steps", "0"),
    "another seed": ("--seed", "1"),
}
"""The last tells how far apart two runs are that differ in nothing."""
HEAD = Whitening(0.25, 0.1, worn=0)
SPLITS = ("train", "dev", "unseen-dev")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="where the manifest's paths start")
    parser.add_argument("--weights", required=True, help="what the networks start from, as for `vmmr-embedder train`")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs and embeddings are")
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--recipe", default=SHORT, help="settings that all runs have")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    looked_at = args.work / "looked-at.csv"
    _without_test(args.manifest, looked_at)
    found: dict[str, Any] = {}
    for name in args.only:
        run = args.work / name.replace(" ", "-")
        run.mkdir(exist_ok=True)
        found[name] = judged(embeddings(run, looked_at, CHANGES[name], args))
        told = {"machine": machine.describe(), "recipe": args.recipe, "runs": found}
        args.out.write_text(json.dumps(told, indent=1) + "\n")
        print(line(name, found[name]), flush=True)


def _without_test(manifest: Path, out: Path) -> None:
    """Write a manifest of the photos that may be looked at."""
    with manifest.open(newline="") as file, out.open("w", newline="") as kept:
        rows = csv.DictReader(file)
        writer = csv.DictWriter(kept, rows.fieldnames or (), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["split"] in SPLITS)


def embeddings(run: Path, manifest: Path, change: Sequence[str], args: argparse.Namespace) -> Embeddings:
    """Train a network, and return the pooled features that it has of the manifest's photos.

    A network that is trained already is only compared: `train` refuses to go on with another recipe, or with other photos.
    """
    photos = ("--photos", args.photos)
    learning = ("--weights", args.weights, "--cache", args.work / "cache", *args.recipe.split(), *change)
    trained, exported, raw, out = run / "run", run / "model", run / "raw", run / "features"
    _vmmr("train", manifest, *photos, "--out", trained, *learning)
    if not raw.exists():
        _vmmr("export", "--weights", trained / "model.safetensors", "--out", exported)
        pooled.main(exported, raw, "raw")
    if not out.exists():
        _vmmr("embed", manifest, *photos, "--model", raw, "--out", out)
    return Embeddings.open(out)


def _vmmr(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "embedder_svc", *map(str, words)], check=True)


def judged(embeddings: Embeddings) -> dict[str, Any]:
    """Return the figures of a network, in %."""
    train, dev, new = (heads.split(embeddings, name) for name in SPLITS)
    head = fit(train.features, train.labels.tolist(), HEAD)
    found = heads.judged(*(cars.mapped(head) for cars in (train, dev, new)))
    enrolled = {count: each["mean over labels"] for count, each in found.pop("new").items()}
    return {
        "photos": {"train": len(train.labels), "dev": len(dev.labels), "new": len(new.labels)},
        **found,
        "new": enrolled,
    }


def line(name: str, row: dict[str, Any]) -> str:
    new = ", ".join(f"{count}: {share}" for count, share in row["new"].items())
    return f"{name:30} known {row['known, nearest']} / {row['known']}  AUROC {row['AUROC']} FPR95 {row['FPR95']}  new {new}"


if __name__ == "__main__":
    main()
