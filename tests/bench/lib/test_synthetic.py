"""bench/lib/synthetic.py makes what docs/scaling.md is measured on, so it is tested."""

from pathlib import Path

import numpy as np
import pytest

from bench.lib import synthetic as synthetic_gallery
from bench.search import index as index_kinds
from search_svc.dataset.embeddings import Embeddings
from search_svc.voting.labels import parse

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def synthetic():
    return synthetic_gallery


@pytest.fixture(scope="module")
def index():
    return index_kinds


@pytest.fixture(scope="module")
def real(synthetic):
    return synthetic.Real.read(ROOT / "models/stanford-cars")


@pytest.fixture(scope="module")
def structure(synthetic, real):
    return synthetic.Structure.fit(real)


@pytest.fixture(scope="module")
def cars(synthetic, structure):
    return synthetic.Cars(structure, synthetic.sizes(6400, 7), 7)


def drawn(synthetic, between, within, classes=400, size=50):
    """Embeddings, not of unit length, whose covariances are diagonal and known."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((classes, len(between))) * np.sqrt(between) + 3
    labels = np.repeat(np.arange(classes), size)
    vectors = centres[labels] + rng.standard_normal((len(labels), len(within))) * np.sqrt(within)
    return synthetic.Real(vectors.astype(np.float32), labels, "model")


class TestFit:
    def test_finds_the_covariances_that_were_drawn_from(self, synthetic):
        between, within = np.array([4, 1, 0.25, 1]), np.array([1, 9, 1, 0.5])
        structure = synthetic.Structure.fit(drawn(synthetic, between, within))
        assert np.diag(structure.within.T @ structure.within) == pytest.approx(within, rel=0.05)
        assert np.diag(structure.between.T @ structure.between) == pytest.approx(between, rel=0.2)

    def test_centres_of_few_photos_are_not_taken_to_differ_by_the_photos_spread(self, synthetic):
        structure = synthetic.Structure.fit(drawn(synthetic, np.full(4, 0.01), np.ones(4), classes=3000, size=3))
        assert np.square(structure.between).sum() == pytest.approx(0.04, abs=0.1)


class TestCars:
    def test_there_are_as_many_photos_as_wanted_of_unit_length(self, cars):
        gallery = np.concatenate(list(cars.gallery()))
        assert gallery.shape == (6400, 2048)
        assert np.linalg.norm(gallery, axis=1) == pytest.approx(1, abs=1e-5)

    def test_another_seed_gives_other_photos_and_the_same_seed_the_same(self, synthetic, cars):
        first, again = (next(cars.gallery()) for _ in range(2))
        assert first.tobytes() == again.tobytes()
        assert not np.array_equal(first[:9], next(synthetic.Cars(cars.structure, cars.sizes, 8).gallery())[:9])

    def test_another_seed_draws_other_photos_around_other_centres(self, synthetic, cars):
        first, second = (next(synthetic.Cars(cars.structure, np.array([2]), seed).gallery()) for seed in (7, 8))
        one, other = first[0] - first[1], second[0] - second[1]
        assert abs(one @ other) < 0.5 * np.linalg.norm(one) * np.linalg.norm(other)

    def test_queries_are_not_photos_of_the_gallery(self, synthetic, cars):
        one = synthetic.Cars(cars.structure, np.array([50]), 7)
        assert (one.queries(50)[0] @ next(one.gallery()).T).max() < 0.999

    def test_queries_are_other_photos_of_the_same_cars(self, cars):
        gallery = np.concatenate(list(cars.gallery()))
        classes = np.repeat(np.arange(len(cars.sizes)), cars.sizes)
        queries, of = cars.queries(500)
        similar = queries @ gallery.T
        assert similar.max() < 0.9999
        assert np.mean(classes[similar.argmax(axis=1)] == of) > 0.8

    def test_every_class_has_a_photo_and_a_third_has_more_than_20(self, synthetic):
        sizes = synthetic.sizes(300_000, 0)
        assert sizes.sum() == 300_000
        assert sizes.min() >= 1
        assert len(sizes) == pytest.approx(9434, abs=1)
        assert np.mean(sizes > 20) == pytest.approx(0.33, abs=0.03)
        assert sizes[sizes > 20].sum() / sizes.sum() == pytest.approx(0.84, abs=0.03)


def test_photos_are_as_like_each_other_as_real_ones(synthetic, real, structure):
    """As many, of as many cars: accuracy within 5 points, similarities of the nearest within 0.03."""
    counts = np.bincount(real.classes)
    cars = synthetic.Cars(structure, counts, 0)
    made = synthetic.Real(np.concatenate(list(cars.gallery())), np.repeat(np.arange(len(counts)), counts), "")
    accuracy, nearest = zip(*(told(each) for each in (real, made)), strict=True)
    assert accuracy[1] == pytest.approx(accuracy[0], abs=0.05)
    assert nearest[1] == pytest.approx(nearest[0], abs=0.03)


def told(photos):
    """The share of right classes among the nearest photos of every tenth, and quantiles of how similar they are."""
    similar = photos.vectors[::10] @ photos.vectors.T
    similar[np.arange(len(similar)), np.arange(0, len(photos.vectors), 10)] = -1
    nearest = similar.argmax(axis=1)
    right = photos.classes[nearest] == photos.classes[::10]
    return right.mean(), np.quantile(similar.max(axis=1), [0.25, 0.5, 0.75])


def test_what_is_written_is_an_embeddings_artifact(synthetic, real, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_BLOCK", 40)  # of labels: there are more
    synthetic.make(real, tmp_path / "made", photos=2000, queries=10, seed=1)
    made = Embeddings.open(tmp_path / "made/embeddings")
    assert made.matrix.shape == (2000, 2048)
    assert np.linalg.norm(made.matrix.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)
    assert made.model == real.model
    assert made.normalized
    assert len({photo.path for photo in made.photos}) == 2000
    for photo in made.photos:
        assert photo.label == parse(photo.label.label)
        assert photo.label.year
    with np.load(tmp_path / "made/queries.npz") as queries:
        assert queries["vectors"].shape == (10, 2048)


class TestIndex:
    def test_exact_is_what_comparing_with_all_gives(self, index):
        rng = np.random.default_rng(3)
        gallery = rng.standard_normal((40_000, 8)).astype(np.float16)
        queries = rng.standard_normal((5, 8)).astype(np.float32)
        scores = queries @ gallery.astype(np.float32).T
        assert index.exact(gallery, queries, 10).tolist() == np.argsort(-scores, axis=1)[:, :10].tolist()

    def test_recall_by_hand(self, index):
        found, true = np.array([[1, 2, 3], [-1, -1, 4]]), np.array([[3, 2, 9], [4, 5, 6]])
        assert index.recall(found, true) == pytest.approx(0.5)

    def test_the_exponent_of_a_power_is_that_power(self, index):
        assert index.exponent([(n, 3 * n**0.5) for n in (10, 1000, 5000)]) == pytest.approx(0.5)

    def test_a_curve_has_the_quickest_search_that_finds_enough(self, index):
        points = [{"recall@10": recall, "p50_ms": ms} for recall, ms in ((0.9, 1), (0.995, 3), (1, 9))]
        flat = {"recall@10": 1, "p50_ms": 50}
        results = {(8, 100): {"faiss": flat, "IVF16,SQ8": {"points": points}, "PCA2,SQ8": {"points": points[:1]}}}
        assert index.curves(results, 8, 0.99) == {"faiss IndexFlatIP": [(100, 50)], "IVF,SQ8": [(100, 3)]}
        assert index.curves(results, 9, 0.99) == {}
