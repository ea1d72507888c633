import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.photos.preprocess import Box
from embedder_svc.serving.cache import Cache, key_of


def row(number):
    return np.full(4, number, np.float32)


def test_the_photo_unused_for_longest_goes_first():
    hits = []
    cache = Cache(2, lambda: hits.append(1))
    cache.put(b"a", row(1))
    cache.put(b"b", row(2))
    assert cache.get(b"a")[0] == 1
    cache.put(b"c", row(3))
    assert cache.get(b"b") is None
    assert (cache.get(b"a")[0], cache.get(b"c")[0]) == (1, 3)
    assert len(hits) == 3


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 5))
def test_never_more_than_its_size_and_never_another_photo_s(numbers, size):
    cache = Cache(size, lambda: None)
    for number in numbers:
        found = cache.get(bytes([number]))
        assert found is None or found[0] == number
        cache.put(bytes([number]), row(number))
        assert len(cache._rows) <= size
        assert cache.get(bytes([number]))[0] == number


def test_a_byte_or_a_crop_makes_another_photo():
    keys = [
        key_of(b"photo", None),
        key_of(b"photp", None),
        key_of(b"photo", Box(0, 0, 1, 1)),
        key_of(b"photo", Box(0, 0, 0.5, 1)),
    ]
    assert len(set(keys)) == 4
    assert key_of(b"photo", None) == keys[0]
