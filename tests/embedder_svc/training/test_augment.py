import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedder_svc.exporting.traits import PIXELS
from embedder_svc.training.augment import Augmentation, filters, normalised, resample, resize

NOTHING = Augmentation(crop_area=1.0, colour=0.0, erase=0.0)


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)


def by_pillow(photo, size, box):
    resized = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [20, 48, 80])
def test_a_resized_photo_is_what_pillow_makes_of_it(photos, size):
    expected = [by_pillow(photo, size, None) for photo in photos]
    assert np.abs(resize(torch.from_numpy(photos), size).numpy() - expected).max() <= 1  # Pillow rounds twice


def test_a_crop_is_what_pillow_makes_of_it(photos):
    left, top, width, height = np.array([[0.0, 3.5, 20.2], [1.0, 0.0, 8.1], [48, 30.3, 25.0], [31.7, 48, 20.5]])
    columns, rows = (
        filters(torch.from_numpy(start).float(), torch.from_numpy(length).float(), side=48, size=20)
        for start, length in ((left, width), (top, height))
    )
    views = resample(torch.from_numpy(photos), rows, columns).numpy()
    boxes = zip(left, top, left + width, top + height, strict=True)
    expected = [by_pillow(photo, 20, box) for photo, box in zip(photos, boxes, strict=True)]
    assert np.abs(views - expected).max() <= 1


@settings(max_examples=20)
@given(
    st.integers(0, 2**32),
    st.builds(Augmentation, st.floats(0.05, 1), st.floats(0, 0.9), st.floats(0, 1)),
)
def test_a_view_has_the_asked_size_and_the_range_of_a_photo(photos, seed, augmentation):
    views = augmentation.view(torch.from_numpy(photos), 24, np.random.default_rng(seed))
    assert views.shape == (3, 3, 24, 24)
    assert views.min() >= -0.01
    assert views.max() <= 255.01


def test_the_same_draw_gives_the_same_views(photos):
    augmentation = Augmentation(0.3, 0.3, 0.5)
    first, again, other = (
        augmentation.view(torch.from_numpy(photos), 24, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_about_half_the_photos_are_mirrored_and_none_is_upside_down():
    photo = np.zeros((1, 16, 16, 3), np.uint8)
    photo[:, :8, 8:] = 200  # top right
    views = NOTHING.view(torch.from_numpy(photo.repeat(400, 0)), 16, np.random.default_rng(0))
    right = (views[:, 0, 2, -2] > 150).sum().item()
    left = (views[:, 0, 2, 1] > 150).sum().item()
    assert right + left == 400
    assert 150 < right < 250


def test_colours_change_within_their_bounds():
    photo = np.full((200, 8, 8, 3), 100, np.uint8)
    views = Augmentation(1.0, 0.2, 0.0).view(torch.from_numpy(photo), 8, np.random.default_rng(0))
    levels = views.mean((1, 2, 3))
    assert 79 < levels.min() < 85
    assert 115 < levels.max() < 121


def test_as_many_photos_as_asked_lose_a_rectangle():
    photo = np.zeros((400, 32, 32, 3), np.uint8)
    views = Augmentation(1.0, 0.0, 0.25).view(torch.from_numpy(photo), 32, np.random.default_rng(0))
    lost = (views > 0).float().mean((1, 2, 3))
    assert 70 < (lost > 0).sum() < 130
    assert lost.max() < 0.16


def test_the_draws_are_those_of_runs_that_earlier_versions_began(photos):
    drawn = np.random.default_rng(3)
    Augmentation(0.3, 0.3, 0.0).view(torch.from_numpy(photos), 24, drawn)
    by_hand = np.random.default_rng(3)
    for shape in (3, 3, 3, 3, 3, (3, 3, 1, 1, 1), 3, 3):  # area, ratio, left, top, mirrored, colours, grey, erased
        by_hand.random(shape)
    assert drawn.bit_generator.state == by_hand.bit_generator.state


def test_pixels_are_normalised_as_the_weights_expect():
    grey = torch.tensor([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1)
    caffe = normalised(grey, PIXELS["caffe"]).flatten().tolist()
    assert caffe == pytest.approx([30 - 103.939, 20 - 116.779, 10 - 123.68])
    imagenet = normalised(grey, PIXELS["imagenet"]).flatten().tolist()
    assert imagenet == pytest.approx(
        [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225]
    )
