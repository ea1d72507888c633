import functools
import operator
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embedder_svc.exporting import checkpoints, weights
from embedder_svc.exporting.resnet import ResNet50
from embedder_svc.exporting.torchvision_guard import import_torchvision
from embedder_svc.exporting.traits import PIXELS, Traits
from svckit.cli import CommandError


def shaken(network):
    """Fills a network with random weights and statistics, so that two networks agree only if every parameter is in its place."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                tensor.data.uniform_(low, low + 1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def features(network, size=64):
    with torch.inference_mode():
        return network(torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(2)))


def same(actual, expected):
    return torch.allclose(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def hollow(state):
    """Returns tensors of the same names and shapes that take a few KB in a file."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}


@pytest.fixture(scope="module")
def torchvision_network():
    torch.manual_seed(0)
    return shaken(import_torchvision("models").resnet50())


@pytest.fixture(scope="module")
def torchvision_features(torchvision_network):
    return features(nn.Sequential(*list(torchvision_network.children())[:-1], nn.Flatten()))


@pytest.fixture(scope="module")
def torchvision_file(torchvision_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("torchvision") / "resnet50.pth"
    torch.save(torchvision_network.state_dict(), path)
    yield path
    path.unlink()


class TestTorchvisionLayout:
    def test_a_checkpoint_gives_the_features_of_the_network_it_was_saved_from(
        self, torchvision_file, torchvision_features
    ):
        loaded = checkpoints.load(str(torchvision_file))
        assert same(features(loaded.network), torchvision_features)
        assert (loaded.traits, loaded.source, loaded.pixels) == (Traits(), "resnet50.pth", PIXELS["imagenet"])
        assert not any(parameter.requires_grad for parameter in loaded.network.parameters())

    def test_half_precision_costs_its_rounding_and_no_more(self, tmp_path, torchvision_network, torchvision_features):
        path = tmp_path / "half.safetensors"
        state = torchvision_network.state_dict()
        save_file({name: value.half() if value.ndim == 4 else value for name, value in state.items()}, path)
        loaded = features(checkpoints.load(str(path)).network)
        path.unlink()
        assert torch.cosine_similarity(loaded, torchvision_features) > 0.9999

    def test_strides_and_eps_are_the_callers_to_give(self, torchvision_file, torchvision_network):
        network = ResNet50(stride_in="v1", eps=0.5).eval()
        network.load_state_dict(torchvision_network.state_dict(), strict=False)
        loaded = checkpoints.load(str(torchvision_file), strides="v1", eps=0.5, pixels="caffe", licence=None)
        assert same(features(loaded.network), features(network))
        assert loaded.pixels == PIXELS["caffe"]

    def test_torchvisions_own_weights_come_through_its_cache(
        self, tmp_path, monkeypatch, torchvision_file, torchvision_features
    ):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        cached = tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
        cached.parent.mkdir(parents=True)
        cached.symlink_to(torchvision_file)
        loaded = checkpoints.load("torchvision:IMAGENET1K_V2")
        assert same(features(loaded.network), torchvision_features)
        assert (loaded.source, loaded.traits.licence) == ("torchvision:IMAGENET1K_V2", "BSD-3-Clause")

    def test_a_training_loops_wrappers_are_taken_off(self, tmp_path, torchvision_network):
        state = hollow(torchvision_network.state_dict())
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
        torch.save(wrapped, tmp_path / "last.pth")
        assert weights.read(str(tmp_path / "last.pth")).state.keys() == state.keys()


@pytest.fixture(scope="module")
def shared_weights():
    path = Path(__file__).parents[4] / "shared" / "weights" / "resnet50_imagenet.safetensors"
    if not path.exists():
        pytest.skip(f"no weights in {path.parent}")
    return path


class TestMetadata:
    @pytest.fixture
    def saved(self, tmp_path):
        def save(**metadata):
            save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata)
            return str(tmp_path / "x.safetensors")

        return save

    def test_a_safetensors_file_may_say_what_it_is(self, saved):
        traits = Traits("v1", 1e-3, "caffe", "pad", 160, "MIT", "cars")
        text = {name: str(value) for name, value in asdict(traits).items()}
        found = weights.read(saved(**text, source="someone", metrics='{"dev": 0.8}', recipe="another's business"))
        assert (found.traits, found.source, found.metrics) == (traits, "someone", {"dev": 0.8})

    def test_the_npm_weights_are_known_by_their_source(self, shared_weights):
        found = weights.read(str(shared_weights))
        assert found.traits == Traits("v1", 1e-3, "caffe", licence="MIT", training_data="ImageNet-1k")

    def test_one_without_metadata_is_taken_for_torchvisions(self, saved):
        assert weights.read(saved()).traits == Traits()

    @pytest.mark.parametrize(
        ("metadata", "reason"),
        [
            ({"strides": "v2"}, r"strides must be one of v1, v1\.5, got 'v2'"),
            ({"pixels": "other"}, "pixels must be one of imagenet, caffe, got 'other'"),
            ({"resize": "stretch"}, "resize must be one of squash, pad, crop, got 'stretch'"),
            ({"eps": "small"}, "could not convert string to float: 'small'"),
            ({"eps": "0"}, "eps must be > 0"),
            ({"input_size": "31"}, "input_size must be >= 32, got 31"),
            ({"metrics": "good"}, "Expecting value"),
        ],
    )
    def test_nonsense_is_refused(self, saved, metadata, reason):
        with pytest.raises(CommandError, match=rf"x\.safetensors: .*{reason}"):
            weights.read(saved(**metadata))


class Branches(nn.Sequential):
    """The Torch 7 converter's ConcatTable, whose output is a list of its children's outputs."""

    def forward(self, features):
        return [child(features) for child in self]


class Sum(nn.Module):
    def forward(self, outputs):
        return functools.reduce(operator.add, outputs)


def blog_network():
    """The whole network as the blog's converted model defines it, classifier and all, from its published description."""

    def block(inputs, width, stride, *, projects):
        branch = nn.Sequential(
            nn.Conv2d(inputs, width, (1, 1)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, (3, 3), (stride, stride), (1, 1)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, (1, 1)),
        )
        shortcut = nn.Conv2d(inputs, 4 * width, (1, 1), (stride, stride)) if projects else nn.Identity()
        return nn.Sequential(Branches(branch, shortcut), Sum(), nn.BatchNorm2d(4 * width), nn.ReLU())

    def stage(inputs, width, blocks, stride):
        first = block(inputs, width, stride, projects=True)
        return nn.Sequential(first, *(block(4 * width, width, 1, projects=False) for _ in range(blocks - 1)))

    return nn.Sequential(
        nn.Conv2d(3, 64, (7, 7), (2, 2), (3, 3)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d((3, 3), (2, 2), (1, 1)),
        stage(64, 64, 3, 1),
        stage(256, 128, 4, 2),
        stage(512, 256, 6, 2),
        stage(1024, 512, 3, 2),
        nn.AvgPool2d((7, 7), (1, 1)),
        nn.Flatten(),
        nn.Sequential(nn.Identity(), nn.Linear(2048, 3036)),
    )


@pytest.fixture(scope="module")
def vmmrdb_network():
    torch.manual_seed(0)
    return shaken(blog_network())


@pytest.fixture(scope="module")
def vmmrdb_file(vmmrdb_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("vmmrdb") / "resnet_50.pth"
    # Converted before torch 0.4.1: there are no counters in its batch norms.
    state = {name: value for name, value in vmmrdb_network.state_dict().items() if "num_batches" not in name}
    assert {"4.0.0.0.0.weight", "4.0.0.1.bias", "7.2.2.running_var", "10.1.weight"} <= state.keys()
    torch.save(state, path)
    yield path
    path.unlink()


class TestVmmrdbLayout:
    def test_it_gives_the_features_of_the_blogs_network_without_its_last_layer(self, vmmrdb_network, vmmrdb_file):
        loaded = checkpoints.load(str(vmmrdb_file))
        assert same(features(loaded.network, 224), features(nn.Sequential(*list(vmmrdb_network.children())[:-1]), 224))
        assert loaded.pixels == PIXELS["imagenet"]

    def test_its_strides_are_not_for_the_caller_to_choose(self, vmmrdb_file):
        with pytest.raises(CommandError, match="VMMRdb"):
            checkpoints.load(str(vmmrdb_file), strides="v1")


class TestRefused:
    @pytest.fixture
    def saved(self, tmp_path):
        def save(content):
            torch.save(content, tmp_path / "x.pth")
            return str(tmp_path / "x.pth")

        return save

    def test_a_file_that_is_not_there(self):
        with pytest.raises(CommandError, match=r"nowhere\.pth: no such file; weights are"):
            checkpoints.load("nowhere.pth")

    def test_a_name_torchvision_does_not_have(self):
        with pytest.raises(CommandError, match="no ResNet-50 weights 'V9'; it has IMAGENET1K_V1"):
            checkpoints.load("torchvision:V9")

    def test_a_file_that_would_run_code(self, saved, tmp_path):
        class Exploit:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "exploited"),)

        with pytest.raises(CommandError, match="not a file of weights alone"):
            checkpoints.load(saved({"x": Exploit()}))
        assert not (tmp_path / "exploited").exists()

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_a_file_of_something_else(self, tmp_path, suffix):
        path = tmp_path / f"x{suffix}"
        path.write_text("a photo")
        with pytest.raises(CommandError, match=f"x{suffix}"):
            checkpoints.load(str(path))

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
    def test_a_file_without_a_state_dict(self, saved, content):
        with pytest.raises(CommandError, match="holds no state dict"):
            checkpoints.load(saved(content))

    def test_another_network(self, saved):
        with pytest.raises(CommandError, match=r"begins with features\.0\.weight"):
            checkpoints.load(saved({"features.0.weight": torch.zeros(1)}))

    def test_missing_parameters(self, saved):
        with pytest.raises(CommandError, match=r"lacks 264 parameters of a ResNet-50, the first is bn1\.bias"):
            checkpoints.load(saved({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}))

    def test_parameters_of_a_deeper_network(self, saved, torchvision_network):
        state = hollow(torchvision_network.state_dict()) | {"layer3.6.conv1.weight": torch.zeros(1)}
        with pytest.raises(CommandError, match=r"has 1 parameters that a ResNet-50 has not, the first is layer3\.6"):
            checkpoints.load(saved(state))

    def test_parameters_of_a_wider_network(self, saved, torchvision_network):
        state = hollow(torchvision_network.state_dict()) | {"layer1.0.conv1.weight": torch.zeros(128, 64, 1, 1)}
        with pytest.raises(
            CommandError, match=r"layer1\.0\.conv1\.weight is \(128, 64, 1, 1\), must be \(64, 64, 1, 1\)"
        ):
            checkpoints.load(saved(state))
