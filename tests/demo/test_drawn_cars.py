import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.drawn_cars import LABELS, draw, jpeg, scenery
from demo.drawn_cars.canvas import Camera
from demo.drawn_cars.catalogue import CARS
from demo.drawn_cars.weather import WEATHERS
from search_svc.voting import labels


def pixels(label, seed):
    return np.asarray(draw(label, seed))


def test_one_seed_draws_one_photo():
    """The same label and seed give the same file, byte for byte."""
    assert jpeg(LABELS[3], 7) == jpeg(LABELS[3], 7)


def test_other_seeds_and_other_cars_give_other_photos():
    photos = {jpeg(label, seed) for label in LABELS[:3] for seed in range(4)}
    assert len(photos) == 12


@pytest.mark.parametrize("label", LABELS)
def test_every_class_can_be_drawn(label):
    """A photo of about 320 x 235 pixels that shows more than a plain surface."""
    image = draw(label, 1)
    assert image.mode == "RGB"
    assert 300 <= image.width <= 340
    assert 215 <= image.height <= 255
    assert np.asarray(image).std() > 10


@settings(max_examples=25)
@given(label=st.sampled_from(LABELS), seed=st.integers(0, 2**63))
def test_every_seed_draws(label, seed):
    """No view, place or weather that chance can choose makes drawing fail."""
    draw(label, seed)


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=list(WEATHERS))
@pytest.mark.parametrize("horizon", [-9, 30, 470])
def test_places_are_drawn_wherever_the_horizon_is(weather, horizon):
    """Above the picture too: a camera that is near, and higher than the car, does not see it."""
    camera = Camera(np.array([6.0, 2, 1.5]), np.array([-1.0, 0, 0]), 600, (320, horizon))
    for seed in range(8):
        place = scenery.backdrop((640, 480), camera, weather, np.random.default_rng(seed))
        assert place.size == (640, 480)


def test_files_are_jpegs_of_the_drawing():
    with Image.open(io.BytesIO(jpeg(LABELS[0], 2))) as stored:
        assert stored.format == "JPEG"
        stored_pixels = np.asarray(stored).astype(float)
    assert np.abs(stored_pixels - pixels(LABELS[0], 2)).mean() < 12


def test_a_car_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="'trabant_601_1964'"):
        draw("trabant_601_1964", 1)


def test_labels_read_as_make_model_and_year():
    """The label parser understands every one, and there are makes of several models, and models of several years."""
    parsed = [labels.parse(label) for label in LABELS]
    assert all(label.make and label.model and label.year for label in parsed)
    assert len(parsed) == 36
    assert 3 <= len({label.make for label in parsed}) <= 8
    models = [(label.make, label.model) for label in parsed]
    assert len(set(models)) < len(models)


def test_no_two_classes_are_the_same_car():
    assert len(set(CARS.values())) == len(CARS)


def test_two_years_of_one_generation_share_their_body():
    """They look nearly alike, as real ones do: only details of the face differ."""
    older, newer = CARS["castell_regent_2006"], CARS["castell_regent_2008"]
    assert older.body == newer.body
    assert older.face != newer.face
