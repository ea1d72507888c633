"""The pair as it ships: both servers without arguments, its model and its gallery."""

import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest
import vmmr
from vmmr.photo_names import has_photo_name

from search_svc.index.version import IndexVersion

ASKED = 64


@pytest.fixture(scope="module")
def shipped(module_run, root):
    embedder = module_run("-m", "embedder_svc", "serve", "--port", 0)
    search = module_run("-m", "search_svc", "serve", "--port", 0)
    addresses = [f"127.0.0.1:{server.ready()['port']}" for server in (embedder, search)]
    with vmmr.Client(*addresses, timeout_s=60) as client:
        yield client


@pytest.fixture(scope="module")
def held_out(root, stanford_cars, tmp_path_factory):
    """Photos that are neither in the gallery nor among those that anything was fitted on, and their labels."""
    from search_svc.__main__ import parser

    manifest = tmp_path_factory.mktemp("split") / "manifest.csv"
    split = parser().parse_args(["split", str(stanford_cars), "--out", str(manifest)])
    split.run(split)
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [(stanford_cars / row["path"], row["label"]) for row in rows[:: len(rows) // ASKED][:ASKED]]


def test_the_gallery_is_of_the_model_and_calibrated(shipped):
    info = shipped.info()
    assert info.same_model
    assert (info.index.labels, info.index.dimension) == (196, 2048)
    assert info.index.calibration is not None


def test_a_gallery_photo_is_embedded_as_the_gallery_was_whatever_this_processor_is(shipped, root, stanford_cars):
    version = IndexVersion.open(root / "models/stanford-cars")
    rows = range(0, len(version.items), len(version.items) // 8)
    photos = [stanford_cars / "train" / version.items.item_id(row) for row in rows]
    vectors = shipped.embed(photos).vectors
    gallery = np.array([version.embeddings[row] for row in rows], np.float32)
    assert np.einsum("nd,nd->n", vectors, gallery).min() > 0.999


def test_cars_that_never_were_are_told_as_unknown(shipped, drawn):
    """Most of them: one in twenty of the known cars is, and a few drawn ones look much like a real car."""
    verdicts = [outcome.result().verdict for outcome in shipped.identify_many(sorted(drawn.photos.glob("*/*.jpg")))]
    assert verdicts.count("unknown") > 0.5 * len(verdicts)


def test_real_cars_that_it_has_not_seen_are_recognised(shipped, held_out):
    found = [outcome.result() for outcome in shipped.identify_many([photo for photo, _ in held_out])]
    right = sum(each.answer.label == label for each, (_, label) in zip(found, held_out, strict=True))
    assert right >= 0.75 * len(held_out)
    assert sum(each.verdict == "unknown" for each in found) <= 0.2 * len(held_out)


def test_several_photos_of_one_car_are_one_answer(shipped, held_out):
    label = held_out[0][1]
    photos = sorted(held_out[0][0].parent.glob("*.jpg"))[:3]
    assert shipped.identify_car(photos).answer.label == label


def test_no_photo_is_in_the_repository(root):
    """Pictures of the page are of drawn cars, and one file is an attack; nothing else that could be a photo is in it."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    pictures = [name for name in listed if has_photo_name(Path(name))]
    assert [name for name in pictures if not name.startswith("docs/pictures/")] == ["tests/svckit/photos/bomb.avif"]
