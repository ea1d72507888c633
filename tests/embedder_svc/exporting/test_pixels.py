"""Cheaper pixels give the same embeddings: to the bit in int8, nearly in the other precisions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from embedder_svc.exporting import graph, half, parity, pixels, quantize
from embedder_svc.exporting.graph import Embedder
from embedder_svc.exporting.traits import PIXELS, PixelNorm
from embedder_svc.network import bundle
from tests.embedder_svc.graphs import run

SIZE = 32
SHIPPED = Path(__file__).parents[3] / "models" / "resnet50-cars-int8"
TURNED = PixelNorm(bgr=False, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), scale=1 / 255)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AvgPool2d(4))
    return nn.Sequential(made, nn.Flatten()).eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module", params=["imagenet", "caffe", "caffe, mirrored", "turned"])
def exported(request, network):
    norm = TURNED if request.param == "turned" else PIXELS[request.param.partition(",")[0]]
    embedder = Embedder(network, norm, normalize=True, flip="mirrored" in request.param)
    if request.param == "turned":  # an order of channels that is not its own inverse
        embedder.channels = torch.tensor([1, 2, 0])
    return graph.export(embedder, SIZE)


@pytest.fixture(scope="module")
def photos():
    return np.concatenate(list(parity.drawn(SIZE, 9)))


@pytest.mark.parametrize("count", [1, 9])
def test_embeddings_are_the_same(exported, photos, count):
    cheap = pixels.cheapened(exported)
    onnx.checker.check_model(cheap, full_check=True)
    np.testing.assert_allclose(run(cheap, photos[:count]), run(exported, photos[:count]), atol=1e-6)
    assert cheap.graph.input == exported.graph.input
    assert cheap.graph.output == exported.graph.output


def test_those_of_int8_are_the_same_bits(exported, photos):
    quantized = quantize.to_int8(exported, [photos])
    np.testing.assert_array_equal(run(pixels.cheapened(quantized), photos), run(quantized, photos))


def test_those_of_float16_agree(exported, photos):
    cheap = half.to_float16(pixels.cheapened(exported))
    np.testing.assert_allclose(run(cheap, photos), run(half.to_float16(exported), photos), atol=2e-3)


def test_nothing_is_done_by_groups_of_three_any_more(exported):
    cheap = pixels.cheapened(exported)
    assert "Gather" in [node.op_type for node in exported.graph.node]
    assert "Gather" not in [node.op_type for node in cheap.graph.node[:6]]
    constants = map(numpy_helper.to_array, cheap.graph.initializer)
    shapes = [constant.shape for constant in constants if constant.dtype == np.float32]
    assert (3,) not in shapes
    assert shapes.count((3 * SIZE,)) == 2


def test_the_graph_it_is_made_from_stays_as_it_was(exported):
    before = exported.SerializeToString()
    pixels.cheapened(exported)
    assert exported.SerializeToString() == before


def test_a_graph_that_begins_otherwise_stays_as_it_is(exported, tiny_bundle):
    cheap = pixels.cheapened(exported)
    for model in (cheap, onnx.load(tiny_bundle / bundle.GRAPH)):
        assert pixels.cheapened(model).SerializeToString() == model.SerializeToString()


def test_the_model_that_ships_gives_the_same_bits():
    model = onnx.load(SHIPPED / bundle.GRAPH)
    photos = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    np.testing.assert_array_equal(run(pixels.cheapened(model), photos), run(model, photos))
