"""Runs of a tiny network over squares of three colours."""

import csv
import itertools
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from embedder_svc.exporting.traits import PIXELS
from embedder_svc.training import loop
from embedder_svc.training.learner import Learner
from embedder_svc.training.loop import Run
from embedder_svc.training.photos import Decoded, Photos
from embedder_svc.training.recipe import Recipe
from svckit.cli import CommandError

CPU = torch.device("cpu")
RECIPE = Recipe(
    epochs=4, batch=4, stages="0:8,0.5:12", cache_size=16, test_sizes="8,16", frozen=0, precision="float32",
    rate=0.01, ema_steps=8, evaluate_every=2, colour=0.1,
)  # fmt: skip


IDENTITY = {"photos": "these", "starting weights": "those"}


class PowerCutError(Exception):
    pass


class Power:
    """Fails at the given forward pass; shared by a network and its averaged copy."""

    fails_at = None
    uses = 0

    def use(self):
        self.uses += 1
        if self.uses == self.fails_at:
            raise PowerCutError

    def __deepcopy__(self, memo):
        return self


class Tiny(nn.Module):
    """Batch norm included: its running statistics are state too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Conv2d(8, 8, 3, bias=False)
        self.power = Power()
        self.views = []

    def forward(self, photos):
        self.power.use()
        if self.training:
            self.views.extend(photos)
        return self.layer1(torch.relu(self.bn1(self.conv1(photos)))).mean((2, 3))


def split(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, 16, 16, 3))
    pixels[np.arange(count), :, :, labels] += 130
    photos = Photos(tuple(f"{number}.png" for number in range(count)), labels, labels // 2)
    return Decoded(photos, pixels.astype(np.uint8))


@pytest.fixture
def start(tmp_path):
    """Makes a run in a directory of its own; returns it with the network it trains."""

    def start(name="run", recipe=RECIPE, *, train=None, dev=9, identity=IDENTITY):
        network = Tiny()
        learner = Learner(network, recipe, classes=3, dimension=8, device=CPU)
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        run = Run(
            learner, recipe, train=train or split(22, 1), dev=split(dev, 2), norm=PIXELS["imagenet"],
            metadata={"source": "test"}, out=out, identity=identity,
        )  # fmt: skip
        return run, network

    return start


def curves(out, *columns):
    with (out / loop.CURVES).open() as file:
        return [tuple(row[column] for column in columns) for row in csv.DictReader(file)]


def metadata(out):
    with safe_open(out / loop.WEIGHTS, "pt") as file:
        return file.metadata()


DETERMINED = ("epoch", "step", "size", "loss", "train_top1", "test_size", "top1", "top5", "make")


# Passes 1-6 imprint, 7-16 train two epochs, 17-34 look at the dev photos, 35-44 train, 45-62 look again.
@pytest.mark.parametrize("failure", [3, 9, 17, 41, 62])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(start, tmp_path, monkeypatch, failure):
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    whole, whole_network = start("whole")
    whole.train()
    cut, network = start("cut")
    network.power.fails_at = failure
    with pytest.raises(PowerCutError):
        cut.train()
    resumed, resumed_network = start("cut")
    resumed.train()
    for name, value in whole_network.state_dict().items():
        assert torch.equal(resumed_network.state_dict()[name], value), name
    assert curves(tmp_path / "cut", *DETERMINED) == curves(tmp_path / "whole", *DETERMINED)
    assert metadata(tmp_path / "cut") == metadata(tmp_path / "whole")
    kept = [load_file(tmp_path / name / loop.WEIGHTS) for name in ("cut", "whole")]
    torch.testing.assert_close(*kept, rtol=0, atol=0)


def cut_off(start, failure):
    cut, network = start()
    network.power.fails_at = failure
    with pytest.raises(PowerCutError):
        cut.train()


def saved_step(out):
    return torch.load(out / loop.STATE, weights_only=True)["step"]


def test_the_state_is_saved_around_a_look_at_the_dev_photos(start, tmp_path):
    """Without that, a look of minutes would be lost with the steps before it, and the steps after it with the look."""
    cut_off(start, 17)  # the look after the second epoch, of 5 steps
    assert saved_step(tmp_path / "run") == 10
    assert curves(tmp_path / "run", "epoch", "step") == [("1", "5")]
    cut_off(start, 18 + 3)  # the third step after that look, which takes 18 passes
    assert saved_step(tmp_path / "run") == 10
    assert curves(tmp_path / "run", "epoch", "step") == [("1", "5"), ("2", "10")]
    resumed, network = start()
    resumed.train()
    assert network.power.uses == 10 + 18  # two epochs, and the look after them
    assert curves(tmp_path / "run", "epoch", "step") == [("1", "5"), ("2", "10"), ("3", "15"), ("4", "20")]


def test_the_state_is_saved_every_few_minutes(start, tmp_path, monkeypatch):
    minutes = itertools.count(0, 60)  # a minute passes whenever the time is asked for, which is after every step
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    cut_off(start, 15)  # the ninth step, in the second epoch, before any look
    assert 0 < saved_step(tmp_path / "run") < 8


def test_the_bar_of_a_resumed_run_begins_where_the_run_does(start, capsys):
    cut_off(start, 40)
    capsys.readouterr()
    start()[0].train()
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("training:  50%")
    assert "| 10/20 [" in first


def test_a_resumed_run_tells_that_only_the_look_at_the_dev_photos_is_left(start, capsys):
    cut_off(start, 45)
    capsys.readouterr()
    resumed, network = start()
    resumed.train()
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert "| 20/20 [" in first
    assert "| 20/20 [" in second
    assert second.endswith(", looking at dev photos]")
    assert network.power.uses == 18


def test_a_run_without_dev_photos_tells_of_no_look_at_them(start, capsys):
    start(dev=0)[0].train()
    assert "looking" not in capsys.readouterr().err


def test_it_learns_and_records_how(start, tmp_path):
    run, _ = start(recipe=replace(RECIPE, epochs=12))
    run.train()
    out = tmp_path / "run"
    losses = [float(loss) for (loss,) in curves(out, "loss")]
    assert losses[-1] < losses[0]
    assert [size for (size,) in curves(out, "size")] == ["8"] * 5 + ["12"] * 7
    assert [top1 != "" for (top1,) in curves(out, "top1")] == [False, True] * 6
    assert float(curves(out, "top1")[-1][0]) > 80


def test_the_weights_of_the_best_look_at_the_dev_photos_are_kept(start, tmp_path):
    run, _ = start(recipe=replace(RECIPE, epochs=8))
    run.train()
    looked = [
        (float(top1), -int(epoch), size)
        for top1, epoch, size in curves(tmp_path / "run", "top1", "epoch", "test_size")
        if top1
    ]
    top1, epoch, size = max(looked)
    found = metadata(tmp_path / "run")
    assert found["input_size"] == size
    assert f'"epoch": {-epoch}, "dev_top1": {top1}' in found["metrics"]
    assert found["source"] == "test"


def test_without_dev_photos_the_last_weights_are_kept(start, tmp_path):
    run, _ = start(dev=0)
    run.train()
    found = metadata(tmp_path / "run")
    assert (found["input_size"], found["metrics"]) == ("8", '{"epoch": 4}')


def test_no_two_views_of_a_photo_are_alike(start):
    photo = split(6, 1).pixels[:1].repeat(6, 0)
    same = Decoded(Photos(tuple("abcdef"), np.arange(6) % 3, np.arange(6) % 3), photo)
    run, network = start(recipe=replace(RECIPE, batch=3, stages="0:8"), train=same)
    run.train()
    assert len({view.numpy().tobytes() for view in network.views}) == 4 * 6


def test_frozen_blocks_stay_as_they_were(start):
    run, network = start(recipe=replace(RECIPE, frozen=1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run.train()
    after = network.state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"layer1"}


def test_it_learns_in_bfloat16(start, tmp_path):
    run, _ = start(recipe=replace(RECIPE, precision="bfloat16"))
    run.train()
    losses = [float(loss) for (loss,) in curves(tmp_path / "run", "loss")]
    assert losses[-1] < losses[0]


def test_a_run_goes_on_only_under_its_own_recipe(start):
    start()[0].train()
    with pytest.raises(CommandError, match=r"another recipe; changed: rate \(0\.5, was 0\.01\)"):
        start(recipe=replace(RECIPE, rate=0.5))[0].train()


def test_a_run_goes_on_that_began_before_a_setting_was_there_if_the_setting_has_its_default(start, tmp_path):
    cut_off(start, 35)
    path = tmp_path / "run" / loop.STATE
    state = torch.load(path, weights_only=True)
    del state["recipe"]["erase"]
    torch.save(state, path)
    with pytest.raises(CommandError, match=r"another recipe; changed: erase \(0\.5, was 0\.35\)"):
        start(recipe=replace(RECIPE, erase=0.5))[0].train()
    start()[0].train()
    assert curves(tmp_path / "run", "epoch")[-1] == ("4",)


def test_a_run_of_a_setting_that_is_not_known_does_not_go_on():
    differences = RECIPE.differences({**asdict(RECIPE), "whiskers": 3})
    assert differences == ["whiskers (no setting of this vmmr, was 3)"]


def test_a_run_goes_on_that_began_with_settings_that_are_no_more_if_they_changed_nothing(start, tmp_path):
    cut_off(start, 35)
    path = tmp_path / "run" / loop.STATE
    state = torch.load(path, weights_only=True)
    state["recipe"].update(loss="hierarchical", per_class=1, margin=0.1, blur=0.0)
    torch.save(state, path)
    with pytest.raises(CommandError, match=r"another recipe; changed: loss \(softmax, was hierarchical\)$"):
        start()[0].train()
    state["recipe"]["loss"] = "softmax"
    torch.save(state, path)
    start()[0].train()
    assert curves(tmp_path / "run", "epoch")[-1] == ("4",)


@pytest.mark.parametrize("name", IDENTITY)
def test_a_run_goes_on_only_with_its_own_photos_and_starting_weights(start, name):
    start()[0].train()
    with pytest.raises(CommandError, match=f"run: holds a run with other {name}$"):
        start(identity={**IDENTITY, name: "others"})[0].train()


def test_embeddings_have_unit_length_and_the_order_of_their_photos():
    learner = Learner(Tiny(), RECIPE, classes=3, dimension=8, device=CPU)
    pixels = split(7, 1).pixels

    def embed(chosen, batch):
        return loop.embed(learner, PIXELS["imagenet"], pixels, np.array(chosen), size=16, batch=batch)

    found = embed(range(7), 3)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(embed([5, 2], 1), found[[5, 2]])


def test_the_loss_is_as_the_recipe_says():
    recipe = replace(RECIPE, scale=7.0, smoothing=0.3)
    criterion = Learner(Tiny(), recipe, classes=3, dimension=8, device=CPU).criterion
    assert (criterion.scale, criterion.smoothing, criterion.directions.shape) == (7, 0.3, (3, 8))


def test_a_batch_larger_than_the_collection_is_refused(start):
    with pytest.raises(CommandError, match="--batch 23 is more than the 22 training photos"):
        start(recipe=replace(RECIPE, batch=23))[0].train()


def test_a_loss_that_is_no_number_ends_the_run_and_what_was_saved_stays(start, tmp_path, monkeypatch):
    """It is saved after every step, and not after the one with that loss."""
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    run, network = start()
    forward = network.forward
    network.forward = lambda photos: forward(photos) * (torch.nan if run._step == 7 else 1)
    with pytest.raises(CommandError, match=r"^the loss is nan at step 7: lower --rate or --class-rate$"):
        run.train()
    saved = torch.load(tmp_path / "run" / loop.STATE, weights_only=True)
    assert saved["step"] == 6
    assert all(value.isfinite().all() for value in saved["learner"]["network"].values())


def test_a_finished_run_has_nothing_left_to_do(start, tmp_path):
    start()[0].train()
    before = (tmp_path / "run" / loop.STATE).read_bytes()
    start()[0].train()
    assert (tmp_path / "run" / loop.STATE).read_bytes() == before
