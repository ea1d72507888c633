import numpy as np
import pytest

from search_svc.building import faiss_index
from search_svc.select.grid import grid

SHIPPED = grid(6396, 512, "ip")


def indexes(made):
    return {setting.factory for setting in made.settings}


def test_flat_comes_first_and_then_the_three_of_the_blog():
    made = grid(200_000, 64, "ip")
    assert [str(setting) for setting in made.settings[:4]] == [
        "Flat",
        "Flat l2",
        "IVF4096,Flat l2 nprobe 1",
        "HNSW32,Flat l2 ef_search 16",
    ]
    assert [made.notes[setting] for setting in made.settings[1:4]] == [
        "the blog's Flat",
        "the blog's IVF4096",
        "the blog's HNSW32",
    ]


def test_with_too_few_photos_the_blogs_lists_are_fewer_and_its_row_says_so():
    setting = SHIPPED.settings[2]
    assert str(setting) == "IVF164,Flat l2 nprobe 1"
    assert SHIPPED.notes[setting] == "the blog's IVF4096; 164 lists, for 4096 take 159,744 photos"


@pytest.mark.parametrize(
    "kind",
    [
        "SQ8", "SQfp16", "SQ4", "IVF128,Flat", "IVF128,SQ8", "IVF64,SQ8", "IVF128,PQ64", "IVF128,PQ256x4fs",
        "OPQ32_256,IVF128,PQ32", "HNSW32,Flat", "HNSW32,SQ8", "PCA256,SQ8", "PCA256,IVF128,SQ8", "PCA256,HNSW32,Flat",
        "PCAW128,L2norm,Flat", "RR512,RaBitQ", "RR512,IVF128,RaBitQ4", "IVF128,RaBitQ,Refine(SQ8)",
    ],
)  # fmt: skip
def test_every_kind_is_tried(kind):
    assert kind in indexes(SHIPPED)


def test_whitening_is_never_without_lengths_made_one_again():
    assert all("L2norm" in factory for factory in indexes(SHIPPED) if "PCAW" in factory)


def test_pca_without_that_is_tried_by_distance_which_it_keeps():
    assert {setting.metric for setting in SHIPPED.settings if setting.factory.startswith("PCA256,SQ8")} == {"l2"}


@pytest.mark.parametrize(("items", "dimension"), [(300, 16), (6396, 512), (228_000, 96)])
def test_what_is_tried_can_be_built_and_searched_so(items, dimension):
    made = grid(items, dimension, "ip")
    assert len(set(made.settings)) == len(made.settings)
    for setting in made.settings:
        index = faiss_index.create(setting.factory, dimension, setting.metric)
        assert faiss_index.least_training_points(index) <= items
        assert (setting.params.nprobe is None) == (faiss_index.lists(index) is None)
        assert setting.params.nprobe is None or setting.params.nprobe <= faiss_index.lists(index)
        assert faiss_index.centroids(index) * 39 <= max(items, 39)


def test_settings_of_one_index_are_together():
    order = [(setting.factory, setting.metric) for setting in SHIPPED.settings]
    changes = [index for index, before in zip(order, [None, *order], strict=False) if index != before]
    assert len(changes) == len(set(order))


def test_what_so_few_photos_cannot_train_is_skipped_with_the_reason():
    made = grid(300, 16, "ip")
    assert made.skipped["IVF4,PQ2"] == "takes 2,560 photos to train, there are 300"
    assert not made.skipped.keys() & indexes(made)
    assert SHIPPED.skipped == {}


def test_fewer_photos_than_a_pca_keeps_directions_are_told_in_words():
    made = grid(50, 256, "ip")
    assert made.skipped["PCA128,Flat"] == "takes 128 photos to train, there are 50"
    for setting in made.settings:
        index = faiss_index.create(setting.factory, 256, setting.metric)
        faiss_index.train(index, np.random.default_rng(0).standard_normal((50, 256), np.float32))


def test_what_this_faiss_lacks_is_skipped(monkeypatch):
    known = faiss_index.faiss.index_factory

    def older(dimension, factory, metric):
        if "RaBitQ" in factory:
            raise RuntimeError(f"could not parse index string {factory}")
        return known(dimension, factory, metric)

    monkeypatch.setattr(faiss_index.faiss, "index_factory", older)
    made = grid(6396, 64, "ip")
    assert made.skipped["RR64,RaBitQ"] == "this version of faiss does not have it"
    assert not any("RaBitQ" in factory for factory in indexes(made))


def test_embeddings_of_any_length_are_compared_by_distance():
    made = grid(6396, 64, "l2")
    assert {setting.metric for setting in made.settings} == {"l2"}
    assert str(made.settings[0]) == "Flat l2"
    assert made.notes[made.settings[0]] == "the blog's Flat"
