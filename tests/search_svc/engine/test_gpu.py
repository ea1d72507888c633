"""Shards on GPUs. Without a GPU, a stand-in finds what a GPU would, with errors as large as those of a GPU may be."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from search_svc.building.spec import IndexSpec
from search_svc.engine import gpu
from search_svc.engine.gpu import DeviceError, Gpu, all_gpus
from search_svc.engine.local import LocalEngine
from search_svc.index.version import SearchParams
from svckit.errors import Reason, ServiceError

HAS_GPU = faiss.get_num_gpus() > 0
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="NO GPU HERE: the tests of search on a real GPU did not run")
KNOWS_GPUS = hasattr(faiss, "StandardGpuResources")


class FlatCopy:
    """Scores in float16, and worsens the five best scores by as much as rounding in sums may."""

    def __init__(self, index):
        self.vectors = index.reconstruct_n(0, index.ntotal).astype(np.float16).astype(np.float64)
        self.ip = index.metric_type == faiss.METRIC_INNER_PRODUCT

    def search(self, queries, k):
        queries = queries.astype(np.float16).astype(np.float64)
        lengths, longest = np.linalg.norm(queries, axis=1)[:, None], np.linalg.norm(self.vectors, axis=1).max()
        sizes = lengths * longest if self.ip else (lengths + longest) ** 2
        scores = queries @ self.vectors.T
        if not self.ip:
            scores = -((queries[:, None] - self.vectors[None]) ** 2).sum(axis=2)
        rank = np.argsort(np.argsort(scores, axis=1), axis=1) / scores.shape[1]
        best = rank >= 1 - 5 / scores.shape[1]
        wrong = scores - 0.99 * best * 2.0**-23 * queries.shape[1] * sizes
        rows = np.ascontiguousarray(np.argsort(-wrong, axis=1, kind="stable")[:, :k])
        found = np.take_along_axis(wrong, rows, axis=1).astype(np.float32)
        return found if self.ip else -found, rows


class ListsCopy:
    def __init__(self, index):
        self.index = index
        self.told = []

    def search_preassigned_c(self, *arguments):
        self.told.append(arguments[-1].nprobe)
        self.index.search_preassigned_c(*arguments)


@dataclass(frozen=True)
class Standin(Gpu):
    copies: list = field(default_factory=list)

    def copy(self, index):
        self.copies.append(FlatCopy(index) if isinstance(index, faiss.IndexFlat) else ListsCopy(index))
        return self.copies[-1]


@pytest.fixture
def standins():
    return Standin(0, None, threading.Lock()), Standin(1, None, threading.Lock())


def gallery_of_near_ties(kind):
    """Return photos (300, 16) whose scores differ by less than the error of a GPU; some are there twice."""
    rng = np.random.default_rng(3)
    vectors = np.tile(rng.normal(size=16).astype(np.float16), (300, 1))
    step = {"float16": 2.0**-10, "adding": 2.0**-22}[kind]
    vectors[:, -1] = (rng.integers(0, 200, 300) * step).astype(np.float16)
    return vectors.astype(np.float32)


def queries_of(kind, count=7):
    queries = np.random.default_rng(4).normal(size=(count, 16)).astype(np.float32)
    if kind == "float16":
        return queries
    queries[:, -1] = 1
    return queries.astype(np.float16).astype(np.float32)


def check_same(found, expected):
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_photos_that_only_what_float16_loses_of_the_query_tells_apart_are_found(build_index, standins, metric):
    rng = np.random.default_rng(0)
    query, vectors = rng.normal(size=16).astype(np.float32), rng.normal(size=(300, 16))
    if metric == "ip":  # all of one score, and then rounded
        vectors += (1 - vectors @ query)[:, None] * query / (query @ query)
    else:
        vectors = query + vectors / np.linalg.norm(vectors, axis=1)[:, None]
    version = build_index(vectors.astype(np.float16).astype(np.float32), spec=IndexSpec("Flat", metric))
    with LocalEngine.open(version) as cpu, LocalEngine.open(version, standins) as cuda:
        check_same(cuda.search(query[None], 10).hits, cpu.search(query[None], 10).hits)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("kind", ["float16", "adding"])
def test_flat_answers_are_those_of_the_cpu_to_the_bit(build_index, standins, kind, metric):
    version = build_index(gallery_of_near_ties(kind), spec=IndexSpec("Flat", metric, shards=3))
    with LocalEngine.open(version) as cpu, LocalEngine.open(version, standins) as cuda:
        check_same(cuda.search(queries_of(kind), 10).hits, cpu.search(queries_of(kind), 10).hits)


def test_what_pca_makes_is_rounded_by_the_gpu_and_its_answers_are_still_the_cpu_s(build_index, standins):
    """float16 holds the queries exactly, and the rotation is by quarter turns: only the photos lose by rounding."""
    rng = np.random.default_rng(0)
    vectors = (np.eye(1, 16, 0) + rng.normal(size=(400, 16)) * 2.0**-12).astype(np.float16).astype(np.float32)
    version = build_index(vectors, spec=IndexSpec("PCA4,Flat"))
    with LocalEngine.open(version) as cpu, LocalEngine.open(version, standins) as cuda:
        queries = rng.normal(size=(9, 16)).astype(np.float16).astype(np.float32)
        check_same(cuda.search(queries, 5).hits, cpu.search(queries, 5).hits)


@pytest.mark.parametrize("length", [1e-6, 1e6, 1e12])
def test_queries_that_float16_does_not_hold_are_answered_too(build_index, standins, length):
    version = build_index(gallery_of_near_ties("float16"))
    queries = np.float32(length) * queries_of("float16")
    with LocalEngine.open(version) as cpu, LocalEngine.open(version, standins) as cuda:
        check_same(cuda.search(queries, 10).hits, cpu.search(queries, 10).hits)


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "PCA8,IVF8,SQ8"])
def test_filtered_queries_and_those_for_many_neighbours_are_the_cpu_s(build_index, standins, monkeypatch, factory):
    version = build_index(np.random.default_rng(1).normal(size=(200, 16)), spec=IndexSpec(factory))
    monkeypatch.setattr(Gpu, "run", lambda *_: pytest.fail("the GPU was asked"))
    rows = np.arange(200) % 3 == 0
    with LocalEngine.open(version) as cpu, LocalEngine.open(version, standins) as cuda:
        check_same(
            cuda.search(queries_of("float16"), 5, rows=rows).hits, cpu.search(queries_of("float16"), 5, rows=rows).hits
        )
        monkeypatch.setattr(gpu, "_MOST", 12)
        check_same(cuda.search(queries_of("float16"), 5).hits, cpu.search(queries_of("float16"), 5).hits)


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4", "PCA8,IVF8,Flat", "OPQ4_8,IVF8,PQ4x4"])
def test_lists_are_chosen_on_the_cpu_and_scanned_on_the_gpu(build_index, standins, factory):
    version = build_index(np.random.default_rng(1).normal(size=(300, 16)), spec=IndexSpec(factory, nprobe=3))
    with LocalEngine.open(version) as cpu, LocalEngine.open(version, standins) as cuda:
        check_same(cuda.search(queries_of("float16"), 5).hits, cpu.search(queries_of("float16"), 5).hits)
        # There are eight; a GPU would read on behind them.
        cuda.search(queries_of("float16"), 5, params=SearchParams(nprobe=65536))
    (copy,) = standins[0].copies
    assert copy.told[0] == 3
    assert copy.told[-1] == 8


def test_many_lists_are_visited_by_the_cpu(build_index, standins, monkeypatch):
    version = build_index(np.random.default_rng(1).normal(size=(200, 16)), spec=IndexSpec("IVF32,Flat", nprobe=20))
    monkeypatch.setattr(gpu, "_MOST", 19)
    with LocalEngine.open(version, standins) as cuda:
        cuda.search(queries_of("float16"), 3)
    assert standins[0].copies[0].told == []


def test_shards_are_spread_over_the_gpus_in_turn(build_index, standins):
    version = build_index(gallery_of_near_ties("float16"), spec=IndexSpec(shards=5))
    LocalEngine.open(version, standins).close()
    assert [len(standin.copies) for standin in standins] == [3, 2]


def test_a_gpu_does_one_thing_at_a_time(standins):
    inside = []

    def search():
        inside.append(1)
        assert len(inside) == 1
        threading.Event().wait(0.001)  # so that others would be in here meanwhile
        inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(standins[0].run, search) for _ in range(40)]:
            done.result()


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        ("HNSW8,Flat", "IndexHNSWFlat"),
        ("SQ8", "IndexScalarQuantizer"),
        ("IVF8,PQ4+4", "IndexIVFPQR"),
        ("PCA8,HNSW8,Flat", "IndexHNSWFlat"),
        ("IVF8,Flat,RFlat", "IndexRefineFlat"),
    ],
)
def test_a_kind_that_no_gpu_holds_is_refused_by_its_name(standins, tmp_path, factory, kind):
    from search_svc.engine.adapters import adapter_of

    index = faiss.index_factory(16, factory)
    with pytest.raises(DeviceError, match=rf"^device cuda: {tmp_path}: a GPU can't hold {kind}\. It can hold Flat, "):
        gpu.on_gpu(adapter_of(index), standins[0], tmp_path)
    assert standins[0].copies == []


def test_a_shard_that_does_not_fit_is_told_with_its_file(build_index, standins, monkeypatch):
    def full(*_):
        raise RuntimeError("cudaMalloc error out of memory")

    monkeypatch.setattr(Standin, "copy", full)
    version = build_index(gallery_of_near_ties("float16"))
    with pytest.raises(DeviceError, match=r"shard-000\.faiss: GPU 0 can't hold it: cudaMalloc error out of memory$"):
        LocalEngine.open(version, standins)


def test_vectors_too_long_for_float16_are_refused_where_they_are_not_the_gallery_s_own(build_index, standins):
    version = build_index(
        60_000 * np.random.default_rng(0).normal(size=(50, 16)).clip(-1, 1), spec=IndexSpec("PCA8,Flat")
    )
    with pytest.raises(DeviceError, match="too long for float16"):
        LocalEngine.open(version, standins)


def test_a_search_that_fails_on_the_gpu_fails_alone(build_index, standins):
    with LocalEngine.open(build_index(gallery_of_near_ties("float16")), standins) as cuda:
        copy = standins[0].copies[0]
        copy.search, search = lambda *_: faiss.IndexFlat(2).reconstruct(9), copy.search
        with pytest.raises(ServiceError, match=r"^GPU 0 failed$") as caught:
            cuda.search(queries_of("float16"), 3)
        assert caught.value.reason == Reason.INTERNAL
        copy.search = search
        assert cuda.search(queries_of("float16"), 3).shards == 1


def test_a_faiss_that_finds_no_gpu_is_an_error(monkeypatch):
    """Without a GPU, the faiss for GPUs would make an empty index."""
    monkeypatch.setattr(gpu, "_faiss", SimpleNamespace(StandardGpuResources=None, get_num_gpus=lambda: 0))
    with pytest.raises(DeviceError, match=r"^device cuda: faiss finds no GPU\. Is there one, with its driver\?$"):
        all_gpus()


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_serving_on_a_gpu_that_is_not_there_ends_at_once_with_the_reason(tmp_path):
    (tmp_path / "index").mkdir()  # what is in it is looked at later
    done = subprocess.run(
        [sys.executable, "-m", "search_svc", "serve", "--port", "0", "--index", tmp_path / "index"],
        env=os.environ | {"VMMR_SEARCH_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    reason = (
        "faiss finds no GPU"
        if KNOWS_GPUS
        else "this faiss knows no GPUs. Install gpu, not cpu: pip install ./client '.[gpu]', in a checkout of vmmr"
    )
    assert done.returncode == 1
    assert json.loads(done.stderr.splitlines()[-1])["error"].startswith(f"device cuda: {reason}")


@needs_gpu
class TestCuda:
    @pytest.mark.parametrize("metric", ["ip", "l2"])
    @pytest.mark.parametrize("factory", ["Flat", "PCA64,Flat"])
    def test_flat_answers_are_those_of_the_cpu_to_the_bit(self, build_index, factory, metric):
        rng = np.random.default_rng(0)
        version = build_index(rng.normal(size=(20_000, 256)), spec=IndexSpec(factory, metric, shards=3))
        with LocalEngine.open(version) as cpu, LocalEngine.open(version, all_gpus()) as cuda:
            for count in (1, 5, 64):
                queries = rng.normal(size=(count, 256)).astype(np.float32)
                check_same(cuda.search(queries, 10).hits, cpu.search(queries, 10).hits)

    def test_near_ties_are_resolved_as_on_the_cpu(self, build_index):
        for kind in ("float16", "adding"):
            version = build_index(gallery_of_near_ties(kind), spec=IndexSpec(shards=2))
            with LocalEngine.open(version) as cpu, LocalEngine.open(version, all_gpus()) as cuda:
                check_same(cuda.search(queries_of(kind), 10).hits, cpu.search(queries_of(kind), 10).hits)

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    @pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,SQ8", "IVF64,SQfp16", "IVF64,PQ32", "OPQ32,IVF64,PQ32"])
    def test_lists_hold_what_they_hold_on_the_cpu(self, build_index, factory, metric):
        rng = np.random.default_rng(0)
        version = build_index(rng.normal(size=(20_000, 256)), spec=IndexSpec(factory, metric, shards=2, nprobe=16))
        queries = rng.normal(size=(64, 256)).astype(np.float32)
        with LocalEngine.open(version) as cpu, LocalEngine.open(version, all_gpus()) as cuda:
            found, expected = cuda.search(queries, 10).hits, cpu.search(queries, 10).hits
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
            assert (found.ids == expected.ids).mean() > 0.99
            reranked = cuda.search(queries, 10, params=SearchParams(nprobe=16, rerank=4)).hits
            exact = cpu.search(queries, 10, params=SearchParams(nprobe=16, rerank=4)).hits
            assert (reranked.scores == exact.scores).mean() > 0.99

    def test_an_answer_does_not_depend_on_who_else_asks(self, build_index):
        rng = np.random.default_rng(0)
        queries = rng.normal(size=(64, 256)).astype(np.float32)
        for factory in ("Flat", "IVF64,Flat", "IVF64,SQ8", "IVF64,PQ32"):
            version = build_index(rng.normal(size=(20_000, 256)), spec=IndexSpec(factory, nprobe=8))
            with LocalEngine.open(version, all_gpus()) as cuda:
                alone = [cuda.search(queries[row : row + 1], 10).hits for row in range(64)]
                together = cuda.search(queries, 10).hits
            np.testing.assert_array_equal(np.concatenate([hits.ids for hits in alone]), together.ids)
            np.testing.assert_array_equal(np.concatenate([hits.scores for hits in alone]), together.scores)
