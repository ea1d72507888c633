import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.audit.doubts import Doubts, doubts, numbered
from search_svc.audit.findings import LABEL_SCORE, ODD_SCORE, found
from search_svc.audit.neighbours import NOBODY, Neighbours, nearest, nearest_of_label
from search_svc.dataset.photo_list import Photo
from search_svc.voting.labels import parse


def clusters(labels=12, photos=10, dimension=64, seed=0, spread=0.6):
    """Return embeddings that lie around the centres of their labels."""
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


def test_a_photo_is_no_centre_for_itself():
    matrix, labels = clusters(dimension=512)
    labels[[5, 25]] = 12
    matrix[[5, 25]] = np.random.default_rng(1).normal(size=(2, 512))
    assert np.flatnonzero(judged(matrix, labels).odd >= ODD_SCORE).tolist() == [5, 25]


def test_as_many_photos_speak_against_a_label_as_for_it_and_the_label_of_most_is_the_likelier():
    """Of the last of five photos, one other has the label, and two of the three nearest others have one label."""
    labels = np.array([0, 1, 1, 2, 2])
    near, own = Neighbours.none(5, 3), Neighbours.none(5, 3)
    near.rows[4], near.scores[4] = [0, 1, 2], [0.6, 0.1, 0.1]
    own.rows[4, 0], own.scores[4, 0] = 3, 0.5
    result = doubts(np.eye(5, dtype=np.float32), labels, near, own)
    assert result.label[4] > 0
    assert result.witness[4] == 1


def test_a_picture_of_no_car_is_not_listed_for_its_label_as_well():
    photos = [Photo(f"{i}.jpg", parse("honda_pilot_2011"), "train") for i in range(3)]
    both = Doubts(label=np.array([9.0, 9.0, 0]), witness=np.full(3, 2), odd=np.array([9.0, 0, 0]))
    listed = found(photos, [], both, Neighbours(np.full((3, 1), 2, np.int32), np.zeros((3, 1), np.float32)))
    assert [(each.kind, each.photo.path) for each in listed] == [("label", "1.jpg"), ("odd", "0.jpg")]


@given(st.lists(st.text(max_size=3), min_size=1))
def test_names_are_numbered_from_0_on(names):
    numbers = numbered(names)
    assert set(numbers.tolist()) == set(range(len(set(names))))
    assert [[a == b for a in names] for b in names] == [[a == b for a in numbers] for b in numbers]
