"""Heads in graphs, and bundles that get another one: `vmmr-embedder export --weights BUNDLE --head whitened`."""

import argparse
from pathlib import Path

import numpy as np
import onnx
import pytest

from embedder_svc.exporting import command as export_command
from embedder_svc.exporting import from_bundle, graph, heads
from embedder_svc.exporting.photos import Photos
from embedder_svc.exporting.whitening import Head, Whitening
from embedder_svc.network import bundle
from embedder_svc.network.cutter import Cutter
from embedder_svc.network.model import Model
from embedder_svc.photos import photo_files
from embedder_svc.photos.resize import Resize
from svckit.cli import CommandError
from tests.embedder_svc.graphs import run

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "models" / "resnet50-cars-int8"
FEATURES = 64  # of the tiny bundle, before its product


@pytest.fixture
def tiny(tiny_bundle):
    return onnx.load(tiny_bundle / bundle.GRAPH)


@pytest.fixture(scope="module")
def head():
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((FEATURES, 24)).astype(np.float16).astype(np.float32)
    return Head(matrix, rng.standard_normal(24).astype(np.float32))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(4).integers(0, 256, (7, 32, 32, 3), np.uint8)


def cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


class TestGraph:
    def test_the_folded_head_gives_what_the_two_steps_give_one_after_the_other(self, tiny, head, pixels):
        body = heads.without_products(tiny)
        apart = head.apply(run(heads.without_length(body), pixels))
        folded = run(heads.with_head(body, head), pixels)
        assert cosines(folded, apart).min() > 1 - 1e-6
        np.testing.assert_allclose(np.linalg.norm(folded, axis=1), 1, atol=1e-6)

    def test_its_dimension_is_the_heads_and_the_graph_is_whole(self, tiny, head):
        body = heads.without_products(tiny)
        assert graph.dimension(body) == FEATURES
        made = heads.with_head(body, head)
        assert graph.dimension(made) == 24
        onnx.checker.check_model(made, full_check=True)

    def test_without_products_features_are_as_they_were_before_the_projection(self, tiny, pixels):
        tiny.graph.output.append(onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, ["N", FEATURES]))
        expected = run(tiny, pixels, "flat")
        del tiny.graph.output[1:]
        np.testing.assert_array_equal(run(heads.without_length(heads.without_products(tiny)), pixels), expected)

    def test_a_projection_that_is_taken_out_leaves_no_weights_behind(self, tiny):
        assert "matrix" not in {weight.name for weight in heads.without_products(tiny).graph.initializer}

    def test_a_head_is_taken_out_again_to_the_byte(self, tiny, head):
        body = heads.without_products(tiny)
        again = heads.without_products(heads.with_head(body, head))
        assert again.SerializeToString() == heads.without_products(body).SerializeToString()

    def test_without_unit_length_it_is_at_the_end(self, tiny, head, pixels):
        body = heads.without_length(heads.without_products(tiny))
        made = run(heads.with_head(body, head), pixels)
        expected = run(body, pixels) @ head.matrix + head.bias
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)

    def test_the_graph_it_is_made_from_stays_as_it_was(self, tiny, head):
        before = tiny.SerializeToString()
        heads.with_head(tiny, Head(np.zeros((16, 2), np.float32), np.zeros(2, np.float32)))
        heads.without_length(tiny)
        heads.without_products(tiny)
        assert tiny.SerializeToString() == before

    def test_a_head_for_other_features_is_refused(self, tiny, head):
        with pytest.raises(CommandError, match="the graph can't be given another head"):
            heads.with_head(tiny, head)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, encode):
    """Twelve drawn photos of three labels, in a manifest; the same in a folder is no manifest."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    lines = ["path,label,split"]
    for number in range(12):
        name = f"{number:02}.png"
        (folder / name).write_bytes(encode(rng.integers(0, 256, (32, 32, 3), np.uint8), "PNG"))
        lines.append(f"{name},car {number % 3},train")
    (folder / "manifest.csv").write_text("\n".join([*lines, ""]))
    return folder / "manifest.csv"


RECIPE = Whitening(within=0.5, shrinkage=0.5, directions=5)


class TestBundles:
    def test_a_bundle_gets_a_head_and_says_so(self, tiny_bundle, photos, tmp_path):
        before = bundle.read(tiny_bundle)
        info = from_bundle.with_new_head(tiny_bundle, tmp_path / "new", "new", RECIPE, Photos.choose(photos, None, 8))
        assert info == bundle.read(tmp_path / "new")
        assert (info.name, info.dimension, info.precision) == ("new", 5, before.precision)
        assert (info.source, info.licence, info.resize) == (before.source, before.licence, before.resize)
        recipe = {
            "kind": "whitened",
            "within": 0.5,
            "shrinkage": 0.5,
            "worn": 0.2,
            "directions": 5,
            "photos": 12,
            "labels": 3,
        }
        assert info.head == recipe
        assert info.parity["cosine_min"] > 1 - 1e-6
        assert info.fingerprint != before.fingerprint

    def test_it_is_fitted_to_the_features_as_they_are(self, tiny_bundle, photos, tmp_path):
        chosen = Photos.choose(photos, None, 8)
        from_bundle.with_new_head(tiny_bundle, tmp_path / "new", "new", RECIPE, chosen)
        raw = heads.without_length(onnx.load(tmp_path / "new" / bundle.GRAPH))
        mapped = run(
            raw, np.concatenate(list(photo_files.batches(chosen.all, photo_files.whole(Resize("squash", 32)), 12)))
        )
        np.testing.assert_allclose(mapped.mean(axis=0), 0, atol=1e-3 * np.abs(mapped).max())

    def test_of_a_bundle_with_a_detector_it_is_fitted_to_the_main_cars(self, car_bundle, encode, tmp_path):
        rng = np.random.default_rng(6)
        for number in range(12):
            photo = rng.integers(0, 60, (64, 64, 3), np.uint8)
            photo[20:40, 8 + number : 40 + number] = (230, 20, 10 * number)
            (tmp_path / f"{number:02}.png").write_bytes(encode(photo, "PNG"))
        chosen = Photos.choose(tmp_path, None, 8)
        recipe = Whitening(shrinkage=0.5, directions=5)
        from_bundle.with_new_head(car_bundle, tmp_path / "new", "new", recipe, chosen)
        raw = heads.without_length(onnx.load(tmp_path / "new" / bundle.GRAPH))
        cutter = Cutter(Model.open(car_bundle, device="cpu"), whole=False)
        reads = {"main cars": lambda content: cutter.part(content)[0], "whole": photo_files.whole(Resize("squash", 32))}
        off = {}
        for name, read in reads.items():
            mapped = run(raw, np.concatenate(list(photo_files.batches(chosen.all, read, 12))))
            off[name] = np.abs(mapped.mean(axis=0)).max() / np.abs(mapped).max()
        assert off["main cars"] < 1e-3
        assert off["whole"] > 0.1

    def test_another_head_is_another_fingerprint_and_the_same_one_the_same(self, tiny_bundle, photos, tmp_path):
        chosen = Photos.choose(photos, None, 8)
        first, again, other = (
            from_bundle.with_new_head(tiny_bundle, tmp_path / name, "new", recipe, chosen).fingerprint
            for name, recipe in (("a", RECIPE), ("b", RECIPE), ("c", Whitening(0.5, 0.4, directions=5)))
        )
        assert first == again != other

    def test_a_head_is_replaced_by_one_fitted_to_the_same_features(self, tiny_bundle, photos, tmp_path):
        chosen = Photos.choose(photos, None, 8)
        first = from_bundle.with_new_head(tiny_bundle, tmp_path / "a", "new", Whitening(0, 0.1), chosen)
        again = from_bundle.with_new_head(tmp_path / "a", tmp_path / "b", "new", RECIPE, chosen)
        direct = from_bundle.with_new_head(tiny_bundle, tmp_path / "c", "new", RECIPE, chosen)
        assert first.dimension == FEATURES
        assert again == direct

    def test_a_detector_stays_with_the_bundle_that_gets_a_head(self, car_bundle, photos, tmp_path):
        chosen = Photos.choose(photos, None, 8)
        info = from_bundle.with_new_head(car_bundle, tmp_path / "new", "new", RECIPE, chosen)
        assert info.detector == bundle.read(car_bundle).detector
        assert (tmp_path / "new" / "detector.onnx").read_bytes() == (car_bundle / "detector.onnx").read_bytes()
        assert bundle.read(tmp_path / "new") == info

    def test_a_bundle_without_a_head_says_nothing_of_one(self, tiny_bundle):
        assert bundle.read(tiny_bundle).head == {}

    def test_the_model_that_ships_gets_one_by_real_photos(self, stanford_cars, tmp_path):
        labels = sorted((stanford_cars / "train").iterdir())[:6]
        lines = [
            f"{path.relative_to(stanford_cars)},{path.parent.name}"
            for at in labels
            for path in sorted(at.iterdir())[:3]
        ]
        manifest = tmp_path / "manifest.csv"
        manifest.write_text("\n".join(["path,label", *lines, ""]))
        chosen = Photos.choose(manifest, stanford_cars, 8)
        info = from_bundle.with_new_head(SHIPPED, tmp_path / "new", "new", Whitening(directions=32), chosen)
        assert (info.dimension, info.head["photos"], info.head["labels"]) == (32, 18, 6)
        assert info.parity["cosine_min"] > 1 - 1e-6
        embeddings = Model.open(tmp_path / "new", device="cpu").embed(np.zeros((2, 224, 224, 3), np.uint8))
        assert embeddings.shape == (2, 32)


@pytest.fixture
def export():
    """`export(*flags)` runs the command in this process."""
    parser = argparse.ArgumentParser()
    export_command.add(parser.add_subparsers())

    def run(*flags):
        args = parser.parse_args(["export", *map(str, flags)])
        args.run(args)

    return run


class TestCommand:
    def test_a_bundle_by_name(self, export, tiny_bundle, photos, tmp_path, capsys):
        flags = ("--head", "whitened", "--within", "0", "--shrinkage", "0.2", "--directions", "4")
        export("--weights", tiny_bundle, "--out", tmp_path / "new", "--calibration", photos, *flags)
        info = bundle.read(tmp_path / "new")
        assert info.head["shrinkage"] == 0.2
        assert (info.name, info.dimension) == ("new", 4)
        assert "parity with the features and the head, one after the other on 12 photos" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ((), "is a bundle: it needs --head, and --calibration"),
            (("--head", "whitened"), "is a bundle: it needs --head, and --calibration"),
            (("--precision", "fp32"), "--precision can't be chosen for .*tiny, which is a bundle"),
            (("--flip",), "--flip can't be chosen for"),
            (("--no-normalize",), "--no-normalize can't be chosen for"),
            (("--input-size", "64"), "--input-size can't be chosen for"),
            (("--training-data", "more"), "--training-data can't be chosen for"),
            (("--head", "whitened", "--shrinkage", "0"), "--shrinkage must be > 0, got 0"),
        ],
    )
    def test_what_a_bundle_can_not_be_given_is_refused(self, export, tiny_bundle, tmp_path, flags, message):
        with pytest.raises(CommandError, match=message):
            export("--weights", tiny_bundle, "--out", tmp_path / "new", *flags)
        assert not (tmp_path / "new").exists()
