import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.building import faiss_index
from search_svc.engine import faiss_layers
from search_svc.engine.faiss_layers import is_hnsw
from svckit.cli import CommandError

faiss.omp_set_num_threads(1)  # more only wait for each other on arrays as small as these

D = 16
# The kinds of index faiss' factory makes, with how many points they need: (factory, inverted lists, HNSW, points).
KINDS = [
    ("Flat", None, False, 0),
    ("SQ8", None, False, 1),
    ("SQfp16", None, False, 0),
    ("PQ4x4", None, False, 16),
    ("PQ4x4fs", None, False, 16),
    ("IVF8,Flat", 8, False, 8),
    ("IVF32,PQ4x4", 32, False, 32),
    ("IVF4_HNSW8,SQ8", 4, False, 4),
    ("IVF4,RaBitQ", 4, False, 4),
    ("HNSW8", None, True, 0),
    ("HNSW8,SQ8", None, True, 1),
    ("PCA8,IVF8,SQ8", 8, False, 8),
    ("OPQ4_8,IVF8,PQ4x4fs,RFlat", 8, False, 16),
    ("IVF8,RaBitQ,Refine(SQ8)", 8, False, 8),
    ("L2norm,HNSW8", None, True, 0),
]


def vectors(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float16)


def shard(path, trained, embeddings):
    """A clone of the trained index that holds the embeddings."""
    faiss_index.write(trained, path)
    clone = faiss_index.read(path)
    faiss_index.reserve(clone, len(embeddings))
    faiss_index.add(clone, embeddings.astype(np.float32))
    faiss_index.write(clone, path)
    return faiss.read_index(str(path))


@pytest.mark.parametrize(
    ("kind", "metric"),
    [(kind, metric) for kind in KINDS for metric in ("ip", "l2")] + [(("IMI2x4,Flat", 256, False, 1), "l2")],
)
def test_every_kind_of_index_is_made_trained_cloned_and_filled(tmp_path, kind, metric):
    factory, lists, graph, points = kind
    index = faiss_index.create(factory, D, metric)
    assert faiss_index.lists(index) == lists
    assert is_hnsw(index) == graph
    assert faiss_index.least_training_points(index) == points
    embeddings = vectors(300)
    faiss_index.train(index, embeddings.astype(np.float32))
    for start, stop in ((0, 100), (100, 300)):
        written = shard(tmp_path / f"{start}.faiss", index, embeddings[start:stop])
        assert written.ntotal == stop - start
        assert written.metric_type == {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]
    assert index.ntotal == 0, "shards are clones"


def test_an_hnsw_index_of_product_codes_needs_a_point_for_each_codeword():
    index = faiss_index.create("HNSW8_PQ4", D, "l2")
    assert (is_hnsw(index), faiss_index.least_training_points(index)) == (True, 256)


@pytest.mark.parametrize(
    "factory", ["PQ4x4", "IVF8,Flat", "IVF32,PQ4x4", "IVF4,SQ8", "OPQ4_8,IVF8,PQ4x4fs", "PCA8,Flat"]
)
def test_fewer_points_than_it_says_cannot_train_it(factory):
    index = faiss_index.create(factory, D, "l2")
    too_few = faiss_index.least_training_points(index) - 1
    with pytest.raises(CommandError, match=f"faiss cannot train the index on {too_few} embeddings: "):
        faiss_index.train(index, vectors(too_few).astype(np.float32))


@pytest.mark.parametrize(
    ("factory", "metric", "message"),
    [
        ("Foo", "ip", "faiss makes no index of 'Foo' (ip, 16-d): could not parse index string Foo"),
        ("", "ip", "faiss makes no index of ''"),
        ("PQ7", "l2", "faiss makes no index of 'PQ7' (l2, 16-d): "),
        ("IMI2x4,Flat", "ip", "MultiIndex not implemented for inner prod search"),
        ("HNSW8_PQ4", "ip", "faiss does not support the metric ip for 'HNSW8_PQ4'"),
        ("PCA8,HNSW8_PQ4", "ip", "faiss does not support the metric ip for 'PCA8,HNSW8_PQ4'"),
        ("IDMap,Flat", "ip", "'IDMap,Flat' keeps ids of its own: leave IDMap out, ids are row numbers here"),
        ("IDMap2,IVF4,Flat", "l2", "keeps ids of its own"),
        ("IVF8,RQ4x4fs", "ip", "'IVF8,RQ4x4fs' can't be told how many lists to visit: leave out the fs"),
        ("PCA8,IVF8,LSQ4x4fs", "ip", "can't be told how many lists to visit"),
        ("NSG16", "l2", "'NSG16' takes all embeddings at once: use HNSW, which takes them in parts"),
    ],
)
def test_a_factory_that_cannot_be_served_is_refused_with_the_reason(factory, metric, message):
    with pytest.raises(CommandError) as caught:
        faiss_index.create(factory, D, metric)
    assert message in str(caught.value)
    assert ".cpp" not in str(caught.value)


@given(st.text(st.sampled_from("IVFPQHNSWlatS,_x()48fs "), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_other_string_is_an_index_or_a_refusal(factory):
    try:
        index = faiss_index.create(factory, D, "l2")
    except CommandError:
        return
    assert index.d == D


@pytest.mark.parametrize("factory", ["Flat", "SQfp16", "HNSW8,Flat", "PCA16,Flat"])
def test_room_is_made_once_and_changes_nothing(factory):
    index = faiss_index.create(factory, D, "ip")
    index.train(vectors(100).astype(np.float32))
    index.add(vectors(50).astype(np.float32))
    before = faiss.serialize_index(index)
    inner = faiss_layers.innermost(index)
    codes = (faiss.downcast_index(inner.storage) if is_hnsw(index) else inner).codes
    faiss_index.reserve(index, 5000)
    assert np.array_equal(faiss.serialize_index(index), before)
    place = int(codes.data())
    for _ in range(99):
        index.add(vectors(50).astype(np.float32))
    assert int(codes.data()) == place, "the codes never moved"


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(CommandError, match=r"missing/shard\.faiss: .*No such file or directory"):
        faiss_index.write(faiss_index.create("Flat", D, "ip"), tmp_path / "missing" / "shard.faiss")


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4", "PCA8,IVF8,SQ8"])
@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_shards_of_an_ivf_index_answer_exactly_as_one_index(tmp_path, factory, metric):
    gallery, queries = vectors(300), vectors(20, seed=1).astype(np.float32)
    index = faiss_index.create(factory, D, metric)
    faiss_index.train(index, gallery.astype(np.float32))
    one = shard(tmp_path / "one.faiss", index, gallery)
    expected = search(one, queries, 10)
    found = [{} for _ in queries]
    for start, stop in ((0, 70), (70, 71), (71, 300)):
        part = search(shard(tmp_path / "part.faiss", index, gallery[start:stop]), queries, 10)
        for merged, hits in zip(found, part, strict=True):
            merged.update({row + start: score for row, score in hits.items()})
    for merged, hits in zip(found, expected, strict=True):
        best = dict(sorted(merged.items(), key=lambda hit: hit[1], reverse=metric == "ip")[: len(hits)])
        assert best == hits


def search(index, queries, k):
    """Of each query, the scores by row, from three inverted lists."""
    faiss.extract_index_ivf(index).nprobe = 3
    scores, rows = index.search(queries, k)
    return [{int(r): float(s) for r, s in zip(*pair, strict=True) if r >= 0} for pair in zip(rows, scores, strict=True)]


def lists_of(index):
    """The inverted list that each vector is in."""
    ivf = faiss.extract_index_ivf(index)
    found = np.full(index.ntotal, -1)
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        if size:
            found[faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)] = number
    return found


@pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,SQ8", "IVF64,PQ4x4", "IVF64,Flat,RFlat", "L2norm,IVF64,SQ8"])
@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_a_photo_is_in_the_same_list_whatever_is_added_with_it(factory, metric):
    dimension, rng = 512, np.random.default_rng(0)
    index = faiss_index.create(factory, dimension, metric)
    # All lists are as near to each of these photos; which of them is nearest, is a matter of rounding.
    centroid = rng.standard_normal(dimension)
    centroids = np.stack([rng.permutation(centroid) for _ in range(64)]).astype(np.float32)
    photos = np.repeat(rng.standard_normal((200, 1)), dimension, axis=1).astype(np.float32)
    index.train(rng.standard_normal((300, dimension)).astype(np.float32))
    quantizer = faiss.extract_index_ivf(index).quantizer
    quantizer.reset()
    quantizer.add(centroids)
    found = []
    for chunk in (200, 70, 1):
        part = faiss.deserialize_index(faiss.serialize_index(index))
        for start in range(0, 200, chunk):
            faiss_index.add(part, photos[start : start + chunk])
        assert part.ntotal == faiss_layers.innermost(part).ntotal == 200
        found.append(lists_of(part).tolist())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("factory", ["PCA8,IVF8,SQ8", "PCA8,Flat,RFlat", "OPQ4_8,IVF8,PQ4x4,Refine(SQ8)", "PQ4x4fs"])
def test_layers_of_an_index_hold_what_was_added(factory):
    index = faiss_index.create(factory, D, "ip")
    faiss_index.train(index, vectors(300).astype(np.float32))
    ours, its_own = faiss.clone_index(index), faiss.clone_index(index)
    faiss_index.add(ours, vectors(300).astype(np.float32))
    its_own.add(vectors(300).astype(np.float32))
    assert np.array_equal(faiss.serialize_index(ours), faiss.serialize_index(its_own))
