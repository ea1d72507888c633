import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.training.batches import Order, fetch, on_device

CPU = torch.device("cpu")


@given(st.integers(2, 40), st.integers(1, 7), st.integers(0, 3))
def test_an_epoch_shows_no_photo_twice_and_leaves_out_less_than_a_batch(count, batch, epoch):
    order = Order(count, batch, 5)
    seen = [number for chosen in order.batches(epoch * order.steps) for number in chosen] if order.steps else []
    assert len(seen) == len(set(seen)) == count // batch * batch


@given(st.integers(0, 29))
def test_an_epoch_entered_in_the_middle_goes_on_as_it_would_have(step):
    order = Order(31, 3, 5)
    epoch, done = divmod(step, order.steps)
    whole = list(order.batches(epoch * order.steps))
    np.testing.assert_array_equal(list(order.batches(step)), whole[done:])


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, step):
        return np.concatenate(list(Order(100, 10, seed).batches(step))).tolist()

    assert order(1, 0) != order(1, 10) != order(2, 10)


def test_the_order_is_that_of_runs_that_earlier_versions_began():
    expected = np.random.default_rng([5, 1]).permutation(31)[:30].reshape(10, 3)
    np.testing.assert_array_equal(list(Order(31, 3, 5).batches(10)), expected)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_arrives_in_order_with_its_pixels(count):
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    batches = [np.array([number, number + 1]) for number in range(count)]
    found = [(chosen.tolist(), photos.flatten().tolist()) for chosen, photos in fetch(pixels, batches, CPU)]
    assert found == [([number, number + 1],) * 2 for number in range(count)]


def test_a_batch_of_pixels_that_are_on_the_device_is_chosen_there():
    pixels = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1)
    found = [photos.flatten().tolist() for _, photos in fetch(pixels, [np.array([7, 2]), np.array([0])], CPU)]
    assert found == [[7, 2], [0]]


@pytest.mark.parametrize(("free", "kind"), [(2 * 600, torch.Tensor), (2 * 600 - 1, np.ndarray)])
def test_pixels_go_to_a_gpu_if_they_take_half_of_its_free_memory_at_most(monkeypatch, free, kind):
    """`meta` is a device of torch that holds nothing: it stands for a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    pixels = np.zeros((600, 1, 1, 1), np.uint8)
    pixels.flags.writeable = False  # as those of a memory-mapped file
    held = on_device(pixels, torch.device("meta"))
    assert isinstance(held, kind)
    assert held.shape == pixels.shape
    assert on_device(pixels, CPU) is pixels


def test_a_failed_read_reaches_the_reader():
    with pytest.raises(IndexError):
        list(fetch(np.zeros((3, 1, 1, 1), np.uint8), [np.array([0]), np.array([7])], CPU))
