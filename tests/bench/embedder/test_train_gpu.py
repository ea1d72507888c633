"""bench/train_gpu.sh, as far as a machine without a GPU goes."""

import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.embedder import train_gpu
from svckit.cli import CommandError
from tests.training_inputs import save_checkpoint, save_photo, small_resnet

NEEDED = ["--photos", "photos", "--weights", "weights", "--out", "out"]


@pytest.fixture
def folder(tmp_path):
    """Photos of four cars, of one colour each, and two manifests: of all of them, and of the first two."""
    rng = np.random.default_rng(0)
    rows = []
    for car in range(4):
        (tmp_path / f"car{car}").mkdir()
        for number in range(5):
            path = f"car{car}/{number}.jpg"
            save_photo(tmp_path / path, 20 + 60 * car, rng)
            rows.append(f"{path},car{car},make{car},{'dev' if number == 4 else 'train'}")
    for name, count in (("all", 20), ("first", 10)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label,make,split", *rows[:count], ""]))
    return tmp_path


def test_it_trains_a_network_for_each_manifest(root, folder):
    save_checkpoint(folder / "start.safetensors")
    command = [
        *("bash", root / "bench/train_gpu.sh", folder / "first.csv", folder / "all.csv", "--photos", folder),
        *("--weights", folder / "start.safetensors", "--out", folder / "out", "--json", folder / "figures.json"),
        *("--device", "cpu", "--epochs", 1, "--batch", 4, "--stages", "0:32", "--test-sizes", 32, "--cache-size", 32),
    ]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, steps in (("first", "2"), ("all", "4")):
        assert (folder / "out" / name / "model.safetensors").exists()
        with (folder / "out" / name / "curves.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["step"] == steps
        assert row["top1"]
    figures = json.loads((folder / "figures.json").read_text())
    assert list(figures["networks"]) == ["first", "all"]
    assert figures["networks"]["all"]["recipe"]["rate"] == 0.02 * 4 / 32


@pytest.fixture
def planned(folder, monkeypatch):
    """Runs it with a clock of its own, on a GPU that trains 10 photos/s at 256 pixels; returns the epochs of each network."""

    def planned(*flags, took=(30.0, 30.0)):
        clock, times, epochs = [0.0], iter(took), {}

        def start(recipe, *, manifest, **_):
            epochs[manifest.stem] = (recipe.epochs, recipe.evaluate_every)
            clock[0] += next(times)
            return "weights"

        monkeypatch.setattr(train_gpu, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        monkeypatch.setattr(train_gpu, "measured", lambda *_: {256: 10.0, 384: 5.0})
        monkeypatch.setattr(train_gpu, "start", start)
        manifests = [str(folder / "first.csv"), str(folder / "all.csv")]
        flags = ("--device=cpu", "--stages=0:256,0.5:384", f"--json={folder / 'figures.json'}", *flags)
        train_gpu.run(train_gpu.arguments([*manifests, *NEEDED, *flags]))
        return epochs

    return planned


def test_epochs_are_what_fits_in_the_time(planned):
    """8 and 16 photos, half of them seen at 10 a second and half at 5: 1.2 and 2.4 seconds an epoch; 45 of 60 seconds."""
    assert planned("--minutes=1") == {"first": (12, 4), "all": (9, 3)}  # the first took 30 seconds in place of 20


def test_time_that_the_first_left_is_the_seconds(planned):
    assert planned("--minutes=1", took=(10.0, 30.0))["all"] == (15, 5)


def test_a_network_for_which_no_time_is_left_has_an_epoch(planned):
    assert planned("--minutes=1", took=(70.0, 30.0))["all"] == (1, 1)


def test_epochs_that_are_given_need_no_measurement(planned, folder):
    assert planned("--epochs=7") == {"first": (7, 3), "all": (7, 3)}
    assert json.loads((folder / "figures.json").read_text())["photos_per_s"] == {}


def test_too_little_time_for_an_epoch_is_told_with_what_one_takes(planned):
    with pytest.raises(CommandError, match=r"^--minutes 0\.07 is too short: an epoch of all networks takes 0\.08$"):
        planned("--minutes=0.07")


def test_rates_and_the_average_follow_the_batch():
    recipe = train_gpu.recipe_of(train_gpu.arguments(["all.csv", *NEEDED, "--batch=256"]))
    assert (recipe.batch, recipe.rate, recipe.class_rate, recipe.ema_steps) == (256, 0.16, 1.6, 25)


def test_a_size_that_is_larger_than_the_decoded_photos_is_refused():
    with pytest.raises(CommandError, match="--cache-size must be at least the largest size used, 448, got 320"):
        train_gpu.recipe_of(train_gpu.arguments(["all.csv", *NEEDED, "--cache-size=320"]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told(folder):
    with pytest.raises(CommandError, match="--device cuda: torch finds no CUDA GPU"):
        train_gpu.run(train_gpu.arguments([str(folder / "all.csv"), *NEEDED]))


def test_speed_is_measured_by_training():
    flags = ["--batch=4", "--stages=0:32,0.5:48", "--test-sizes=32", "--cache-size=48"]
    recipe = train_gpu.recipe_of(train_gpu.arguments(["all.csv", *NEEDED, *flags]))
    with small_resnet():
        rates = train_gpu.measured(recipe, torch.device("cpu"))
    assert list(rates) == [32, 48]
    assert min(rates.values()) > 0
