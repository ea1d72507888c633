from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder_svc.training.recipe import Recipe
from embedder_svc.training.schedule import Stages, rate_factor
from svckit.cli import CommandError


def test_the_rate_rises_in_a_line_then_falls_along_a_cosine():
    assert rate_factor(0, 0.1) == 0
    assert rate_factor(0.05, 0.1) == 0.5
    assert rate_factor(0.1, 0.1) == 1
    assert rate_factor(0.55, 0.1) == pytest.approx(0.501)  # half way down, to a floor of 0.002
    assert rate_factor(1, 0.1) == pytest.approx(0.002)


def test_without_warm_up_the_rate_begins_at_its_peak():
    assert rate_factor(0, 0) == 1


@given(st.floats(0.02, 0.99))
def test_after_the_warm_up_the_rate_never_rises(progress):
    assert rate_factor(progress, 0.02) >= rate_factor(min(1, progress + 0.01), 0.02)


def test_every_stage_has_its_size():
    stages = Stages.parse("0:128,0.5:160,0.85:176")
    assert [stages.size(progress) for progress in (0, 0.49, 0.5, 0.84, 0.85, 1)] == [128, 128, 160, 160, 176, 176]


@pytest.mark.parametrize("text", ["", "128", "0:a", "0.1:128", "0:128,0.5:160,0.4:176", "0:128,1:160", "0:0"])
def test_stages_that_do_not_cover_the_run_are_refused(text):
    with pytest.raises(CommandError, match="--stages must"):
        Stages.parse(text)


def test_a_recipe_names_what_differs_from_another():
    assert Recipe().differences(asdict(Recipe())) == []
    assert Recipe(rate=0.5).differences({**asdict(Recipe()), "old": 1}) == [
        "rate (0.5, was 0.02)",
        "old (no setting of this vmmr, was 1)",
    ]


def test_photos_must_be_decoded_large_enough_for_every_size():
    with pytest.raises(CommandError, match="at least the largest size used, 288"):
        Recipe(test_sizes="128,288")


def test_test_sizes_are_numbers():
    with pytest.raises(CommandError, match="--test-sizes must be whole numbers"):
        Recipe(test_sizes="large")
