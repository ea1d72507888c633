import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.training.batches import Order, fetch

CPU = torch.device("cpu")


LABELS = np.arange(31) % 4


@given(st.integers(2, 40), st.integers(1, 7), st.integers(0, 3), st.integers(1, 4), st.integers(1, 5))
def test_an_epoch_shows_no_photo_twice_and_leaves_out_less_than_a_batch(count, batch, epoch, per_class, classes):
    order = Order(np.arange(count) % classes, batch, 5, per_class)
    seen = [number for chosen in order.batches(epoch * order.steps) for number in chosen] if order.steps else []
    assert len(seen) == len(set(seen)) == count // batch * batch


@given(st.integers(0, 29), st.integers(1, 3))
def test_an_epoch_entered_in_the_middle_goes_on_as_it_would_have(step, per_class):
    order = Order(LABELS, 3, 5, per_class)
    epoch, done = divmod(step, order.steps)
    whole = list(order.batches(epoch * order.steps))
    np.testing.assert_array_equal(list(order.batches(step)), whole[done:])


@pytest.mark.parametrize("per_class", [1, 2])
def test_epochs_and_seeds_have_orders_of_their_own(per_class):
    def order(seed, step):
        return np.concatenate(list(Order(np.arange(100) % 7, 10, seed, per_class).batches(step))).tolist()

    assert order(1, 0) != order(1, 10) != order(2, 10)


def test_one_photo_of_a_class_at_a_time_is_the_order_of_runs_that_began_before_there_was_a_choice():
    expected = np.random.default_rng([5, 1]).permutation(31)[:30].reshape(10, 3)
    np.testing.assert_array_equal(list(Order(LABELS, 3, 5).batches(10)), expected)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(2, 5), st.integers(0, 2))
def test_photos_of_a_class_come_together_as_many_as_asked(labels, per_class, epoch):
    """Each class's photos are in runs of `per_class`, and one shorter run of those it has over."""
    labels = np.array(labels)
    order = Order(labels, 1, 5, per_class)
    shown = labels[np.concatenate(list(order.batches(epoch * order.steps)))]
    for label in set(labels.tolist()):
        places = np.flatnonzero(shown == label)
        assert len(np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)) <= -(-len(places) // per_class)


def test_the_runs_of_a_class_are_not_in_a_row():
    (epoch,) = Order(np.arange(120) // 40, 120, 5, 4).batches(0)
    assert len(np.flatnonzero(np.diff(epoch // 40))) > 10


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_arrives_in_order_with_its_pixels(count):
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    batches = [np.array([number, number + 1]) for number in range(count)]
    found = [(chosen.tolist(), photos.flatten().tolist()) for chosen, photos in fetch(pixels, batches, CPU)]
    assert found == [([number, number + 1],) * 2 for number in range(count)]


def test_a_failed_read_reaches_the_reader():
    with pytest.raises(IndexError):
        list(fetch(np.zeros((3, 1, 1, 1), np.uint8), [np.array([0]), np.array([7])], CPU))
