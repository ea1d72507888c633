import pytest

from search_svc.building.spec import IndexSpec, create_index, train_sample_size
from svckit.cli import CommandError

ITEMS, D = 100, 16


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"factory": "Foo"}, "faiss makes no index of 'Foo'"),
        ({"factory": "IVF0,Flat"}, "--factory IVF0,Flat: an IVF index needs lists"),
        ({"factory": "IVF101,Flat"}, "--factory IVF101,Flat needs 101 embeddings or more to train on, there are 100"),
        ({"factory": "PQ4"}, "--factory PQ4 needs 256 embeddings or more to train on, there are 100"),
        ({"factory": "IVF50,Flat", "train_sample": 49}, "needs 50 embeddings or more to train on, there are 49"),
        ({"shards": 0}, "--shards must be 1 to 100, the number of photos, got 0"),
        ({"shards": 101}, "--shards must be 1 to 100, the number of photos, got 101"),
        ({"train_sample": 0}, "--train-sample must be >= 1, got 0"),
        ({"rerank": 0}, "--rerank must be 1 to 1000, got 0"),
        ({"rerank": 1001}, "--rerank must be 1 to 1000, got 1001"),
        ({"k": 0}, "--k must be >= 1, got 0"),
        ({"temperature": 0.0}, "--temperature must be a number > 0, got 0.0"),
        ({"temperature": float("nan")}, "--temperature must be a number > 0, got nan"),
        ({"temperature": float("inf")}, "--temperature must be a number > 0, got inf"),
        ({"seed": -1}, "--seed must be >= 0, got -1"),
        ({"nprobe": 1}, "--nprobe is for IVF indexes, and Flat is none"),
        ({"nprobe": 1, "factory": "HNSW8"}, "--nprobe is for IVF indexes, and HNSW8 is none"),
        ({"nprobe": 0, "factory": "IVF4,Flat"}, "--nprobe must be 1 to 4, the lists of IVF4,Flat, got 0"),
        ({"nprobe": 5, "factory": "PCA8,IVF4,Flat"}, "--nprobe must be 1 to 4, the lists of PCA8,IVF4,Flat, got 5"),
        ({"ef_search": 8}, "--ef-search is for HNSW indexes, and Flat is none"),
        (
            {"ef_search": 8, "factory": "IVF4_HNSW8,Flat"},
            "--ef-search is for HNSW indexes, and IVF4_HNSW8,Flat is none",
        ),
        ({"ef_search": 0, "factory": "HNSW8"}, "--ef-search must be >= 1, got 0"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_with_the_flag_and_the_reason(spec, message):
    with pytest.raises(CommandError) as caught:
        create_index(IndexSpec(**spec), ITEMS, D)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"shards": 100},
        {"rerank": 1000},
        {"rerank": 1},
        {"factory": "IVF100,Flat", "nprobe": 100, "train_sample": 10**9},
        {"factory": "HNSW8,SQ8", "ef_search": 1},
        {"factory": "PCA8,HNSW8", "ef_search": 200, "k": 1000},
    ],
)
def test_a_spec_at_its_limits_is_taken(spec):
    assert create_index(IndexSpec(**spec), ITEMS, D).ntotal == 0


@pytest.mark.parametrize(
    ("factory", "asked", "items", "expected"),
    [
        ("Flat", None, 10**6, 0),
        ("Flat", 1000, 10**6, 0),
        ("SQ8", None, 10**6, 65536),
        ("SQ8", None, 1000, 1000),
        ("IVF4096,Flat", None, 10**6, 39 * 4096),
        ("IVF4096,Flat", 5000, 10**6, 5000),
        ("IVF4096,Flat", 5000, 4999, 4999),
    ],
)
def test_how_many_embeddings_are_trained_on(factory, asked, items, expected):
    spec = IndexSpec(factory=factory, train_sample=asked)
    index = create_index(spec, 10**6, D)
    assert train_sample_size(spec, index, items) == expected


def test_the_memory_bounds_the_sample():
    index = create_index(IndexSpec("IVF64,SQ8"), 10**6, D)
    megabyte = 2**20
    assert train_sample_size(IndexSpec("IVF64,SQ8"), index, 10**6, 3 * megabyte) == megabyte // (4 * D)
    opq = create_index(IndexSpec("OPQ4,PQ4"), 10**6, D)
    assert train_sample_size(IndexSpec("OPQ4,PQ4"), opq, 10**6, 6 * megabyte) == megabyte // (4 * D), "it holds more"
    with pytest.raises(CommandError, match="needs 20000 embeddings or more to train on, --memory allows 16384"):
        create_index(IndexSpec("IVF20000,Flat"), 10**6, D, 3 * megabyte)
