"""Runs on bound buffers. On the CPU: all but the device's name and page-locked memory is what a GPU runs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from embedder_svc.network import bundle
from embedder_svc.network.model import Model
from embedder_svc.network.runtime import DeviceError, Runtime

SIZES = (1, 2, 4, 8)

needs_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="NO GPU HERE: this onnxruntime has no CUDA, so bound buffers were not tried on one",
)


def opened(path, device="cpu", sizes=SIZES):
    """A session on the bundle, and its runs on bound buffers."""
    info = bundle.read(path)
    runtime = Runtime(path / bundle.GRAPH, input_size=info.input_size, max_batch=max(sizes))
    session = runtime.session(device, threads=1)
    return session, runtime.bound(session, sizes=sizes, dimension=info.dimension)


def plain(session, pixels):
    return session.run(["embeddings"], {"images": np.stack(pixels)})[0]


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return opened(tiny_bundle)[0]


@pytest.fixture
def bound(tiny_bundle):
    return opened(tiny_bundle)[1]


@pytest.mark.parametrize("count", range(1, 9))
def test_any_count_of_photos_gets_the_bits_of_a_plain_run(bound, session, photos, count):
    expected = plain(session, photos[:count])
    embeddings = bound.run(list(photos[:count]))
    assert embeddings.shape == (count, 16)
    assert embeddings.dtype == np.float32
    assert embeddings.tobytes() == expected.tobytes()


def test_takes_an_array_as_well_as_a_list(bound, photos):
    assert np.array_equal(bound.run(photos[:3]), bound.run(list(photos[:3])))


def test_no_batch_sees_what_another_left_in_the_buffers(bound, session, photos):
    """Counts that go through each buffer full, partly filled, and full again."""
    start = 0
    for count in (8, 5, 8, 1, 2, 1, 3, 4, 3, 5):
        batch = photos[start : start + count]
        assert np.array_equal(bound.run(batch), plain(session, batch)), (start, count)
        start += count


def test_what_is_missing_to_the_next_size_is_black(bound, photos):
    bound.run(photos[:8])
    bound.run(photos[8:13])
    images = bound._buckets[-1]._images.numpy()
    assert np.array_equal(images[:5], photos[8:13])
    assert not images[5:].any()


def test_embeddings_stay_what_they_are_when_the_buffers_are_used_again(bound, photos):
    first = bound.run(photos[:8])
    kept = first.copy()
    bound.run(photos[8:16])
    assert np.array_equal(first, kept)


def test_buffers_are_allocated_once(bound, photos):
    def addresses():
        return [(bucket._images.data_ptr(), bucket._embeddings.data_ptr()) for bucket in bound._buckets]

    before = addresses()
    for count in (8, 3, 1, 8):
        bound.run(photos[:count])
    assert addresses() == before
    assert len({address for pair in before for address in pair}) == 2 * len(SIZES)


def test_threads_take_turns(bound, session, photos):
    batches = [photos[start : start + count] for count in (1, 3, 8, 5) for start in range(0, 32, 2)]
    together = threading.Barrier(4)

    def run(batch):
        together.wait(timeout=30)
        return [bound.run(batch) for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for batch, found in zip(batches, pool.map(run, batches), strict=True):
            expected = plain(session, batch)
            assert all(np.array_equal(each, expected) for each in found)


def test_a_batch_runs_at_the_smallest_size_that_holds_it(tiny_bundle, photos, monkeypatch):
    bound = opened(tiny_bundle, sizes=(8, 1, 4, 2))[1]
    used = []
    for bucket in bound._buckets:
        monkeypatch.setattr(bucket, "run", lambda batch, run=bucket.run: used.append(len(batch)) or run(batch))
    for count in range(1, 9):
        bound.run(photos[:count])
    assert used == [1, 2, 4, 4, 8, 8, 8, 8]


def test_host_memory_is_ordinary_where_there_is_no_gpu(bound):
    assert not bound.page_locked


def test_a_device_that_has_no_room_for_buffers_is_named(tiny_bundle):
    class OnCuda:
        """All that is asked of a session before buffers are allocated, which no onnxruntime without CUDA can do."""

        def get_providers(self):
            return ["CUDAExecutionProvider"]

    runtime = Runtime(tiny_bundle / bundle.GRAPH, input_size=32, max_batch=8)
    with pytest.raises(DeviceError, match=r"^device cuda: onnxruntime can't give it buffers for 8 photos: .+"):
        runtime.bound(OnCuda(), sizes=SIZES, dimension=16)


class TestModel:
    def test_runs_on_bound_buffers_once_it_has_them(self, tiny_bundle, photos, bound):
        model = Model.open(tiny_bundle, device="cpu", max_batch=8)
        expected = model.embed(photos)
        runs = []
        model.bind(bound)
        run, bound.run = bound.run, lambda pixels: runs.append(len(pixels)) or run(pixels)
        assert np.array_equal(model.embed(photos[:11]), expected[:11])
        assert np.array_equal(model.embed_alone(list(photos[:5])), expected[:5])
        assert np.array_equal(model.embed_in_lane(photos[:1]), expected[:1])
        assert sorted(runs) == [1, 3, 5, 8]

    def test_does_without_those_that_give_other_embeddings(self, tiny_bundle, make_bundle, tmp_path, photos, caplog):
        model = Model.open(tiny_bundle, device="cpu", max_batch=8)
        expected = model.embed(photos)
        make_bundle(tmp_path / "other", seed=1)
        model.bind(opened(tmp_path / "other")[1])
        assert np.array_equal(model.embed(photos), expected)
        assert "bound buffers change embeddings" in caplog.text


@needs_cuda
class TestCuda:
    @pytest.fixture(scope="class")
    def on_gpu(self, tiny_bundle):
        return opened(tiny_bundle, "cuda")

    @pytest.mark.parametrize("count", range(1, 9))
    def test_any_count_of_photos_gets_the_embeddings_of_a_plain_run(self, on_gpu, photos, count):
        session, bound = on_gpu
        assert np.allclose(bound.run(photos[:count]), plain(session, photos[:count]), atol=1e-3)

    def test_no_batch_sees_what_another_left_in_the_buffers(self, on_gpu, photos):
        session, bound = on_gpu
        for start in range(0, 32, 8):
            for count in (8, 5):
                batch = photos[start : start + count]
                assert np.allclose(bound.run(batch), plain(session, batch), atol=1e-3)

    def test_a_model_keeps_its_bound_buffers(self, tiny_bundle):
        assert Model.open(tiny_bundle, device="cuda", max_batch=8)._bound is not None

    def test_host_memory_is_page_locked(self, on_gpu):
        """If this alone fails, this onnxruntime has no such memory to give: all works, but batches are copied twice."""
        assert on_gpu[1].page_locked
