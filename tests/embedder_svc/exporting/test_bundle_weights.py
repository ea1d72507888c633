"""Weights read back from a bundle are those that were exported, whatever the graph stores them as."""

import numpy as np
import pytest
import torch

from embedder_svc.exporting import bundle_weights, checkpoints, graph, half, heads, pixels, quantize
from embedder_svc.exporting.graph import Embedder
from embedder_svc.exporting.resnet import ResNet50
from embedder_svc.exporting.traits import PIXELS
from embedder_svc.exporting.vmmrdb import VmmrdbResNet50
from embedder_svc.exporting.whitening import Head
from embedder_svc.network import bundle
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.embedder_svc.exporting.test_checkpoints import features, same, shaken

SIZE = 64
KINDS = {"caffe": ("v1", 1e-3), "imagenet": ("v1.5", 1e-5)}
PHOTOS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
DESCRIBED = {
    "name": "cars",
    "resize": "pad",
    "input_size": SIZE,
    "dimension": 2048,
    "precision": "fp32",
    "normalized": True,
    "source": "chance",
    "licence": "MIT",
    "training_data": "none",
}


@pytest.fixture(scope="module", params=KINDS)
def exported(request):
    """The network, its pixels, and its graph."""
    strides, eps = KINDS[request.param]
    torch.manual_seed(0)
    network = shaken(ResNet50(stride_in=strides, eps=eps)).requires_grad_(requires_grad=False)
    return network, request.param, graph.export(Embedder(network, PIXELS[request.param], normalize=True), SIZE)


def head():
    rng = np.random.default_rng(0)
    return Head(rng.standard_normal((2048, 8), np.float32), rng.standard_normal(8, np.float32))


STORED = {
    "as torch writes it": lambda model: model,
    "with cheap pixels": pixels.cheapened,
    "in float16": lambda model: half.to_float16(pixels.cheapened(model)),
    "with a head": lambda model: half.with_stored_matrices(heads.with_head(pixels.cheapened(model), head())),
}


@pytest.mark.parametrize("stored", STORED)
def test_they_compute_what_the_exported_ones_do(exported, tmp_path, stored):
    network, kind, model = exported
    info = bundle.write(tmp_path / "cars", STORED[stored](model).SerializeToString(), **DESCRIBED)
    found = checkpoints.load(str(tmp_path / "cars"))
    if stored != "in float16":
        assert same(features(found.network), features(network))
    else:
        assert torch.cosine_similarity(features(found.network), features(network)).min() > 0.9999
    assert found.folded
    assert found.source == f"cars {info.fingerprint[:12]}"
    traits = found.traits
    assert (traits.strides, traits.pixels, traits.resize) == (KINDS[kind][0], kind, "pad")
    assert (traits.input_size, traits.licence, traits.training_data) == (SIZE, "MIT", "none")


def test_of_eight_bits_they_are_within_half_a_step(exported, tmp_path):
    _, _, model = exported
    cheap = pixels.cheapened(model)
    for name, each in (("fp32", cheap), ("int8", quantize.to_int8(cheap, [PHOTOS]))):
        bundle.write(tmp_path / name, each.SerializeToString(), **DESCRIBED)
    exact, stored = (bundle_weights.read(tmp_path / name)[0] for name in ("fp32", "int8"))
    assert exact.keys() == stored.keys()
    for name in (name for name in exact if exact[name].ndim == 4):
        step = exact[name].abs().amax((1, 2, 3), keepdim=True) / 127
        assert ((exact[name] - stored[name]).abs() <= 0.5001 * step).all(), name


def test_a_network_in_another_layout_is_refused(tmp_path):
    network = VmmrdbResNet50().eval().requires_grad_(requires_grad=False)
    model = graph.export(Embedder(network, PIXELS["imagenet"], normalize=True), SIZE)
    bundle.write(tmp_path / "vmmrdb", model.SerializeToString(), **DESCRIBED)
    with pytest.raises(CommandError, match=rf"{tmp_path}/vmmrdb: is no ResNet-50 in torchvision's layout"):
        checkpoints.load(str(tmp_path / "vmmrdb"))


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no model bundle here"):
        checkpoints.load(str(tmp_path))
