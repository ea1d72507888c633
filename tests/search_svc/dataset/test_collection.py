import pytest

from search_svc.dataset.collection import Remark, scan
from svckit.cli import CommandError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize("top", ["", "VMMRdb/", "VMMRdb_master/", "train/"])
def test_label_folders_are_found_below_the_folder_a_data_set_comes_in(tmp_path, top):
    touch(tmp_path, f"{top}honda_pilot_2011/b.jpg", f"{top}honda_pilot_2011/a.JPG", f"{top}bmw_x5_2001/ç & 2.webp")
    touch(tmp_path, "classes.csv", "__MACOSX/honda_pilot_2011/a.jpg", ".cache/x/y.jpg")
    collection = scan(tmp_path)
    assert collection.top == top
    assert dict(collection.classes) == {"bmw_x5_2001": ["ç & 2.webp"], "honda_pilot_2011": ["a.JPG", "b.jpg"]}
    assert list(collection.classes) == sorted(collection.classes)


def test_a_lone_label_folder_is_a_label_not_a_wrapping(tmp_path):
    touch(tmp_path, "honda_pilot_2011/a.jpg", "honda_pilot_2011/thumbnails/a.jpg")
    collection = scan(tmp_path)
    assert (collection.top, dict(collection.classes)) == ("", {"honda_pilot_2011": ["a.jpg"]})


def test_what_is_not_a_labelled_photo_is_reported_with_its_path_unless_it_is_hidden(tmp_path):
    touch(tmp_path, "VMMRdb/a_b_2001/1.jpg", "VMMRdb/a_b_2001/Thumbs.db", "VMMRdb/a_b_2001/._1.jpg")
    touch(tmp_path, "VMMRdb/a_b_2001/sub/2.jpg", "VMMRdb/stray.txt", "VMMRdb/a_b_2001/3\n.jpg", "VMMRdb/e_m_2001/x.txt")
    collection = scan(tmp_path)
    assert dict(collection.classes) == {"a_b_2001": ["1.jpg"]}, "a label without photos is no label"
    assert set(collection.skipped) == {
        Remark("VMMRdb/a_b_2001/Thumbs.db", "not a photo file"),
        Remark("VMMRdb/a_b_2001/sub", "a folder within the folder of a label"),
        Remark("VMMRdb/a_b_2001/3\n.jpg", "its name has characters that cannot be printed"),
        Remark("VMMRdb/e_m_2001/x.txt", "not a photo file"),
        Remark("VMMRdb/stray.txt", "not in a folder named after a label"),
    }


def test_a_folder_without_labelled_photos_is_refused(tmp_path):
    touch(tmp_path, "a.jpg", "folder/notes.txt")
    with pytest.raises(CommandError, match="holds no photo in a folder named after its label"):
        scan(tmp_path)
    with pytest.raises(CommandError, match=r"nowhere: there is no such folder"):
        scan(tmp_path / "nowhere")
