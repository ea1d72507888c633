"""Detectors in memory, tiny and real ones."""

import json
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from PIL import Image

from embedder_svc.network import bundle
from embedder_svc.network.detector import View
from embedder_svc.network.model import Model
from svckit.artifact import ArtifactError


@pytest.fixture
def detector(car_bundle):
    return Model.open(car_bundle, device="cpu", threads=1).detector


def view(pixels):
    return View(np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)), pixels.shape[1::-1])


class TestDetector:
    def test_finds_the_cars_of_each_photo_of_a_batch(self, detector, street):
        photos = [street({(1, 2): 255}), street({}), street({(0, 0): 255, (3, 3): 255})]
        found = detector.find([view(photo) for photo in photos])
        corners = [[(car.box.left, car.box.top) for car in each] for each in found]
        assert corners == [[(0.25, 0.5)], [], [(0.0, 0.0), (0.75, 0.75)]]
        assert found == [detector.find([view(photo)])[0] for photo in photos]

    def test_runs_as_many_batches_at_once_as_the_network(self, car_bundle):
        model = Model.open(car_bundle, device="cpu", threads=3, max_batch=4)
        assert (model.detector.lanes, model.detector.max_batch) == (model.lanes, model.max_batch) == (3, 4)

    def test_a_model_without_one_has_none(self, tiny_bundle):
        assert Model.open(tiny_bundle, device="cpu").detector is None


class TestBadGraphs:
    def opened(self, path, make_bundle, change):
        """Open a bundle whose detector's graph was changed."""
        make_bundle(path / "model", detector={})
        info = bundle.read(path / "model")
        graph = onnx.load(path / "model" / "detector.onnx")
        change(graph.graph)
        fields = {name: getattr(info, name) for name in asdict(info) if name != "fingerprint"}
        network = (path / "model" / "model.onnx").read_bytes()
        bundle.write(path / "bad", network, graph.SerializeToString(), **fields)
        Model.open(path / "bad", device="cpu", threads=1).warm_up()

    def test_another_input(self, make_bundle, tmp_path):
        def change(graph):
            graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64

        with pytest.raises(ArtifactError, match=r"detector\.onnx: its input must be `images`, uint8 \(N, 32, 32, 3\)"):
            self.opened(tmp_path, make_bundle, change)

    def test_other_outputs(self, make_bundle, tmp_path):
        def change(graph):
            del graph.output[1]

        with pytest.raises(ArtifactError, match=r"its outputs must be `boxes`, float32 \(N, A, 4\), and `scores`"):
            self.opened(tmp_path, make_bundle, change)

    def test_numbers_that_are_not_finite(self, make_bundle, tmp_path):
        def change(graph):
            boxes = next(weight for weight in graph.initializer if weight.name == "fields")
            values = onnx.numpy_helper.to_array(boxes).copy()
            values[0, 0, 0] = np.nan
            boxes.CopyFrom(onnx.numpy_helper.from_array(values, "fields"))

        with pytest.raises(ArtifactError, match=r"detector\.onnx: does not give finite numbers for a black photo"):
            self.opened(tmp_path, make_bundle, change)

    def test_no_graph(self, make_bundle, tmp_path):
        make_bundle(tmp_path / "model", detector={})
        (tmp_path / "model" / "detector.onnx").unlink()
        with pytest.raises(ArtifactError, match=r"detector\.onnx"):
            Model.open(tmp_path / "model", device="cpu")


def test_what_info_prints_is_json(car_bundle):
    described = json.loads(json.dumps(asdict(bundle.read(car_bundle))))
    assert described["detector"]["name"] == "tiny-red"
