"""Detectors from their source to a bundle. The small one here has the form of the real one: an SSD of six maps."""

import csv
import dataclasses
import hashlib
import io
import os
import tarfile

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedder_svc.__main__ import main
from embedder_svc.exporting import detector_graph, detectors, npm_detector, quantize
from embedder_svc.network import bundle, cars
from embedder_svc.network.detector import View
from embedder_svc.network.model import Model
from embedder_svc.photos.photo_files import LIMITS
from embedder_svc.photos.preprocess import Decoded, Resize
from svckit.cli import CommandError

SIDE = 32
COUNT = 2 * 2 * 3 + 5 * 6


@pytest.fixture(scope="session")
def shared_detector(root):
    path = root.parent / "shared/weights/car_detector.onnx"
    if not path.exists():
        pytest.skip("the real detector: ../shared/weights/car_detector.onnx is not beside this checkout")
    return path


def small(side=SIDE, count=COUNT, classes=24, seed=0):
    """A detector as `npm_detector` gives it; some weights are stored in float16."""
    rng = np.random.default_rng(seed)
    weights = {
        "kernel_half": rng.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float16),
        "boxes_half": rng.normal(0, 0.5, (8, count * 4)).astype(np.float16),
        "classes": rng.normal(0, 1, (8, count * classes)).astype(np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
        "boxes_shape": np.array([0, count, 4]),
        "classes_shape": np.array([0, count, classes]),
    }
    make = helper.make_node
    nodes = [
        make("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        make("Cast", ["kernel_half"], ["kernel"], to=TensorProto.FLOAT),
        make("Cast", ["boxes_half"], ["boxes_matrix"], to=TensorProto.FLOAT),
        make("Conv", ["planes", "kernel"], ["plain"], strides=[2, 2]),
        make("Clip", ["plain", "zero", "six"], ["active"]),
        make("GlobalAveragePool", ["active"], ["pooled"]),
        make("Flatten", ["pooled"], ["features"]),
        make("MatMul", ["features", "boxes_matrix"], ["flat_boxes"]),
        make("Reshape", ["flat_boxes", "boxes_shape"], ["box_encodings"]),
        make("MatMul", ["features", "classes"], ["flat_classes"]),
        make("Reshape", ["flat_classes", "classes_shape"], ["class_predictions"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", side, side, 3])],
        [
            helper.make_tensor_value_info("box_encodings", TensorProto.FLOAT, ["n", count, 4]),
            helper.make_tensor_value_info("class_predictions", TensorProto.FLOAT, ["n", count, classes]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(model, inputs):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content).run(None, inputs)


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)


class TestAnchors:
    def test_there_are_as_many_as_the_real_detector_has(self):
        assert detector_graph.anchors(300).shape == (1917, 4)

    def test_the_first_map_has_three_a_cell_and_the_others_six(self):
        found = detector_graph.anchors(300)
        first = found[:3]
        np.testing.assert_allclose(first[:, :2], 0.5 / 19)
        np.testing.assert_allclose(
            first[:, 2:], [(0.1, 0.1), (0.2 * 2**0.5, 0.2 / 2**0.5), (0.2 / 2**0.5, 0.2 * 2**0.5)]
        )
        np.testing.assert_allclose(found[3, :2], (1.5 / 19, 0.5 / 19))  # along a row first
        second = found[19 * 19 * 3 :][:6]
        np.testing.assert_allclose(second[:, :2], 0.05)
        np.testing.assert_allclose(second[0, 2:], 0.35)
        np.testing.assert_allclose(second[5, 2:], (0.35 * 0.5) ** 0.5)

    def test_the_last_ends_at_the_scale_one(self):
        last = detector_graph.anchors(300)[-6:]
        np.testing.assert_allclose(last[:, :2], 0.5)
        np.testing.assert_allclose(last[0, 2:], 0.95)
        np.testing.assert_allclose(last[3, 2:], (0.95 * 3**0.5, 0.95 / 3**0.5))
        np.testing.assert_allclose(last[5, 2:], 0.95**0.5)


class TestServedGraph:
    def test_it_decodes_boxes_and_scores_as_the_papers_formula_says(self, photos):
        raw = small()
        encodings, logits = run(raw, {"image": photos.astype(np.float32) / 127.5 - 1})
        boxes, scores = run(detector_graph.served(raw), {"images": photos})
        anchors = detector_graph.anchors(SIDE)
        x = encodings[..., 1] / 10 * anchors[:, 2] + anchors[:, 0]
        y = encodings[..., 0] / 10 * anchors[:, 3] + anchors[:, 1]
        width, height = np.exp(encodings[..., 3] / 5) * anchors[:, 2], np.exp(encodings[..., 2] / 5) * anchors[:, 3]
        expected = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=-1)
        np.testing.assert_allclose(boxes, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[..., 23])), rtol=1e-4, atol=1e-6)

    def test_a_batch_gives_what_its_photos_give(self, photos):
        served = detector_graph.served(small())
        together = run(served, {"images": photos})
        for number in range(len(photos)):
            alone = run(served, {"images": photos[number : number + 1]})
            for output, one in zip(together, alone, strict=True):
                np.testing.assert_allclose(output[number], one[0], rtol=1e-4, atol=1e-6)

    def test_float16_weights_are_folded_for_the_quantiser_and_change_nothing(self, photos):
        served = detector_graph.served(small())
        folded = detector_graph.with_folded_casts(served)
        onnx.checker.check_model(folded, full_check=True)
        kinds = [node.op_type for node in folded.graph.node]
        assert kinds.count("Cast") == 1  # of the pixels
        for output, expected in zip(run(folded, {"images": photos}), run(served, {"images": photos}), strict=True):
            np.testing.assert_array_equal(output, expected)

    def test_int8_agrees(self, photos):
        folded = detector_graph.with_folded_casts(detector_graph.served(small()))
        quantized = quantize.to_int8(folded, [photos])
        assert "QuantizeLinear" in {node.op_type for node in quantized.graph.node}
        boxes, scores = run(quantized, {"images": photos})
        expected_boxes, expected_scores = run(folded, {"images": photos})
        assert np.abs(boxes - expected_boxes).max() < 0.02
        assert np.abs(scores - expected_scores).max() < 0.05

    @pytest.mark.parametrize("changes", [{"count": COUNT - 1}, {"classes": 23}, {"side": 64}])
    def test_another_form_is_refused(self, changes):
        with pytest.raises(CommandError, match="a detector has the input `image`"):
            detector_graph.served(small(**changes))

    def test_an_embedding_network_is_refused(self, tiny_bundle):
        with pytest.raises(CommandError, match="a detector has the input `image`"):
            detector_graph.served(onnx.load(tiny_bundle / "model.onnx"))


@pytest.fixture
def folder(tmp_path, encode, photos):
    made = tmp_path / "photos"
    made.mkdir()
    for number, pixels in enumerate(photos):
        (made / f"{number}.png").write_bytes(encode(pixels, "PNG"))
    return made


@pytest.fixture
def file(tmp_path):
    onnx.save(small(), tmp_path / "finder.onnx")
    return tmp_path / "finder.onnx"


class TestAddedToABundle:
    def test_the_network_stays_as_it_is_to_the_byte(self, tiny_bundle, file, tmp_path, monkeypatch, capsys):
        self.export(monkeypatch, "--weights", tiny_bundle, "--detector", file, "--out", tmp_path / "out")
        old, new = bundle.read(tiny_bundle), bundle.read(tmp_path / "out")
        assert (tmp_path / "out" / "model.onnx").read_bytes() == (tiny_bundle / "model.onnx").read_bytes()
        assert new.fingerprint != old.fingerprint
        assert (new.name, new.precision, new.resize, new.dimension) == ("out", "fp32", old.resize, old.dimension)
        assert (new.detector.name, new.detector.source, new.detector.input_size) == ("finder", "finder.onnx", SIDE)
        assert "fp32, finds cars by finder, fingerprint" in capsys.readouterr().out
        model = Model.open(tmp_path / "out", device="cpu", threads=1)
        model.warm_up()

    def test_an_int8_bundle_gets_an_int8_detector(self, make_bundle, file, folder, tmp_path, monkeypatch):
        make_bundle(tmp_path / "int8", precision="int8")
        flags = ("--weights", tmp_path / "int8", "--detector", file, "--out", tmp_path / "out")
        with pytest.raises(SystemExit, match="an int8 detector needs --calibration"):
            self.export(monkeypatch, *flags)
        self.export(monkeypatch, *flags, "--calibration", folder)
        graph = onnx.load(tmp_path / "out" / "detector.onnx").graph
        assert "QuantizeLinear" in {node.op_type for node in graph.node}
        Model.open(tmp_path / "out", device="cpu", threads=1).warm_up()

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ((), "is a bundle: it needs --head, and --calibration to fit that on, or a --detector"),
            (("--detector", "FILE", "--flip", "--precision", "fp16"), "--precision can.t be chosen for"),
            (("--detector", "FILE", "--no-normalize"), "--no-normalize can.t be chosen for"),
            (("--detector", "FILE", "--resize", "pad"), "--resize can.t be chosen for"),
        ],
    )
    def test_what_cannot_be_changed_is_named(self, tiny_bundle, file, tmp_path, monkeypatch, flags, said):  # noqa: PLR0917 (fixtures)
        given = [str(file) if flag == "FILE" else flag for flag in flags]
        with pytest.raises(SystemExit, match=said):
            self.export(monkeypatch, "--weights", tiny_bundle, "--out", tmp_path / "out", *given)
        assert not (tmp_path / "out").exists()

    def test_a_damaged_bundle_is_named(self, make_bundle, file, tmp_path, monkeypatch):
        make_bundle(tmp_path / "old")
        (tmp_path / "old" / "model.onnx").write_bytes(b"x")
        with pytest.raises(SystemExit, match=str(tmp_path / "old" / "model.onnx")):
            self.export(monkeypatch, "--weights", tmp_path / "old", "--detector", file, "--out", tmp_path / "out")

    def export(self, monkeypatch, *flags):
        monkeypatch.setattr("sys.argv", ["vmmr-embedder", "export", *map(str, flags)])
        main()


class TestSources:
    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(CommandError, match="no such file; a detector is npm:mediapipe-objectron, none or a file"):
            detectors.load(str(tmp_path / "none.onnx"))

    def test_a_file_that_is_no_graph(self, tmp_path):
        (tmp_path / "bad.onnx").write_bytes(b"\xff\xff\xff")
        with pytest.raises(CommandError, match=r"bad\.onnx: no ONNX graph"):
            detectors.load(str(tmp_path / "bad.onnx"))

    def test_the_package_is_verified(self, npm):
        npm("echo else > mediapipe-objectron-0.4.1675468480.tgz")
        with pytest.raises(CommandError, match=r"sha256 is .*, it must be fc3e37b326b0"):
            npm_detector.fetch()

    def test_the_package_is_fetched_by_its_scoped_name(self, npm, tmp_path, monkeypatch):
        package = packed(b"x" * 184 + b"the model")
        (tmp_path / "package.tgz").write_bytes(package)
        asked = "pack --silent @mediapipe/objectron@0.4.1675468480"
        npm(f'[ "$*" = "{asked}" ] && cp {tmp_path}/package.tgz mediapipe-objectron-0.4.1675468480.tgz')
        monkeypatch.setattr(npm_detector, "SHA256", hashlib.sha256(package).hexdigest())
        tflite_graph = pytest.importorskip("embedder_svc.exporting.tflite_graph", reason="tflite is not installed")
        monkeypatch.setattr(tflite_graph, "convert", lambda content: content)
        assert npm_detector.fetch() == b"the model"

    def test_the_published_package_is_the_detector_we_know(self, shared_detector, root):
        pytest.importorskip("tflite", reason="tflite is not installed")
        if "VMMR_NETWORK_TESTS" not in os.environ:
            pytest.skip("downloads 20 MB: set VMMR_NETWORK_TESTS=1")
        image = np.random.default_rng(0).uniform(-1, 1, (2, 300, 300, 3)).astype(np.float32)
        ours, known = run(npm_detector.fetch(), {"image": image}), run(shared_detector.read_bytes(), {"image": image})
        for output, expected in zip(ours, known, strict=True):
            np.testing.assert_allclose(output, expected, atol=1e-4)


def packed(assets):
    """An npm package with these assets."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/objectron_solution_packed_assets.data")
        member.size = len(assets)
        archive.addfile(member, io.BytesIO(assets))
    return buffer.getvalue()


class TestReal:
    """The real detector on real photos."""

    @pytest.fixture(scope="class")
    @staticmethod
    def served(shared_detector):
        return detectors.load(str(shared_detector)).made()

    def test_it_finds_a_car_in_each_of_its_photos(self, served, root, tmp_path, make_bundle):
        folder = root.parent / "shared/data/boxed"
        if not folder.is_dir():
            pytest.skip("real photos: ../shared/data/boxed is not beside this checkout")
        info = make_bundle(tmp_path / "plain")
        fields = {each.name: getattr(info, each.name) for each in dataclasses.fields(info)}
        fields |= {"detector": served.info}
        del fields["fingerprint"]
        network = (tmp_path / "plain" / "model.onnx").read_bytes()
        bundle.write(tmp_path / "real", network, served.onnx, **fields)
        detector = Model.open(tmp_path / "real", device="cpu", threads=1).detector
        with (folder / "boxes.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))[::40]
        overlaps = []
        for row in rows:
            photo = Decoded((folder / row["path"]).read_bytes(), resize=Resize("squash", 224), limits=LIMITS)
            (found,) = detector.find([View(photo.view(300), photo.size)])
            known = np.array([float(row[edge]) for edge in ("left", "top", "right", "bottom")], np.float32)
            boxes = np.array([dataclasses.astuple(car.box) for car in found[:1]], np.float32).reshape(-1, 4)
            overlaps.append(float(cars.overlaps(known, boxes).sum()))
        assert len(overlaps) == 41
        assert np.mean(np.array(overlaps) > 0.5) >= 0.95
        assert np.median(overlaps) > 0.85
