import argparse
import csv
import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from embedder_svc.exporting import checkpoints, vmmrdb
from embedder_svc.exporting.export import Plan, export
from embedder_svc.training import command as train_command
from embedder_svc.training.recipe import Recipe
from search_svc.__main__ import parser as search_parser
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.training_inputs import save_checkpoint, save_photo, small_resnet

DOCUMENTATION = Path(__file__).parents[3] / "docs/training.md"
FLAGS = (
    "--epochs=2 --batch=8 --stages=0:32 --cache-size=32 --test-sizes=32 --evaluate-every=2 --ema-steps=0 --device=cpu"
)


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A folder laid out and split as VMMRdb is, of red and blue cars, and a ResNet-50 that has seen none."""
    folder = tmp_path_factory.mktemp("collection")
    rng = np.random.default_rng(0)
    for label, channel in (("chrysler_town&country_2008", 0), ("mercedes benz_e320_2001", 2)):
        (folder / "VMMRdb" / label).mkdir(parents=True)
        for number in range(10):
            save_photo(folder / "VMMRdb" / label / f"{number}.jpg", 50 + 150 * np.eye(3)[channel], rng)
    split = search_parser().parse_args(["split", str(folder / "VMMRdb"), "--out", str(folder / "manifest.csv")])
    split.run(split)
    save_checkpoint(folder / "start.safetensors", eps="0.001")
    return folder


def train(collection, out, *flags, weights=None):
    parser = argparse.ArgumentParser()
    train_command.add(parser.add_subparsers())
    begin = weights or collection / "start.safetensors"
    paths = [
        str(collection / "manifest.csv"),
        f"--photos={collection / 'VMMRdb'}",
        f"--weights={begin}",
        f"--out={out}",
    ]
    args = parser.parse_args(["train", *paths, *FLAGS.split(), *flags])
    args.run(args)


@pytest.fixture(scope="module")
def trained(collection):
    out = collection / "run"
    train(collection, out, "--data=drawn cars", "--licence=CC0", "--rate=0.001")
    return out


def test_the_checkpoint_loads_with_all_that_is_known_of_it(trained):
    found = checkpoints.load(str(trained / "model.safetensors"))
    assert (found.traits.strides, found.traits.eps, found.traits.pixels) == ("v1", 1e-3, "caffe")
    assert found.traits.training_data == "unknown; drawn cars"
    assert found.traits.licence == "CC0"
    assert found.source == "vmmr-embedder train from chance"


def test_the_checkpoint_tells_how_it_was_made(trained):
    with safe_open(trained / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["classes"], metadata["photos"]) == ("2", "16")
    assert (metadata["resize"], metadata["input_size"]) == ("squash", "32")
    recipe = json.loads(metadata["recipe"])
    assert (recipe["rate"], recipe["seed"]) == (0.001, 230)
    assert json.loads(metadata["metrics"]).keys() == {"epoch", "dev_top1", "dev_top5", "dev_make"}


def test_a_finished_run_answers_at_once_with_where_its_weights_are(trained, collection, capsys):
    with (trained / "curves.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    train(collection, trained, "--rate=0.001")
    assert capsys.readouterr().out == f"{trained / 'model.safetensors'}\n"


def test_a_projection_is_learned_and_kept_by_runs_that_start_from_it(collection, tmp_path):
    train(collection, tmp_path / "first", "--epochs=1", "--dimension=16", "--rate=0.001")
    first = checkpoints.load(str(tmp_path / "first/model.safetensors")).network
    assert first(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
    train(
        collection,
        tmp_path / "next",
        "--epochs=1",
        "--rate=0",
        "--weight-decay=0",
        weights=tmp_path / "first/model.safetensors",
    )
    after = checkpoints.load(str(tmp_path / "next/model.safetensors")).network
    assert torch.equal(after.projection.weight, first.projection.weight)


def test_it_starts_from_a_bundle_as_from_the_weights_that_it_was_made_of(collection, tmp_path):
    begin = checkpoints.load(str(collection / "start.safetensors"))
    export(begin, tmp_path / "bundle", Plan("cars", "fp32", normalize=True, photos=None))
    unchanged = ("--epochs=1", "--rate=0", "--weight-decay=0", "--frozen=5")
    train(collection, tmp_path / "run", *unchanged, weights=tmp_path / "bundle")
    after = checkpoints.load(str(tmp_path / "run/model.safetensors"))
    assert re.fullmatch(r"vmmr-embedder train from cars [0-9a-f]{12}", after.source)
    photos = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.cosine_similarity(after.network(photos), begin.network(photos)).min() > 0.9999
    # Its norms were in the convolutions, and know again what comes to them.
    assert not torch.equal(after.network.bn1.weight, torch.ones(64))


@pytest.mark.parametrize("size", ["31", "0", "-8"])
def test_a_test_size_that_no_model_can_have_is_refused_before_any_work(collection, tmp_path, size):
    with pytest.raises(CommandError, match=f"^--test-sizes: input_size must be >= 32, got {size}$"):
        train(collection, tmp_path / "run", f"--test-sizes=32,{size}")
    assert not (tmp_path / "run").exists()


def test_weights_in_another_layout_are_refused(collection, tmp_path):
    torch.save(vmmrdb.VmmrdbResNet50().state_dict(), tmp_path / "vmmrdb.pth")
    with pytest.raises(CommandError, match=r"vmmrdb\.pth: training starts from a ResNet-50 in torchvision's layout"):
        train(collection, tmp_path / "run", weights=tmp_path / "vmmrdb.pth")


def test_a_run_does_not_go_on_from_other_weights_or_the_same_run_otherwise(trained, collection, tmp_path):
    with safe_open(collection / "start.safetensors", "pt") as file:
        state, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (it is no mapping)
    save_file(state, tmp_path / "rgb.safetensors", {**metadata, "pixels": "imagenet"})
    state["layer1.0.bn1.bias"][0] += 1
    save_file(state, tmp_path / "weights.safetensors", metadata)
    for name in ("rgb", "weights"):
        with pytest.raises(CommandError, match="run: holds a run with other starting weights"):
            train(collection, trained, "--rate=0.001", weights=tmp_path / f"{name}.safetensors")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(collection, tmp_path):
    with pytest.raises(CommandError, match="--device cuda: torch finds no CUDA GPU"):
        train(collection, tmp_path, "--device=cuda")


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"manifest\.csv: No such file"):
        train(tmp_path, tmp_path / "run")


def test_every_setting_is_documented_with_its_default():
    rows = [line.split(" | ") for line in DOCUMENTATION.read_text().splitlines() if line.startswith("| `--")]
    documented = {cells[0].strip("| `"): cells[1].strip("`") for cells in rows}
    for setting in fields(Recipe):
        default = documented[f"--{setting.name.replace('_', '-')}"]
        assert type(setting.default)(default) == setting.default, setting.name


def test_every_flag_is_documented(capsys):
    parser = argparse.ArgumentParser()
    train_command.add(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["train", "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    documented = set(re.findall(r"--[a-z-]+", DOCUMENTATION.read_text()))
    assert flags <= documented
