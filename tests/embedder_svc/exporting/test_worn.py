"""Worn copies of photos: the same photo, in less detail."""

import numpy as np
import pytest

from embedder_svc.exporting import worn

SIDE = 64


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
    return np.clip(rough + rng.normal(0, 10, rough.shape), 0, 255).astype(np.uint8)


def copies(photo, seed=0):
    return worn.copies(np.stack([photo] * 8), np.random.default_rng(seed))


def detail(photo):
    """The mean difference between neighbours in a row."""
    return np.abs(np.diff(photo.astype(float), axis=1)).mean()


def test_each_is_the_photo_and_no_copy_is_as_it_was(photo):
    for copy in copies(photo):
        assert (copy.shape, copy.dtype) == (photo.shape, np.uint8)
        assert 0.4 < np.corrcoef(copy.ravel(), photo.ravel())[0, 1] < 1


def test_the_kinds_take_turns(photo):
    blurred, enlarged, noisy, compressed = (copies(photo)[first::4] for first in range(4))
    for copy in (*blurred, *enlarged):
        assert detail(copy) < detail(photo)
    for copy in noisy:
        assert detail(copy) > detail(photo)
    blocks = [np.abs(np.diff(copy.astype(float), axis=1)) for copy in compressed]
    assert all(block[:, 7::8].mean() > block[:, 3::8].mean() for block in blocks)


def test_the_same_seed_makes_the_same_copies(photo):
    np.testing.assert_array_equal(copies(photo), copies(photo))
    assert (copies(photo) != copies(photo, seed=1)).any()
