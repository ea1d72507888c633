"""The offline chain: makes an index from a folder of photos, step by step, with vmmr's own commands."""

import csv
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.commands import program, run
from demo.screen import step

MODEL = Path("models/resnet50-cars-int8")

_QUICK_S, _LONG_S = 300.0, 3600.0


def held_out(manifest: Path) -> list[str]:
    """Return the paths of a manifest's test photos."""
    with manifest.open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]


@dataclass(frozen=True)
class Chain:
    """The steps for one folder of photos."""

    photos: Path
    work: Path
    """The folder for everything that the steps make."""

    @property
    def manifest(self) -> Path:
        return self.work / "manifest.csv"

    @property
    def embeddings(self) -> Path:
        return self.work / "embeddings"

    @property
    def index(self) -> Path:
        return self.work / "index"

    def clear(self) -> None:
        """Remove the embeddings and the index of an earlier run. Embeddings that it left unfinished are continued."""
        self.work.mkdir(parents=True, exist_ok=True)
        for directory in (self.embeddings, self.index):
            shutil.rmtree(directory, ignore_errors=True)

    def draw(self, *, classes: int, photos: int) -> None:
        numbers = ("--classes", str(classes), "--photos", str(photos))
        with step("draw") as drawing:
            command = (sys.executable, "-m", "demo.drawn_cars", "--out", self.photos, *numbers)
            run(command, log=self.work / "draw.log", timeout_s=_QUICK_S, progress=drawing.progress)
            drawing.result = f"{photos} photos of each of {classes} cars"

    def split(self, scheme: str, *lists: Path) -> None:
        by: tuple[str | Path, ...] = ("--scheme", scheme, *lists)
        self._step("split", program("vmmr-search"), "split", self.photos, *by, "--out", self.manifest)

    def embed(self) -> None:
        source = (self.manifest, "--photos", self.photos, "--model", MODEL)
        self._step("embed", program("vmmr-embedder"), "embed", *source, "--out", self.embeddings, timeout_s=_LONG_S)

    def build(self) -> None:
        self._step("build", program("vmmr-search"), "build", self.embeddings, "--out", self.index)

    def evaluate(self) -> str:
        """Return the table of accuracies on the photos that were held out."""
        command = (program("vmmr-search"), "evaluate", self.embeddings, "--index", self.index)
        with step("evaluate") as evaluating:
            report = ("--json", self.work / "accuracy.json")
            log = self.work / "evaluate.log"
            table = run((*command, *report), log=log, timeout_s=_QUICK_S, progress=evaluating.progress)
            evaluating.result = table.partition("\n")[0]
        return table.partition("\n")[2].rstrip()

    def held_out(self) -> Sequence[str]:
        """Return the paths of the test photos that were embedded, as the manifest has them."""
        return held_out(self.embeddings / "items.csv")

    def _step(self, name: str, *command: str | Path, timeout_s: float = _QUICK_S) -> None:
        with step(name) as under_way:
            log = self.work / f"{name}.log"
            summary = run(command, log=log, timeout_s=timeout_s, progress=under_way.progress)
            under_way.result = summary.partition("\n")[0].partition(": ")[2]
