import numpy as np
import pytest
from PIL import Image, ImageDraw

from search_svc.audit import pixels


def picture(seed=0, body=(150, 30, 40), size=(400, 300)):
    """Draw a car of a colour before smooth scenery."""
    noise = np.random.default_rng(seed).integers(60, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((80, 130, 320, 220), 30, fill=body)
    for x in (130, 270):
        pen.ellipse((x - 28, 195, x + 28, 251), fill=(20, 20, 20))
    return image


def saved(path, image, **how):
    image.save(path, **how)
    return pixels.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda photo: photo,
        lambda photo: photo.resize((160, 120)),
        lambda photo: photo.crop((0, 0, 370, 280)),
        lambda photo: photo.crop((20, 15, 390, 295)),
        lambda photo: photo.point(lambda value: value * 0.8 + 30),
    ],
)
def test_a_copy_has_the_same_pixels_either_way(tmp_path, change):
    photo = saved(tmp_path / "photo.png", picture())
    copy = saved(tmp_path / "copy.jpg", change(picture()), quality=40)
    assert pixels.same(photo, copy)
    assert pixels.same(copy, photo)


@pytest.mark.parametrize(
    "other",
    [
        picture(body=(40, 60, 150)),  # of another colour, as bright
        picture(body=(220, 215, 210)),
        picture(seed=1),
        picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ],
)
def test_a_render_in_another_colour_and_another_picture_have_others(tmp_path, other):
    photo, other = saved(tmp_path / "photo.png", picture()), saved(tmp_path / "other.png", other)
    assert not pixels.same(photo, other)
    assert not pixels.same(other, photo)


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(OSError, match="photo"):
        pixels.read(tmp_path / "a.jpg")
