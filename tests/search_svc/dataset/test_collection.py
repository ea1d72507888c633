import pytest
from vmmr.photo_folders import LeftOut

from search_svc.dataset.collection import scan
from svckit.cli import CommandError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize("top", ["", "VMMRdb/", "VMMRdb_master/", "train/", "data/image/"])
def test_label_folders_are_found_below_the_folders_a_data_set_comes_in(tmp_path, top):
    touch(tmp_path, f"{top}honda_pilot_2011/b.jpg", f"{top}honda_pilot_2011/a.JPG", f"{top}bmw_x5_2001/ç & 2.webp")
    touch(tmp_path, "classes.csv", "__MACOSX/honda_pilot_2011/a.jpg", ".cache/x/y.jpg")
    collection = scan(tmp_path)
    assert collection.top == top
    assert dict(collection.classes) == {
        "bmw_x5_2001": [f"{top}bmw_x5_2001/ç & 2.webp"],
        "honda_pilot_2011": [f"{top}honda_pilot_2011/a.JPG", f"{top}honda_pilot_2011/b.jpg"],
    }
    assert list(collection.classes) == sorted(collection.classes)


def test_a_lone_label_folder_is_a_label_not_a_wrapping(tmp_path):
    touch(tmp_path, "honda_pilot_2011/a.jpg", "honda_pilot_2011/thumbnails/a.jpg")
    collection = scan(tmp_path)
    assert (collection.top, dict(collection.classes)) == ("", {"honda_pilot_2011": ["honda_pilot_2011/a.jpg"]})


def test_what_is_not_a_labelled_photo_is_reported_with_its_path(tmp_path):
    touch(tmp_path, "VMMRdb/a_b_2001/1.jpg", "VMMRdb/a_b_2001/Thumbs.db", "VMMRdb/a_b_2001/._1.jpg")
    touch(tmp_path, "VMMRdb/a_b_2001/sub/2.jpg", "VMMRdb/stray.txt", "VMMRdb/a_b_2001/3\n.jpg", "VMMRdb/e_m_2001/x.txt")
    collection = scan(tmp_path)
    assert dict(collection.classes) == {"a_b_2001": ["VMMRdb/a_b_2001/1.jpg"]}, "a label without photos is no label"
    control = "its name has control characters, or such that change the order of the text around them"
    assert sorted(collection.left_out, key=lambda each: each.path) == [
        LeftOut("VMMRdb/a_b_2001/._1.jpg", "hidden", photos=1, expected=True),
        LeftOut("VMMRdb/a_b_2001/3\n.jpg", control, photos=1),
        LeftOut("VMMRdb/a_b_2001/Thumbs.db", "made by the system, not by a camera", expected=True),
        LeftOut("VMMRdb/a_b_2001/sub", "in a folder within the folder of a label", photos=1),
        LeftOut("VMMRdb/e_m_2001/x.txt", "not a photo file", expected=True),
        LeftOut("VMMRdb/stray.txt", "not a photo file", expected=True),
    ]


def test_a_folder_without_labelled_photos_is_refused_with_what_is_in_it(tmp_path):
    touch(tmp_path, "a.jpg", "folder/notes.txt")
    with pytest.raises(
        CommandError,
        match=r"holds no photo in a folder named after its label; 2 files left out: not a photo file \(1\); not in",
    ):
        scan(tmp_path)
    with pytest.raises(CommandError, match=r"nowhere: there is no such folder"):
        scan(tmp_path / "nowhere")


def test_a_lone_folder_of_years_is_refused_with_the_reason(tmp_path):
    touch(tmp_path, "a4/2011/1.jpg", "a6/2012/1.jpg")
    with pytest.raises(
        CommandError, match=r"which takes a make's and a model's above it to be a label \(2\); for example"
    ):
        scan(tmp_path)
