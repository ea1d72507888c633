import os

import pytest
import torch

from embedder_svc.exporting import checkpoints
from embedder_svc.exporting.resnet import ResNet50
from embedder_svc.training.checkpointing import load_state, save_state, write_weights
from svckit.artifact import ArtifactError

CPU = torch.device("cpu")


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"step": 3, "weights": torch.arange(3), "records": [{"top1": None, "loss": 0.5}]}
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path / "state.pt", CPU)
    assert torch.equal(loaded.pop("weights"), state.pop("weights"))
    assert loaded == state


class Unwritable:
    """Fails when half of the state around it has been written."""

    def __reduce__(self):
        raise KeyboardInterrupt


def test_a_save_that_is_interrupted_leaves_the_last_state(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"step": 2, "late": Unwritable()})
    assert load_state(path, CPU) == {"step": 1}


def test_a_save_whose_disk_fails_leaves_the_last_state_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(path, {"step": 2})
    assert load_state(path, CPU) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04 half a state"])
def test_a_damaged_state_is_named(tmp_path, content):
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"state\.pt: is no state of a training run"):
        load_state(path, CPU)


@torch.inference_mode()
def test_written_weights_carry_their_traits_and_load_as_the_network_they_came_from(tmp_path):
    torch.manual_seed(0)
    network = ResNet50(stride_in="v1", eps=1e-3).eval()
    network.bn1.running_var.fill_(1e6)  # more than float16 holds
    traits = {"strides": "v1", "eps": "0.001", "pixels": "caffe", "licence": "none", "training_data": "some"}
    write_weights(tmp_path / "model.safetensors", network, {**traits, "source": "a run"})
    found = checkpoints.load(str(tmp_path / "model.safetensors"))
    assert (found.traits.strides, found.traits.eps, found.traits.pixels) == ("v1", 1e-3, "caffe")
    assert (found.traits.licence, found.traits.training_data, found.source) == ("none", "some", "a run")
    photos = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found.network(photos), network(photos), rtol=0.01, atol=0.01)
    assert (tmp_path / "model.safetensors").stat().st_size < 50e6
