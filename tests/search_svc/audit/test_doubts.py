import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.audit.doubts import doubts, numbered
from search_svc.audit.findings import LABEL_SCORE, ODD_SCORE
from search_svc.audit.neighbours import NOBODY, nearest, nearest_of_label


def clusters(labels=12, photos=10, dimension=64, seed=0, spread=0.6):
    """Embeddings of cars: photos of a label lie around its centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(labels, dimension))
    noise = rng.normal(size=(labels * photos, dimension)) * spread
    return (np.repeat(centres, photos, axis=0) + noise).astype(np.float32), np.repeat(np.arange(labels), photos)


def judged(matrix, labels):
    return doubts(matrix, labels, nearest(matrix, 20, lambda _: None), nearest_of_label(matrix, labels, 20))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.floats(0.1, 10))
def test_photos_with_wrong_labels_are_found_and_no_others_whatever_the_length(seed, length):
    matrix, truth = clusters(seed=seed)
    labels = truth.copy()
    wrong = np.array([3, 47, 88])
    labels[wrong] = (labels[wrong] + 1) % 12
    result = judged(length * matrix, labels)
    assert np.flatnonzero(result.label >= LABEL_SCORE).tolist() == wrong.tolist()
    assert truth[result.witness[wrong]].tolist() == truth[wrong].tolist()
    assert (result.odd < ODD_SCORE).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99))
def test_pictures_that_are_like_no_label_are_odd_even_if_they_are_like_one_another(seed):
    matrix, labels = clusters(seed=seed, dimension=512)
    odd = np.array([5, 25, 45, 65])
    matrix[odd] = np.random.default_rng(seed + 1).normal(size=512) + 0.1 * matrix[odd]
    result = judged(matrix, labels)
    assert np.flatnonzero(result.odd >= ODD_SCORE).tolist() == odd.tolist()


def test_a_label_of_one_photo_is_not_doubted():
    matrix, labels = clusters()
    labels[0] = 12
    result = judged(matrix, labels)
    assert result.label[0] == -np.inf
    assert result.odd[0] < ODD_SCORE


def test_of_a_label_of_two_photos_one_speaks_for_the_other():
    matrix, labels = clusters()
    labels[:2] = 12
    matrix[0] = matrix[1] + 0.01
    assert (judged(matrix, labels).label[:2] < 0).all()


def test_photos_of_one_label_alone_give_no_reason_for_doubts():
    matrix, labels = clusters(labels=1)
    result = judged(matrix, labels)
    assert (result.label < LABEL_SCORE).all()
    assert (result.witness == NOBODY).all()


@given(st.lists(st.text(max_size=3), min_size=1))
def test_names_are_numbered_from_0_on(names):
    numbers = numbered(names)
    assert set(numbers.tolist()) == set(range(len(set(names))))
    assert [[a == b for a in names] for b in names] == [[a == b for a in numbers] for b in numbers]
