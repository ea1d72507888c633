import numpy as np
import pytest

from search_svc.fitting.typical import mean_of, typical_score, typical_scores


def unit(rows, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def third_nearest(embeddings, metric):
    values = []
    for row, one in enumerate(embeddings.astype(np.float64)):
        others = np.delete(embeddings, row, axis=0).astype(np.float64)
        scores = others @ one if metric == "ip" else -np.square(others - one).sum(axis=1)
        values.append(np.sort(scores)[-min(3, len(others))])
    return np.mean(values)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_it_is_the_mean_score_of_the_third_nearest_of_the_same_label(metric):
    embeddings = unit(60)
    label_of = np.random.default_rng(1).permutation(np.repeat(np.arange(2, dtype=np.int32), 30))
    own = np.array([third_nearest(embeddings[label_of == label], metric) for label in (0, 1)])
    expected = (30 * own + 5 * own.mean()) / 35
    assert typical_scores(embeddings, label_of, 2, metric, 0) == pytest.approx(expected, abs=1e-3)


def test_labels_of_few_photos_are_drawn_to_the_mean_and_a_lone_photo_is_there():
    embeddings = unit(43)
    label_of = np.array([0] * 40 + [1] * 2 + [2], np.int32)
    big, two, lone = typical_scores(embeddings, label_of, 3, "ip", 0)
    many, few = third_nearest(embeddings[:40], "ip"), third_nearest(embeddings[40:42], "ip")
    mean = (40 * many + 2 * few) / 42
    assert (big, two, lone) == pytest.approx(((40 * many + 5 * mean) / 45, (2 * few + 5 * mean) / 7, mean), abs=1e-3)


def test_a_gallery_of_lone_photos_has_nothing_to_go_by():
    assert typical_scores(unit(3), np.arange(3, dtype=np.int32), 3, "ip", 0).tolist() == [0, 0, 0]


def test_of_big_labels_a_sample_is_enough_the_same_for_the_same_seed():
    embeddings, label_of = unit(1000), np.zeros(1000, np.int32)
    one, again, other = (typical_scores(embeddings, label_of, 1, "ip", seed)[0] for seed in (0, 0, 1))
    assert one == again != other
    assert one == pytest.approx(third_nearest(embeddings[:200], "ip"), abs=0.02)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_one_label_alone_has_the_score_that_it_has_among_all(metric):
    embeddings, label_of = unit(60).astype(np.float16), np.repeat(np.arange(4, dtype=np.int32), [30, 25, 4, 1])
    scores = typical_scores(embeddings, label_of, 4, metric, 0)
    typical, sizes = ({str(label): value for label, value in enumerate(each)} for each in (scores, [30, 25, 4, 1]))
    mean = mean_of(typical, sizes)
    assert mean == pytest.approx(scores[3])  # a lone photo has the mean
    for label in range(4):
        alone = typical_score(embeddings[label_of == label], mean, metric, 0)
        assert alone == pytest.approx(scores[label], abs=1e-6)


def test_of_a_label_of_many_photos_some_are_drawn_and_the_same_each_time():
    embeddings = unit(1000).astype(np.float16)
    one, again, other = (typical_score(embeddings, 0.5, "ip", seed) for seed in (0, 0, 1))
    assert one == again != other
    assert mean_of({}, {}) == 0
