import numpy as np
import pytest
from PIL import Image

from embedder_svc.photos.resize import Resize
from embedder_svc.training.photos import Collection, Decoded, Photos
from svckit.cli import CommandError

HEADER = "path,label,make,model,year,split\n"


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text(
        HEADER
        + "b/1.png,b_x_2001,b,x,2001,train\na/1.png,a_y_2002,a,y,2002,train\na/2.png,a_y_2002,a,y,2002,dev\n"
        + "c/1.png,c_z_2003,c,z,2003,dev\na/3.png,a_y_2002,a,y,2002,test\n"
    )
    return path


@pytest.fixture
def folder(tmp_path):
    for level, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (50 * level, 0, 0)).save(path)
    return tmp_path / "photos"


def test_classes_are_those_of_the_training_photos_in_order(manifest):
    collection = Collection.read(manifest)
    assert collection.classes == ("a_y_2002", "b_x_2001")
    assert collection.train.paths == ("b/1.png", "a/1.png")
    assert collection.train.labels.tolist() == collection.train.makes.tolist() == [1, 0]


def test_dev_photos_of_other_classes_and_test_photos_are_not_seen(manifest):
    assert Collection.read(manifest).dev.paths == ("a/2.png",)


def test_the_identity_changes_with_a_label(manifest):
    before = Collection.read(manifest).identity
    assert Collection.read(manifest).identity == before
    manifest.write_text(manifest.read_text().replace("b/1.png,b_x", "b/1.png,b_w"))
    assert Collection.read(manifest).identity != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label,split\n1.png,a,train\n", "has no column make"),
        (HEADER + "1.png,a_x_2001,a,x,2001,train\n", "at least 2 classes, found 1"),
    ],
)
def test_a_manifest_that_can_teach_nothing_is_refused(tmp_path, content, message):
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    with pytest.raises(CommandError, match=message):
        Collection.read(path)


def test_photos_are_decoded_once_in_their_order(manifest, folder, tmp_path):
    train = Collection.read(manifest).train
    cache = tmp_path / "cache"
    first = Decoded.read(train, folder, cache, Resize("squash", 32))
    assert first.pixels.shape == (2, 32, 32, 3)
    assert first.pixels[:, 0, 0, 0].tolist() == [100, 0]
    (folder / "a/1.png").write_bytes(b"x" * (folder / "a/1.png").stat().st_size)  # unreadable, if it were read again
    again = Decoded.read(train, folder, cache, Resize("squash", 32))
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_many_photos_keep_their_order(folder, tmp_path):
    names, count = ("a/1.png", "a/2.png", "b/1.png"), 200  # parts for several threads
    photos = Photos(tuple(names[number % 3] for number in range(count)), *np.zeros((2, count), np.int64))
    pixels = Decoded.read(photos, folder, tmp_path / "cache", Resize("squash", 32)).pixels
    assert pixels[:, 0, 0, 0].tolist() == [number % 3 * 50 for number in range(count)]


def test_other_photos_and_other_sizes_are_decoded_anew(manifest, folder, tmp_path):
    train = Collection.read(manifest).train
    cache = tmp_path / "cache"
    Decoded.read(train, folder, cache, Resize("squash", 32))
    assert Decoded.read(train, folder, cache, Resize("squash", 48)).pixels.shape[1] == 48
    Image.new("RGB", (64, 64), (9, 99, 199)).save(folder / "a/1.png")
    assert Decoded.read(train, folder, cache, Resize("squash", 32)).pixels[1, 0, 0].tolist() == [9, 99, 199]


@pytest.mark.parametrize(("content", "message"), [(b"GIF", "the file is text"), (None, "there is no such photo")])
def test_a_photo_that_cannot_be_read_is_named_and_nothing_is_left(manifest, folder, tmp_path, content, message):
    path = folder / "a/1.png"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=rf"a/1\.png: .*{message}"):
        Decoded.read(Collection.read(manifest).train, folder, tmp_path / "cache", Resize("squash", 32))
    assert not list((tmp_path / "cache").glob("*"))


def test_no_photos_take_no_file(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(HEADER + "1.png,a_x_2001,a,x,2001,train\n2.png,b_x_2001,b,x,2001,train\n")
    none = Decoded.read(Collection.read(manifest).dev, tmp_path, tmp_path / "cache", Resize("pad", 32))
    assert none.pixels.shape == (0, 32, 32, 3)
