"""What is sent."""

import io

import pytest
from PIL import Image

from loadtest import photos
from loadtest.photos import NoPhotosError
from loadtest.prepare import batches


def test_a_folder_is_searched_recursively_for_photos_alone(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1.jpg", "a/2.JPEG", "a/b/3.png", "a/notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    found = photos.found(tmp_path, distinct=10, seed=0, max_bytes=100)
    assert sorted(found.contents) == [b"1.jpg", b"a/2.JPEG", b"a/b/3.png"]
    assert found.source == f"3 of 3 photos from {tmp_path} (1 file left out: not a photo file (1))"


def test_photos_are_drawn_from_the_whole_folder_by_the_seed(tmp_path):
    for n in range(100):
        (tmp_path / f"{n:03}.jpg").write_bytes(b"%d" % n)
    first, same, other = (photos.found(tmp_path, 5, seed, 100).contents for seed in (1, 1, 2))
    assert first == same != other
    assert len(set(first)) == 5
    assert max(map(int, first)) > 10


def test_photos_that_the_embedder_would_not_accept_are_left_out(tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(101))
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "fine.jpg").write_bytes(bytes(100))
    assert photos.found(tmp_path, 10, 0, max_bytes=100).contents == (bytes(100),)
    with pytest.raises(NoPhotosError, match=r"3 files end in .* none has at most 99 bytes"):
        photos.found(tmp_path, 10, 0, max_bytes=99)
    with pytest.raises(NoPhotosError, match="absent is no folder"):
        photos.found(tmp_path / "absent", 10, 0, max_bytes=99)


def test_photos_are_not_more_than_processes_should_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MOST_BYTES", 250)
    for n in range(5):
        (tmp_path / f"{n}.jpg").write_bytes(bytes(100))
    assert len(photos.found(tmp_path, 10, 0, max_bytes=100).contents) == 2


def test_drawn_photos_are_jpegs_of_the_size_that_differ_and_are_always_the_same():
    first, second = photos.drawn(2, (500, 375), seed=7).contents
    with Image.open(io.BytesIO(first)) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (500, 375), "RGB")
    assert first != second
    assert (first, second) == photos.drawn(2, (500, 375), seed=7).contents
    assert first not in photos.drawn(2, (500, 375), seed=8).contents
    # As large as photos of that size are, and so as slow to decode.
    assert 15_000 < len(first) < 80_000


def test_batches_hold_all_things_and_are_all_full():
    assert list(batches(list("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e", "a"]]
    assert list(batches(["a"], 3)) == [["a", "a", "a"]]
