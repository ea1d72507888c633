import numpy as np
import pytest
from PIL import Image

from search_svc.audit import thumbnails
from search_svc.audit.copies import ALIKE


def picture(seed, size=(400, 300)):
    """Return a picture of smooth shapes, like those of a photo."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def saved(path, image, **how):
    image.save(path, **how)
    return thumbnails.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda photo: photo.resize((160, 120)),
        lambda photo: photo.crop((0, 0, 370, 280)),
        lambda photo: photo.crop((20, 15, 390, 295)),
        lambda photo: photo.crop((30, 0, 400, 300)),
        lambda photo: photo.point(lambda value: min(255, value * 0.8 + 30)),
        lambda photo: photo.convert("L"),
    ],
)
def test_a_copy_is_alike_either_way_and_a_different_photo_is_not(tmp_path, change):
    photo = saved(tmp_path / "photo.png", picture(0))
    copy = saved(tmp_path / "copy.jpg", change(picture(0)), quality=30)
    other = saved(tmp_path / "other.png", picture(1))
    assert thumbnails.alike(photo, copy) >= ALIKE
    assert thumbnails.alike(photo, copy) == thumbnails.alike(copy, photo)
    assert thumbnails.alike(photo, other) < 0.6


def test_a_photo_that_was_turned_by_its_camera_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "turned.jpg", picture(0).transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert thumbnails.alike(turned, saved(tmp_path / "upright.png", picture(0))) >= ALIKE


def test_a_picture_of_one_colour_is_like_nothing(tmp_path):
    flat = saved(tmp_path / "flat.png", Image.new("RGB", (100, 100), (9, 9, 9)))
    assert thumbnails.alike(flat, flat) == 0
    assert thumbnails.roughly_alike(flat, flat) == 0


@pytest.mark.parametrize("content", [b"", b"no photo", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_what_cannot_be_read_is_told(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(
        OSError, match=r"a\.jpg: (there are no bytes|the file is text|the file ends before the photo does)"
    ):
        thumbnails.read(tmp_path / "a.jpg")


@pytest.mark.parametrize("form", ["HEIF", "AVIF", "JPEG"])
def test_whatever_can_be_embedded_is_read(tmp_path, form, encode):
    """A JPEG without its last two bytes, for example, and what phones write."""
    (tmp_path / "photo").write_bytes(encode(picture(0), form)[: -2 if form == "JPEG" else None])
    assert thumbnails.alike(thumbnails.read(tmp_path / "photo"), saved(tmp_path / "a.png", picture(0))) >= ALIKE
