import dataclasses
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from embedder_svc.network import bundle
from embedder_svc.network.batches import buckets
from embedder_svc.network.model import Model
from embedder_svc.network.runtime import DeviceError
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
needs_cuda = pytest.mark.skipif(
    not HAS_CUDA, reason="NO GPU HERE: this onnxruntime has no CUDA, so the CUDA tests did not run"
)


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return Model.open(tiny_bundle, device="cpu", threads=1)


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)


class TestEmbed:
    def test_gives_unit_vectors_that_tell_photos_apart(self, model, photos):
        embeddings = model.embed(photos)
        assert embeddings.shape == (11, 16)
        assert embeddings.dtype == np.float32
        assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
        assert len(np.unique(embeddings.round(4), axis=0)) == 11

    def test_a_photo_s_embedding_does_not_depend_on_its_batch(self, model, photos):
        alone = np.concatenate([model.embed(photos[i : i + 1]) for i in range(11)])
        assert np.array_equal(model.embed(photos), alone)

    def test_takes_a_list_as_well_as_an_array(self, model, photos):
        assert np.array_equal(model.embed(list(photos)), model.embed(photos))

    def test_no_photos_give_no_rows(self, model):
        assert model.embed([]).shape == (0, 16)

    def test_two_models_of_one_bundle_agree(self, model, tiny_bundle, photos):
        again = Model.open(tiny_bundle, device="cpu", threads=2, max_batch=7)
        assert np.array_equal(again.embed(photos), model.embed(photos))

    @pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (8, (1, 2, 4, 8)), (11, (1, 2, 4, 8, 11))])
    def test_buckets_double_up_to_the_largest_batch(self, most, sizes):
        assert buckets(most) == sizes

    def test_one_lane_all_lanes_and_any_batch_give_the_same_bits(self, tiny_bundle, photos):
        model = Model.open(tiny_bundle, device="cpu", threads=3, max_batch=4)
        in_lanes = [model.embed_in_lane(photos[i : i + 1]) for i in range(11)]
        alone = [model.embed_alone(photos[i : i + 1]) for i in range(11)]
        assert np.array_equal(np.concatenate(in_lanes), np.concatenate(alone))
        assert np.array_equal(np.concatenate(in_lanes), model.embed(photos))

    def test_where_threads_would_change_bits_one_thread_makes_every_embedding(
        self, tiny_bundle, make_bundle, tmp_path, photos, caplog
    ):
        model = Model.open(tiny_bundle, device="cpu", threads=2)
        make_bundle(tmp_path / "other", seed=1)
        model._whole = Model.open(tmp_path / "other", device="cpu", threads=2)._whole
        model.check_threads()
        assert np.array_equal(model.embed_alone(photos[:1]), model.embed_in_lane(photos[:1]))
        assert "threads change embeddings" in caplog.text

    def test_int8_sums_are_exact_on_every_processor(self, tmp_path, make_bundle):
        """Without VNNI onnxruntime adds up in 16 bits unless told otherwise, and 2 * 255 * 127 is no 16-bit number."""
        weights = np.full((32 * 32 * 3, 16), 127, np.int8)
        nodes = [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMulInteger", ["flat", "weights"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["embeddings"], to=onnx.TensorProto.FLOAT),
        ]
        graph = helper.make_graph(
            nodes,
            "sums",
            [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 32, 32, 3])],
            [helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["N", 16])],
            [numpy_helper.from_array(weights, "weights")],
        )
        content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        info = make_bundle(tmp_path / "tiny")
        fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
        del fields["fingerprint"]
        bundle.write(tmp_path / "sums", content.SerializeToString(), **fields)
        model = Model.open(tmp_path / "sums", device="cpu", threads=2)
        white = np.full((1, 32, 32, 3), 255, np.uint8)
        assert (model.embed(white) == 32 * 32 * 3 * 255 * 127).all()

    def test_padding_to_a_bucket_changes_nothing(self, tiny_bundle, photos):
        model = Model.open(tiny_bundle, device="cpu", max_batch=8)
        expected = model.embed(photos)
        model.buckets = (1, 2, 4, 8)
        assert np.array_equal(model.embed(photos), expected)


class TestDevice:
    def test_a_cpu_runs_photos_one_by_one_as_many_at_once_as_threads(self, tiny_bundle):
        model = Model.open(tiny_bundle, device="cpu", threads=3)
        assert (model.provider, model.buckets, model.max_batch, model.lanes) == ("CPUExecutionProvider", (), 1, 3)

    @pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
    @pytest.mark.parametrize("device", ["cuda", "tensorrt"])
    def test_one_that_is_not_there_is_an_error(self, tiny_bundle, device):
        with pytest.raises(
            DeviceError,
            match=rf"^device {device}: this onnxruntime has no \w+. Install gpu, not cpu: pip install ./client '\.\[gpu\]', in a checkout of vmmr$",
        ):
            Model.open(tiny_bundle, device=device)

    @pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
    def test_auto_is_the_cpu_where_there_is_no_gpu(self, tiny_bundle):
        assert Model.open(tiny_bundle).provider == "CPUExecutionProvider"

    def test_both_wheels_of_onnxruntime_are_one_too_many(self, tiny_bundle, tmp_path, monkeypatch):
        for name in ("onnxruntime", "onnxruntime_gpu"):
            metadata = tmp_path / f"{name}-1.0.dist-info" / "METADATA"
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(CommandError, match=r"both installed.*pip uninstall onnxruntime onnxruntime-gpu"):
            Model.open(tiny_bundle)

    def test_neither_wheel_is_one_too_few(self, tiny_bundle, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(
            DeviceError,
            match=r"^onnxruntime can't be imported: .* Install cpu or gpu: pip install ./client '\.\[cpu\]', in a checkout of vmmr; or '\.\[gpu\]'$",
        ):
            Model.open(tiny_bundle)


@needs_cuda
class TestCuda:
    def test_runs_fixed_batch_sizes_and_agrees_with_the_cpu(self, tiny_bundle, model, photos):
        on_gpu = Model.open(tiny_bundle, device="cuda", max_batch=8)
        assert (on_gpu.provider, on_gpu.buckets) == ("CUDAExecutionProvider", (1, 2, 4, 8))
        on_gpu.warm_up()
        assert np.allclose(on_gpu.embed(photos), model.embed(photos), atol=1e-3)

    def test_is_what_auto_means(self, tiny_bundle):
        assert Model.open(tiny_bundle).provider == "CUDAExecutionProvider"


class TestBadGraphs:
    @pytest.fixture
    def graph(self, tiny_bundle):
        """The graph of the tiny model, to spoil."""
        return onnx.load(tiny_bundle / "model.onnx")

    @pytest.fixture
    def refusal(self, tiny_bundle, tmp_path):
        """`refusal(content)`: why a model with this graph is refused."""
        info = bundle.read(tiny_bundle)
        fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
        del fields["fingerprint"]

        def refused(content, and_then=lambda path: None):
            bundle.write(tmp_path / "bad", content, **fields)
            and_then(tmp_path / "bad")
            with pytest.raises(ArtifactError) as caught:
                Model.open(tmp_path / "bad", device="cpu").warm_up()
            assert caught.value.path == tmp_path / "bad" / "model.onnx"
            return caught.value.reason

        return refused

    def test_no_graph_at_all(self, refusal):
        assert refusal(b"no graph").startswith("onnxruntime can't load it: ")

    def test_damaged_after_it_was_written(self, tmp_path, make_bundle):
        make_bundle(tmp_path / "bad")
        file = tmp_path / "bad" / "model.onnx"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"bad/model\.onnx: is damaged: its sha256 is"):
            Model.open(tmp_path / "bad")

    def test_float_input(self, graph, refusal):
        graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        reason = refusal(graph.SerializeToString())
        assert reason.startswith("its input must be `images`, uint8 (N, 32, 32, 3), it has [('images', ")

    def test_a_fixed_batch_size(self, graph, refusal):
        graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        assert refusal(graph.SerializeToString()).startswith("its input must be")

    def test_another_output(self, graph, refusal):
        graph.graph.output[0].name = graph.graph.node[-1].output[0] = "vectors"
        reason = refusal(graph.SerializeToString())
        assert reason.startswith("its output must be `embeddings`, float32 (N, 16), it has [('vectors', ")

    def test_another_dimension(self, graph, refusal):
        graph.graph.node.insert(8, helper.make_node("Concat", ["raw", "raw"], ["twice"], axis=1))
        graph.graph.node[9].input[0] = "twice"
        graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 32
        reason = refusal(graph.SerializeToString())
        assert reason.startswith("its output must be `embeddings`, float32 (N, 16), it has [")

    def test_another_dimension_that_only_a_run_tells(self, graph, refusal):
        graph.graph.initializer.append(numpy_helper.from_array(np.arange(16) > 0, "chosen"))
        graph.graph.node.insert(8, helper.make_node("Compress", ["raw", "chosen"], ["fewer"], axis=1))
        graph.graph.node[9].input[0] = "fewer"
        graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "D"
        reason = refusal(graph.SerializeToString())
        assert reason == "gives embeddings (1, 15), not (1, 16) as `dimension` says"

    def test_weights_in_another_file_which_the_fingerprint_would_not_cover(self, graph, refusal, tmp_path):
        onnx.save_model(
            graph, tmp_path / "split.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
        )
        content = (tmp_path / "split.onnx").read_bytes()
        weights = (tmp_path / "weights.bin").read_bytes()

        def beside(path):
            (path / "weights.bin").write_bytes(weights)

        assert "External data" in refusal(content, and_then=beside)

    def test_not_finite_numbers(self, graph, refusal):
        graph.graph.node.insert(1, helper.make_node("Log", ["floats"], ["logs"]))  # of black: minus infinity
        graph.graph.node[2].input[0] = "logs"
        assert refusal(graph.SerializeToString()) == "does not give finite numbers for a black photo"
