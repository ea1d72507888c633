import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.index.version import SearchParams
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

D = 4
SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Small whole numbers: ties everywhere, and float arithmetic without rounding, in whatever order it is done.
galleries = arrays.arrays(np.float32, st.tuples(st.integers(8, 80), st.just(D)), elements=st.integers(-1, 1)).filter(
    np.any
)
questions = arrays.arrays(np.float32, st.tuples(st.integers(1, 24), st.just(D)), elements=st.integers(-2, 2))
counts = st.integers(1, 12)


def ranked(gallery, queries, k, metric, rows=None):
    """Return (ids, scores) by numpy, ordered by score and then by id."""
    scores = queries @ gallery.T if metric == "ip" else -((queries[:, None] - gallery[None]) ** 2).sum(axis=2)
    ids = np.arange(len(gallery)) if rows is None else np.flatnonzero(rows)
    order = np.argsort(-scores[:, ids], axis=1, kind="stable")[:, :k]
    return ids[order], np.take_along_axis(scores[:, ids], order, axis=1)


def check_equal(found, ids, scores):
    """Assert that the hits are exactly these, and no more."""
    width = ids.shape[1]
    np.testing.assert_array_equal(found.ids[:, :width], ids)
    np.testing.assert_array_equal(found.scores[:, :width], scores)
    assert (found.ids[:, width:] == -1).all()


@pytest.mark.parametrize(
    ("factory", "metric"),
    [("Flat", "ip"), ("Flat", "l2"), ("IVF4,Flat", "ip"), ("IVF4,Flat", "l2"), ("SQ8", "ip"), ("IVF4,SQ8", "l2")],
)
def test_any_number_of_shards_answers_as_one(open_shards, factory, metric):
    @SETTINGS
    @given(galleries, questions, counts, st.integers(1, 4))
    def check(gallery, queries, k, nprobe):
        with open_shards(gallery, factory=factory, metric=metric) as one:
            expected = one.search(queries, k, params=SearchParams(nprobe=nprobe)).hits
        for count in (2, 3, 7):
            with open_shards(gallery, factory=factory, metric=metric, shards=count) as several:
                found = several.search(queries, k, params=SearchParams(nprobe=nprobe)).hits
                np.testing.assert_array_equal(found.ids, expected.ids)
                np.testing.assert_array_equal(found.scores, expected.scores)

    check()


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_flat_and_exact_answers_are_those_of_numpy_with_and_without_a_filter(open_shards, metric):
    @SETTINGS
    @given(galleries, questions, counts, st.data())
    def check(gallery, queries, k, data):
        rows = data.draw(st.none() | arrays.arrays(np.bool_, len(gallery)))
        expected = ranked(gallery, queries, k, metric, rows)
        with open_shards(gallery, metric=metric, shards=3) as shards:
            check_equal(shards.search(queries, k, rows=rows).hits, *expected)
            check_equal(shards.search(queries, k, rows=rows, exact=True).hits, *expected)

    check()


@pytest.mark.parametrize(("factory", "metric"), [("Flat", "ip"), ("Flat", "l2"), ("IVF4,SQ8", "ip")])
def test_removed_photos_leave_the_answer_that_a_mask_without_them_gives(open_shards, factory, metric):
    @SETTINGS
    @given(galleries, questions, counts, st.data())
    def check(gallery, queries, k, data):
        removed = data.draw(arrays.arrays(np.bool_, len(gallery)))
        allowed = data.draw(st.none() | arrays.arrays(np.bool_, len(gallery)))
        left = ~removed if allowed is None else ~removed & allowed
        for count in (1, 3):
            with open_shards(gallery, factory=factory, metric=metric, shards=count) as shards:
                for exact in (False, True):
                    expected = shards.search(queries, k, rows=left, exact=exact).hits
                    width = (expected.ids >= 0).sum(axis=1).max(initial=0)
                    found = shards.search(queries, k, rows=allowed, without=np.flatnonzero(removed), exact=exact).hits
                    check_equal(found, expected.ids[:, :width], expected.scores[:, :width])

    check()


def test_removed_photos_leave_an_answer_that_is_the_same_in_any_company(open_shards):
    gallery, removed = spread(3000), np.arange(0, 3000, 2)
    queries = spread(3064)[3000:]
    for factory in ("Flat", "IVF8,SQ8", "HNSW8"):
        with open_shards(gallery, factory=factory, shards=2, train_sample=600) as shards:
            alone = [shards.search(queries[row : row + 1], 20, without=removed).hits for row in range(64)]
            together = shards.search(queries, 20, without=removed).hits
            assert (together.ids % 2 == 1).all()
            np.testing.assert_array_equal(together.ids, np.concatenate([each.ids for each in alone]))
            np.testing.assert_array_equal(together.scores, np.concatenate([each.scores for each in alone]))


def test_a_reranked_answer_has_no_removed_photo(open_shards):
    gallery = spread(600)
    params, removed = SearchParams(rerank=4), np.arange(0, 600, 3)
    with open_shards(gallery, factory="IVF1,SQ8", shards=2, train_sample=600) as shards:
        found = shards.search(gallery[:30], 5, params=params, without=removed).hits
    np.testing.assert_array_equal(found.ids, ranked(gallery, gallery[:30], 5, "ip", np.arange(600) % 3 > 0)[0])


def photographed_often(photos: int, times: int, dimension: int):
    """Unit vectors of real numbers, each of which is in the gallery many times, far apart."""
    vectors = np.random.default_rng(photos).standard_normal((photos, dimension)).astype(np.float16).astype(np.float32)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    return np.tile(unit, (times, 1))


def answers(shards, queries, batch, *, exact=False):
    """Return (ids, scores) of ten neighbours, searched a batch at a time."""
    hits = [
        shards.search(queries[start : start + batch], 10, exact=exact).hits for start in range(0, len(queries), batch)
    ]
    return [row for each in hits for row in zip(each.ids.tolist(), each.scores.tolist(), strict=True)]


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("factory", ["Flat", "IVF4,SQ8"])
def test_an_answer_is_the_same_bits_in_any_company_and_any_number_of_shards(open_shards, factory, metric):
    gallery = photographed_often(30, 30, 2048)
    queries = gallery[:64] + np.random.default_rng(1).standard_normal((64, 2048)).astype(np.float32) / 90
    found = {}
    for count in (1, 2, 3, 7):
        with open_shards(gallery, factory=factory, metric=metric, shards=count, train_sample=900) as shards:
            for exact in {False, factory == "Flat"}:
                for batch in (1, 32, 64):
                    answer = answers(shards, queries, batch, exact=exact)
                    assert answer == found.setdefault(exact, answer), f"{count} shards, batches of {batch}"
    assert len({str(answer) for answer in found.values()}) == 1, "exact answers are those of a flat index"


@pytest.mark.parametrize("factory", ["PCA64,Flat", "PCA64,IVF4,SQ8", "IVF4,PQ8x4fs,RFlat", "HNSW8", "PQ8x4fs"])
def test_an_answer_of_any_kind_of_index_is_the_same_bits_in_any_company(open_shards, factory):
    gallery = photographed_often(30, 30, 2048)
    queries = gallery[:64] + np.random.default_rng(1).standard_normal((64, 2048)).astype(np.float32) / 90
    with open_shards(gallery, factory=factory, shards=2, train_sample=900) as shards:
        alone = answers(shards, queries, 1)
        assert all(answers(shards, queries, batch) == alone for batch in (32, 64))


def spread(count: int, dimension: int = 16):
    """Return seeded vectors without ties."""
    return np.random.default_rng(3).standard_normal((count, dimension)).astype(np.float16).astype(np.float32)


# Indexes that look at every vector, and round none, find exactly what numpy does.
@pytest.mark.parametrize(
    ("factory", "complete"),
    [
        ("Flat", True),
        ("SQfp16", True),
        ("SQ8", False),
        ("IVF8,Flat", True),
        ("IVF8,SQ8", False),
        ("IVF8,PQ4x4,RFlat", False),
        ("PCA8,IVF8,SQ8", False),
        ("PCA8,Flat,RFlat", False),
        ("OPQ4_8,IVF8,PQ4x4,Refine(SQ8)", False),
        ("IVF8_HNSW8,Flat", True),
        ("HNSW8,Flat", False),
        ("PCA8,HNSW8,SQ8", False),
        ("IVF8,RaBitQ,Refine(SQ8)", False),
        ("PQ4x4", False),
        ("OPQ4_8,PQ4x4fs", False),
        ("PQ4x4fs,RFlat", False),
        ("IVF8,RQ4x4", False),
    ],
)
def test_every_kind_of_index_takes_parameters_and_filters(open_shards, factory, complete):
    gallery = spread(600)
    rows = np.arange(600) % 3 == 0
    with open_shards(gallery, factory=factory, shards=2, train_sample=600) as shards:
        params = SearchParams(**dict.fromkeys(shards.tunable, 300))
        for allowed in (None, rows):
            found = shards.search(gallery[:30], 5, params=params, rows=allowed).hits
            gc.collect()
            assert (found.ids >= 0).all()
            assert allowed is None or allowed[found.ids].all()
            if complete:
                np.testing.assert_array_equal(found.ids, ranked(gallery, gallery[:30], 5, "ip", allowed)[0])


def test_a_filter_that_the_index_cannot_apply_is_answered_by_comparing_with_what_it_leaves(open_shards):
    gallery = spread(600)
    rows = np.arange(600) % 3 == 0
    with open_shards(gallery, factory="PQ4x4", shards=2, train_sample=600) as shards:
        found = shards.search(gallery[:30], 5, rows=rows).hits
    np.testing.assert_array_equal(found.ids, ranked(gallery, gallery[:30], 5, "ip", rows)[0])


def test_parameters_travel_with_the_call_and_leave_the_index_as_it_was(open_shards):
    gallery = spread(600)
    with open_shards(gallery, factory="IVF32,Flat", nprobe=2, train_sample=600) as shards:
        before = shards.search(gallery, 5).hits
        everything = shards.search(gallery, 5, params=SearchParams(nprobe=32)).hits
        after = shards.search(gallery, 5).hits
    np.testing.assert_array_equal(before.ids, after.ids)
    assert (before.ids != everything.ids).any()
    np.testing.assert_array_equal(everything.ids, ranked(gallery, gallery, 5, "ip")[0])


@pytest.mark.parametrize(
    ("factory", "tunable"),
    [
        ("Flat", set()),
        ("PCA8,IVF8,SQ8,RFlat", {"nprobe"}),
        ("PCA8,HNSW8,Flat", {"ef_search"}),
        ("IVF8_HNSW8,Flat", {"nprobe"}),
    ],
)
def test_it_is_known_which_parameters_an_index_has(open_shards, factory, tunable):
    with open_shards(spread(600), factory=factory, train_sample=600) as shards:
        assert shards.tunable == tunable


@pytest.mark.parametrize(
    ("factory", "batching"),
    [("Flat", True), ("PCA8,Flat", True), ("SQ8", False), ("PCA8,IVF8,SQ8", False), ("HNSW8", False)],
)
def test_it_is_known_whether_many_queries_together_cost_less(open_shards, factory, batching):
    with open_shards(spread(600), factory=factory, train_sample=600) as shards:
        assert shards.batching is batching


def test_exact_answers_are_complete_where_the_gallery_is_larger_than_a_chunk(open_shards):
    gallery = spread(10_000, 8)
    rows = np.random.default_rng(0).random(10_000) < 0.01
    with open_shards(gallery, factory="IVF8,SQ8", shards=2, train_sample=600) as shards:
        for allowed in (None, rows):
            found = shards.search(gallery[:20], 7, rows=allowed, exact=True).hits
            np.testing.assert_array_equal(found.ids, ranked(gallery, gallery[:20], 7, "ip", allowed)[0])


def test_a_served_answer_is_faiss_called_directly(build_index, tmp_path):
    gallery, queries = spread(3000, 32), spread(3050, 32)[3000:]
    version = build_index(gallery, directory=tmp_path)
    scores, ids = faiss.read_index(str(version.shard_paths[0])).search(queries, 10)
    with LocalEngine.open(version) as shards:
        found = shards.search(queries, 10).hits
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.scores, scores)


def test_many_callers_at_once_get_their_own_answers(open_shards):
    gallery = spread(2000)
    with open_shards(gallery, shards=3) as shards, ThreadPoolExecutor(8) as callers:
        found = callers.map(lambda row: shards.search(gallery[row : row + 1], 1, exact=row % 2 == 1).hits, range(64))
        nearest = ranked(gallery, gallery[:64], 1, "ip")[0]
        assert [hits.ids[0, 0] for hits in found] == nearest[:, 0].tolist()


COUNT_THREADS = """
import sys
from pathlib import Path
import faiss
from search_svc.engine.local import LocalEngine
from search_svc.index.version import IndexVersion

with LocalEngine.open(IndexVersion.open(Path(sys.argv[1]))) as shards:
    print(faiss.omp_get_max_threads(), *(w.submit(faiss.omp_get_max_threads).result() for w in shards._workers))
"""


def test_faiss_is_single_threaded_in_a_shard_whatever_it_is_elsewhere(build_index, tmp_path):
    build_index(spread(10), directory=tmp_path, spec=IndexSpec(shards=2))
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    command = [sys.executable, "-c", COUNT_THREADS, str(tmp_path)]
    assert subprocess.check_output(command, env=environment, text=True).split() == ["3", "1", "1"]


def test_closing_ends_the_threads(open_shards):
    def threads():
        return sorted(thread.name for thread in threading.enumerate() if thread not in before)

    before = set(threading.enumerate())
    with open_shards(spread(10), shards=2) as shards:
        shards.search(spread(1), 1, params=SearchParams(rerank=2))
        assert threads() == ["embeddings.npy", "shard-000.faiss", "shard-001.faiss"]
    assert threads() == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "faiss cannot read it"),
        (lambda content: content[:3], "faiss cannot read it"),
        (lambda content: content[: len(content) // 2], "faiss cannot read it"),
        (lambda content: content[:-1], "faiss cannot read it"),
        (lambda content: b"no index at all " * 100, "faiss cannot read it"),
    ],
)
def test_a_shard_file_that_is_no_index_is_refused_by_name(build_index, tmp_path, damage, reason):
    version = build_index(spread(100), directory=tmp_path, spec=IndexSpec(shards=2))
    path = version.shard_paths[1]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=reason) as caught:
        LocalEngine.open(version)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (faiss.IndexFlatIP(16), "0 vectors of dimension 16, faiss metric 0"),
        (faiss.IndexFlatIP(8), "dimension 8, faiss metric 0"),
        (faiss.IndexFlatL2(16), "faiss metric 1"),
    ],
)
def test_a_shard_file_that_is_another_index_is_refused_by_name(build_index, tmp_path, other, found):
    version = build_index(spread(100), directory=tmp_path)
    faiss.write_index(other, str(version.shard_paths[0]))
    with pytest.raises(ArtifactError, match=f"shard-000.faiss: holds .*{found}; the manifest says 100 vectors"):
        LocalEngine.open(version)


def test_two_wheels_of_faiss_are_refused(build_index, tmp_path, monkeypatch):
    version = build_index(spread(10), directory=tmp_path)
    for wheel in ("faiss_cpu", "faiss_gpu"):
        metadata = tmp_path / f"{wheel}-1.15.1.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {wheel.replace('_', '-')}\nVersion: 1.15.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CommandError, match="faiss-cpu and faiss-gpu are both installed"):
        LocalEngine.open(version)
