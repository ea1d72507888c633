"""Boxes and scores to cars, and cars to the parts of a photo."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.network import cars
from embedder_svc.network.cars import WHOLE, Car, DetectorInfo
from embedder_svc.photos.resize import Box

TINY = runpy.run_path(str(Path(__file__).parents[1] / "tiny_bundle.py"))
INFO = DetectorInfo(**TINY["DETECTOR"] | {"max_cars": 3})
SIZE = (400, 300)


def find(rows, size=SIZE, info=INFO):
    """`rows` are (score, left, top, right, bottom)."""
    array = np.array(rows, np.float32).reshape(-1, 5)
    return cars.find(array[:, 1:], array[:, 0], size, info)


def scores(found):
    return [round(car.score, 4) for car in found]


class TestFind:
    def test_only_what_scores_enough_is_a_car(self):
        found = find([(0.35, 0, 0, 0.2, 0.2), (0.34, 0.5, 0.5, 0.7, 0.7)])
        assert scores(found) == [0.35]
        assert find([(0.34, 0.5, 0.5, 0.7, 0.7)]) == []

    def test_of_boxes_that_overlap_the_best_is_taken(self):
        assert scores(find([(0.6, 0.1, 0.1, 0.5, 0.5), (0.9, 0.12, 0.1, 0.5, 0.5), (0.7, 0.1, 0.1, 0.5, 0.48)])) == [
            0.9
        ]

    def test_of_equal_scores_the_first_is_taken(self):
        first = (0.9, 0.12, 0.1, 0.5, 0.5)
        (car,) = find([first, (0.9, 0.1, 0.1, 0.5, 0.5)])
        assert car.box.left == pytest.approx(0.12)

    def test_cars_that_overlap_little_are_two(self):
        assert len(find([(0.9, 0.1, 0.1, 0.5, 0.5), (0.8, 0.3, 0.1, 0.7, 0.5)])) == 2  # a third of what they cover

    def test_the_main_car_comes_first_and_the_others_by_score(self):
        rows = [(0.5, 0.3, 0.3, 0.7, 0.7), (0.6, 0, 0, 0.1, 0.1), (0.7, 0.9, 0.9, 1, 1)]
        assert scores(find(rows)) == [0.5, 0.7, 0.6]

    def test_the_main_car_is_told_before_any_is_left_out(self):
        rows = [(0.5, 0.3, 0.3, 0.7, 0.7), *((0.6 + i / 50, i / 10, 0, i / 10 + 0.09, 0.1) for i in range(5))]
        assert scores(find(rows)) == [0.5, 0.68, 0.66]

    def test_boxes_end_at_the_edges_of_the_photo(self):
        (car,) = find([(0.9, -0.5, 0.25, 0.5, 1.5)])
        assert car.box == Box(0.0, 0.25, 0.5, 1.0)

    @pytest.mark.parametrize(
        "box",
        [
            (0.2, 0.2, 0.2, 0.5),
            (0.5, 0.2, 0.2, 0.5),
            (0.2, 0.2, 0.204, 0.4),
            (2, 2, 3, 3),
            (0, 0.2, 1, 0.3),
            (np.nan, 0, 1, 1),
        ],
        ids=["no width", "inside out", "narrower than two pixels", "outside", "too long", "not a number"],
    )
    def test_what_can_be_no_car_is_none(self, box):
        assert find([(0.9, *box)]) == []
        assert scores(find([(0.9, *box), (0.8, 0.5, 0.5, 0.8, 0.8)])) == [0.8]

    def test_a_photo_that_is_all_cars_costs_a_bounded_comparison(self, monkeypatch):
        compared = []
        overlaps = cars.overlaps

        def counted(box, others):
            compared.append(len(others))
            return overlaps(box, others)

        monkeypatch.setattr(cars, "overlaps", counted)
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 0.98, (5000, 2))
        found = find(np.column_stack([rng.uniform(0.5, 1, 5000), corners, corners + 0.015]))
        assert len(found) == 3
        assert len(compared) <= 200
        assert max(compared) <= 200


class TestMainCar:
    def main(self, *rows):
        return scores(find(rows))[0]

    def test_the_larger_of_two_alike(self):
        assert self.main((0.8, 0.1, 0.3, 0.4, 0.7), (0.79, 0.5, 0.2, 0.9, 0.8)) == 0.79

    def test_the_one_at_the_centre_before_a_larger_one_at_the_edge(self):
        assert self.main((0.8, 0.35, 0.35, 0.65, 0.65), (0.81, 0, 0.3, 0.32, 0.7)) == 0.8

    def test_a_sure_one_before_a_larger_doubtful_one(self):
        assert self.main((0.9, 0.2, 0.2, 0.6, 0.6), (0.4, 0.1, 0.1, 0.9, 0.9)) == 0.9


class TestCuts:
    def test_no_car_is_the_whole_photo_and_says_so(self):
        (cut,) = cars.cuts([], SIZE, INFO)
        assert (cut.box, cut.car_score, cut.no_car_found) == (WHOLE, None, True)

    def test_a_margin_is_left_within_the_photo(self):
        info = replace(INFO, margin=0.1)
        near, inside = cars.cuts([Car(Box(0, 0, 0.5, 0.5), 0.5), Car(Box(0.25, 0.25, 0.5, 0.75), 0.6)], SIZE, info)
        assert near.box == Box(0, 0, 0.55, 0.55)
        assert inside.box == Box(90 / 400, 0.2, 210 / 400, 0.8)
        assert (near.car_score, inside.car_score) == (0.5, 0.6)

    @pytest.mark.parametrize(("right", "whole"), [(0.81, True), (0.8, True), (0.79, False)])
    def test_a_photo_that_the_car_fills_is_left_whole(self, right, whole):
        (cut,) = cars.cuts([Car(Box(0, 0, right, 1), 0.9)], SIZE, INFO)
        assert (cut.box == WHOLE) is whole
        assert (cut.car_score, cut.no_car_found) == (0.9, False)

    @given(
        st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
        st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
        st.sampled_from([0.0, 0.03, 0.3]),
    )
    def test_the_part_has_the_same_pixels_after_it_has_travelled(self, size, edges, margin):
        left, right = sorted(edges[:2])
        top, bottom = sorted(edges[2:])
        for car in find([(0.9, left, top, right, bottom)], size):
            (cut,) = cars.cuts([car], size, replace(INFO, margin=margin))
            box = cut.box
            region = box.region(size)
            travelled = Box(*(float(np.float32(edge)) for edge in (box.left, box.top, box.right, box.bottom)))
            assert travelled.region(size) == region
            assert region == tuple(
                pytest.approx(edge * side)
                for edge, side in zip((box.left, box.top, box.right, box.bottom), 2 * size, strict=True)
            )
