import hashlib
import json
import re
from dataclasses import asdict

import pytest

from embedder_svc.network import bundle
from embedder_svc.network.cars import DetectorInfo
from embedder_svc.photos import preprocess
from svckit.artifact import ArtifactError, sealed

FIELDS = {
    "name": "test",
    "resize": "squash",
    "input_size": 224,
    "dimension": 2048,
    "precision": "int8",
    "normalized": True,
    "source": "here",
    "licence": "MIT",
    "training_data": "ImageNet-1k",
    "parity": {"cosine_mean": 0.999},
    "metrics": {"top_1": 0.37},
}
ONNX = b"a graph"
BEFORE_DETECTORS = "6bf5d3945024cba6b61783b7d03edf54fe7965a4eabbe9684522934afd83ea53"
"""The fingerprint of these, as it was made before a bundle could have a detector."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model"


@pytest.fixture
def written(path):
    return bundle.write(path, ONNX, **FIELDS)


def edit(path, **changes):
    """Changes fields of model.json; None deletes."""
    file = path / "model.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(sealed({key: value for key, value in content.items() if value is not None})))


def damage(path):
    with pytest.raises(ArtifactError) as caught:
        bundle.read(path)
    return caught.value


def test_what_is_written_is_read(path, written):
    assert bundle.read(path) == written
    assert {name: asdict(written)[name] for name in FIELDS} == FIELDS
    assert (path / "model.onnx").read_bytes() == ONNX


def test_the_resize_rule_and_size_make_the_resizing(written):
    assert written.resizing == preprocess.Resize("squash", 224)


def test_a_bundle_is_never_overwritten(path, written):
    with pytest.raises(ArtifactError, match="already exists"):
        bundle.write(path, ONNX, **FIELDS)


def test_a_bundle_from_before_there_was_a_flip_has_none(path, written):
    edit(path, flip=None)
    assert bundle.read(path) == written
    assert written.flip is False


class TestFingerprint:
    def test_is_of_the_graph_and_what_decides_its_pixels(self, tmp_path, written):
        def fingerprint(onnx=ONNX, **changes):
            return bundle.write(tmp_path / str(len(list(tmp_path.iterdir()))), onnx, **(FIELDS | changes)).fingerprint

        assert fingerprint() == written.fingerprint
        assert fingerprint(name="other", metrics={}, licence="none") == written.fingerprint
        others = {fingerprint(b"another graph"), fingerprint(resize="pad"), fingerprint(input_size=160)}
        assert len(others | {written.fingerprint}) == 4

    def test_can_be_computed_by_hand(self, written):
        """So that it stays the same from release to release: galleries are named by it."""
        pixels = '{"input_size":224,"preprocess":2,"resize":"squash"}'
        assert (
            written.fingerprint == hashlib.sha256(f"{hashlib.sha256(ONNX).hexdigest()}\n{pixels}".encode()).hexdigest()
        )
        assert re.fullmatch("[0-9a-f]{64}", written.fingerprint)


class TestDamage:
    def test_a_missing_directory(self, path):
        error = damage(path)
        assert error.path == path / "model.json"
        assert error.reason == "missing: no model bundle here; `vmmr-embedder export` makes one"

    def test_a_changed_description(self, path, written):
        file = path / "model.json"
        file.write_text(file.read_text().replace('"top_1": 0.37', '"top_1": 0.97'))
        error = damage(path)
        assert error.path == file
        assert error.reason.startswith("is damaged or was edited: ")

    def test_a_changed_graph(self, path, written):
        (path / "model.onnx").write_bytes(b"A graph")
        error = damage(path)
        assert error.path == path / "model.onnx"
        assert "sha256" in error.reason

    def test_a_cut_graph(self, path, written):
        (path / "model.onnx").write_bytes(ONNX[:-1])
        assert damage(path).reason == "has 6 bytes, its manifest says 7"

    def test_a_missing_graph(self, path, written):
        (path / "model.onnx").unlink()
        assert str(damage(path)) == f"{path / 'model.onnx'}: is missing"

    def test_an_unlisted_graph(self, path, written):
        edit(path, files={})
        assert damage(path).reason == "`files` does not list model.onnx"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", None),
            ("name", 7),
            ("resize", "stretch"),
            ("resize", ["squash"]),
            ("precision", "int4"),
            ("input_size", 0),
            ("input_size", 224.0),
            ("dimension", True),
            ("normalized", "yes"),
            ("flip", 1),
            ("parity", []),
        ],
    )
    def test_a_field_missing_or_of_the_wrong_kind(self, path, written, field, value):
        edit(path, **{field: value})
        error = damage(path)
        assert error.path == path / "model.json"
        assert error.reason == f"`{field}` is {value!r}"

    @pytest.mark.parametrize(("field", "value"), [("resize", "pad"), ("input_size", 160), ("fingerprint", "0" * 64)])
    def test_preprocessing_changed_behind_the_fingerprint(self, path, written, field, value):
        edit(path, **{field: value})
        assert re.match("says fingerprint [0-9a-f]{64}, its content has [0-9a-f]{64}", damage(path).reason)

    def test_a_bundle_for_another_preprocessing(self, path, written):
        edit(path, preprocess=1)
        assert damage(path).reason == "is for preprocessing 1, this vmmr does 2"


DETECTOR = {
    "name": "finder",
    "source": "here",
    "licence": "MIT",
    "input_size": 300,
    "threshold": 0.35,
    "overlap": 0.5,
    "margin": 0.03,
    "whole_from": 0.8,
    "max_cars": 8,
    "size_weight": 0.25,
    "centre_weight": 2.0,
}


class TestDetector:
    """A detector is part of the model: the fingerprint covers its graph and its settings."""

    @pytest.fixture
    def write(self, tmp_path):
        def written(folder, graph=b"a detector", **changes):
            detector = DetectorInfo(**DETECTOR | changes)
            return bundle.write(tmp_path / folder, ONNX, graph, **FIELDS, detector=detector)

        return written

    def test_what_is_written_is_read(self, write, tmp_path):
        info = write("a")
        assert bundle.read(tmp_path / "a") == info
        assert asdict(bundle.read(tmp_path / "a").detector) == DETECTOR
        assert (tmp_path / "a" / "detector.onnx").read_bytes() == b"a detector"

    def test_a_bundle_without_one_has_the_fingerprint_that_it_had_before_there_were_any(self, written):
        assert written.detector is None
        assert written.fingerprint == BEFORE_DETECTORS

    def test_a_description_from_before_there_were_any_is_read(self, path, written):
        edit(path, detector=None)
        assert "detector" not in json.loads((path / "model.json").read_text())
        assert bundle.read(path) == written

    @pytest.mark.parametrize("name", [name for name in DETECTOR if name not in ("name", "source", "licence")])
    def test_each_setting_changes_the_fingerprint(self, write, name):
        other = DETECTOR[name] + 1 if isinstance(DETECTOR[name], int) else DETECTOR[name] / 2
        assert write("a").fingerprint != write("b", **{name: other}).fingerprint

    def test_the_graph_changes_the_fingerprint(self, write, written):
        prints = {written.fingerprint, write("a").fingerprint, write("b", b"another").fingerprint}
        assert len(prints) == 3

    @pytest.mark.parametrize("name", ["name", "source", "licence"])
    def test_what_is_for_people_does_not(self, write, name):
        assert write("a").fingerprint == write("b", **{name: "other"}).fingerprint

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("threshold", 0.0),
            ("threshold", "0.5"),
            ("max_cars", 0),
            ("margin", -1),
            ("whole_from", "0.9"),
            ("name", 3),
        ],
    )
    def test_a_setting_that_cannot_be_is_named(self, write, tmp_path, field, value):
        write("a")
        edit(tmp_path / "a", detector=DETECTOR | {field: value})
        assert f"`detector.{field}` is {value!r}" in str(damage(tmp_path / "a"))

    def test_a_description_that_is_none_is_named(self, write, tmp_path):
        write("a")
        edit(tmp_path / "a", detector="yes")
        assert "`detector` is 'yes'" in str(damage(tmp_path / "a"))

    def test_settings_that_were_changed_are_found(self, write, tmp_path):
        write("a")
        edit(tmp_path / "a", detector=DETECTOR | {"threshold": 0.2})
        assert "says fingerprint" in str(damage(tmp_path / "a"))

    def test_a_detector_that_was_taken_away_is_found(self, write, tmp_path):
        write("a")
        edit(tmp_path / "a", detector=None)
        assert "says fingerprint" in str(damage(tmp_path / "a"))

    def test_a_graph_that_is_not_listed_is_found(self, write, tmp_path):
        write("a")
        files = json.loads((tmp_path / "a" / "model.json").read_text())["files"]
        edit(tmp_path / "a", files={"model.onnx": files["model.onnx"]})
        assert "`files` does not list detector.onnx" in str(damage(tmp_path / "a"))

    def test_a_damaged_graph_is_named(self, write, tmp_path):
        write("a")
        (tmp_path / "a" / "detector.onnx").write_bytes(b"a detectoR")
        assert damage(tmp_path / "a").path.name == "detector.onnx"
