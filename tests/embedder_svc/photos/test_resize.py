import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.photos.resize import Box, Resize, reductions
from svckit.photos.photo import PhotoError, PhotoReason

SIDES = st.integers(1, 10_000)
SIZES = st.tuples(SIDES, SIDES)
FRACTIONS = st.floats(0, 1)


class TestBox:
    def test_covers_whole_pixels(self):
        assert Box(0.25, 0.5, 0.75, 1).region((100, 60)) == (25, 30, 75, 60)

    def test_all_of_a_photo_is_all_of_it(self):
        assert Box(0, 0, 1, 1).region((33, 7)) == (0, 0, 33, 7)

    @pytest.mark.parametrize(
        "edges",
        [
            (0.5, 0, 0.5, 1),
            (0, 0.6, 1, 0.4),
            (-0.1, 0, 1, 1),
            (0, 0, 1.01, 1),
            (math.nan, 0, 1, 1),
            (0, 0, 1, math.nan),
            (0, -math.inf, 1, math.inf),
            (0, 0, 0, 0),
        ],
    )
    def test_must_lie_in_the_photo(self, edges):
        with pytest.raises(PhotoError, match="must be 0 <= left < right <= 1") as caught:
            Box(*edges).region((100, 100))
        assert caught.value.reason == PhotoReason.INVALID_CROP

    def test_must_cover_a_pixel(self):
        with pytest.raises(PhotoError, match="no whole pixel of this 100 x 50 photo") as caught:
            Box(0.501, 0, 0.502, 1).region((100, 50))
        assert caught.value.reason == PhotoReason.INVALID_CROP

    @given(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS, SIZES)
    def test_gives_a_region_in_the_photo_or_an_error(self, left, top, right, bottom, size):
        try:
            region = Box(left, top, right, bottom).region(size)
        except PhotoError:
            return
        assert 0 <= region[0] < region[2] <= size[0]
        assert 0 <= region[1] < region[3] <= size[1]


class TestResize:
    @given(SIZES)
    def test_squash_fills_the_square(self, size):
        assert Resize("squash", 224).scaled(size) == (224, 224)

    @given(SIZES)
    def test_pad_keeps_proportions_inside_the_square(self, size):
        width, height = Resize("pad", 224).scaled(size)
        assert max(width, height) == 224
        assert abs(width * size[1] - height * size[0]) <= max(size)  # within a pixel

    @given(SIZES)
    def test_crop_keeps_proportions_around_the_square(self, size):
        width, height = Resize("crop", 224).scaled(size)
        assert min(width, height) == 256
        assert abs(width * size[1] - height * size[0]) <= max(size)

    def test_crop_scales_with_the_input(self):
        assert Resize("crop", 160).scaled((400, 300)) == (244, 183)


class TestReductions:
    @given(SIZES, st.sampled_from(["squash", "pad", "crop"]))
    def test_leave_twice_the_pixels_needed_on_both_sides(self, size, rule):
        target = Resize(rule, 224).scaled(size)
        for divisor in reductions(size, target):
            assert size[0] / divisor >= 2 * target[0]
            assert size[1] / divisor >= 2 * target[1]

    @pytest.mark.parametrize(
        ("size", "expected"), [((4032, 3024), (4, 2)), ((447, 9999), ()), ((448, 896), ()), ((896, 896), (2,)), ((8000, 6000), (8, 4, 2))]
    )  # fmt: skip
    def test_come_in_eighths_quarters_and_halves(self, size, expected):
        assert reductions(size, (224, 224)) == expected
