import subprocess
import sys

import pytest

from demo.drawn_cars import LABELS, collection, jpeg
from svckit.cli import CommandError

SMALL = {"classes": 2, "photos": 2, "seed": 5}


@pytest.fixture
def drawn(tmp_path):
    """A whole collection of two classes with two photos each."""
    out = tmp_path / "photos"
    collection.provide(out, **SMALL)
    return out


def files(directory):
    """Content and time of every photo."""
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*.jpg")
    }


def contents(directory):
    return {name: content for name, (content, _) in files(directory).items()}


def test_a_class_is_a_folder_of_numbered_photos(drawn):
    assert set(files(drawn)) == {f"{label}/{number}.jpg" for label in LABELS[:2] for number in ("000", "001")}


def test_photos_are_those_of_the_seed(drawn):
    assert (drawn / LABELS[1] / "001.jpg").read_bytes() == jpeg(LABELS[1], 5 * collection.MAX_PHOTOS + 1)


def test_nothing_is_left_beside_a_finished_collection(drawn):
    assert [path.name for path in drawn.parent.iterdir()] == ["photos"]


def test_a_whole_collection_is_kept(drawn):
    before = files(drawn)
    collection.provide(drawn, **SMALL)
    assert files(drawn) == before


@pytest.mark.parametrize(
    "damage", [lambda photo: photo.unlink(), lambda photo: photo.write_bytes(photo.read_bytes()[::-1])]
)
def test_an_incomplete_or_damaged_collection_is_drawn_again(drawn, damage):
    before = contents(drawn)
    damage(drawn / LABELS[0] / "001.jpg")
    collection.provide(drawn, **SMALL)
    assert contents(drawn) == before


@pytest.mark.parametrize("change", [{"seed": 6}, {"classes": 1}, {"photos": 3}])
def test_other_numbers_draw_another_collection(drawn, change):
    before = contents(drawn)
    collection.provide(drawn, **SMALL | change)
    assert contents(drawn) != before


def test_what_other_code_drew_is_drawn_again(drawn, monkeypatch):
    before = files(drawn)
    monkeypatch.setattr(collection, "_fingerprint", lambda: "older code")
    collection.provide(drawn, **SMALL)
    assert all(files(drawn)[name][1] != drawn_at for name, (_, drawn_at) in before.items())


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    """A collection is there whole or not at all."""

    def jpeg_then_interrupt(label, seed):
        if label == LABELS[1]:
            raise KeyboardInterrupt
        return b"photo"

    monkeypatch.setattr(collection, "jpeg", jpeg_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        collection.provide(tmp_path / "photos", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_someone_elses_photos_is_left_alone(tmp_path):
    mine = tmp_path / "holiday.jpg"
    mine.write_bytes(b"beach")
    with pytest.raises(CommandError, match="not drawn by this command"):
        collection.provide(tmp_path, **SMALL)
    assert mine.read_bytes() == b"beach"


def test_an_empty_folder_is_filled(tmp_path):
    collection.provide(tmp_path, **SMALL | {"classes": 1, "photos": 1})
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 0}, "classes must be from 1 to 36, got 0"),
        ({"classes": 37}, "classes must be from 1 to 36, got 37"),
        ({"photos": 0}, "photos must be from 1 to 1000, got 0"),
        ({"photos": 1001}, "photos must be from 1 to 1000, got 1001"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
    ],
)
def test_numbers_out_of_bounds_are_named(tmp_path, change, message):
    with pytest.raises(CommandError, match=message):
        collection.provide(tmp_path / "photos", **SMALL | change)


def test_the_command_draws(tmp_path):
    command = [sys.executable, "-m", "demo.drawn_cars", "--classes", "1", "--photos", "1", "--out", tmp_path / "photos"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert list(files(tmp_path / "photos")) == [f"{LABELS[0]}/000.jpg"]


def test_the_command_tells_a_mistake_in_one_line(tmp_path):
    command = [sys.executable, "-m", "demo.drawn_cars", "--photos", "0", "--out", tmp_path / "photos"]
    failed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr == "drawn_cars: error: photos must be from 1 to 1000, got 0\n"
