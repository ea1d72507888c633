"""Which files of a folder are photos, and what their labels are."""

import os

import pytest
from vmmr.labelled_folders import BESIDE, NO_YEAR_OF, TOO_DEEP, YEAR_ALONE, scan
from vmmr.photo_folders import find, tally
from vmmr.photo_names import has_photo_name, name_fault, shown


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize(
    "suffix", [["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "heic", "heif", "hif", "avif"]]
)
def test_suffixes_of_photos_are_known_in_small_letters_and_capitals(suffix):
    assert all(has_photo_name(f"a.{each}") and has_photo_name(f"a.{each.upper()}") for each in suffix)
    assert not any(map(has_photo_name, ["jpg", "a.txt", "a.jpg.part", "a"]))


@pytest.mark.parametrize(
    "name",
    [
        "Screenshot 2024-01-01 at 1.02.03\u202fPM.png",  # macOS
        "caf\u00e9\u00a01.jpg",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.jpg",  # Persian is spelt with the joiner
        "\u0915\u094d\u200d\u0937.jpg",
        "\u200f\u05e9\u05dc\u05d5\u05dd.jpg",
        "\u8eca\u3000\uff11.jpg",
        "e\u0301.jpg",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467.jpg",
    ],
)
def test_letters_of_any_script_and_what_their_spelling_needs_are_a_name(name):
    assert name_fault(name) is None
    assert shown(name) == name


@pytest.mark.parametrize(
    "name", ["a\n.jpg", "\x1b[31m.jpg", "a\u202egpj.exe", "\u2066a", "a\u2028b", "a\x85", "caf\udce9"]
)
def test_what_controls_or_reorders_a_terminal_is_no_name_and_is_shown_escaped(name):
    assert name_fault(name)
    assert shown(name).isascii()
    assert shown(name).isprintable()


def test_every_file_is_a_photo_or_left_out_with_a_reason(tmp_path):
    touch(tmp_path, "1.jpg", "b/2.HEIC", "b/c/3.jfif", "b/c/4.jpe")
    touch(tmp_path, "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir/1.jpg/SYNOFILE_THUMB_S.jpg", "__MACOSX/b/._2.jpg")
    touch(tmp_path, "b/Thumbs.db", "b/.DS_Store", "b/._2.HEIC", ".hidden/5.jpg", "b/notes.txt", "b/6.jpg.part")
    touch(tmp_path, "folder.jpg/7.jpg", "b/8\n.jpg", os.fsdecode(b"b/caf\xe9.jpg"))
    os.mkfifo(tmp_path / "b/pipe.jpg")
    (tmp_path / "b/lost.jpg").symlink_to("nowhere.jpg")
    found = find(tmp_path)
    assert found.photos == ["1.jpg", "b/2.HEIC", "b/c/3.jfif", "b/c/4.jpe"]
    files = sum(not path.is_dir() for path in tmp_path.rglob("*"))
    assert len(found.photos) + sum(each.files for each in found.left_out) == files
    assert tally(found.left_out) == (
        "14 files left out: made by the system, not by a camera (4); hidden (3); not a photo file (2); a link that leads "
        "nowhere (1); in a folder that has the name of a photo (1); its name has control characters, or such that change the "
        "order of the text around them (1); its name is not UTF-8 (1); neither a file nor a folder (1)"
    )


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "elsewhere/2.jpg", "photos/a/1.jpg")
    (tmp_path / "photos/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/a/up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/a/self.jpg").symlink_to("self.jpg")
    found = find(tmp_path / "photos")
    assert found.photos == ["a/1.jpg", "b/2.jpg"]
    assert {each.path for each in found.left_out} == {"a/up", "a/self.jpg"}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("honda_pilot_2011/1.jpg", "honda_pilot_2011"),
        ("Audi/A4/2019/1.jpg", "Audi_A4_2019"),
        ("Audi/A4/2019/Blue/1.jpg", "Audi_A4_2019"),
        ("image/78/1/2014/1.jpg", "78_1_2014"),
        ("resized_DVM/Land_Rover/Range Rover Evoque/2017/Blue/1.jpg", "Land Rover_Range Rover Evoque_2017"),
        ("Peugeot/3008/2016/1.jpg", "Peugeot_3008_2016"),
        ("Peugeot/2008/2015/Red/1.jpg", "Peugeot_2008_2015"),
        ("citroe\u0308n_c4_2011/1.jpg", "citro\u00ebn_c4_2011"),
    ],
)
def test_a_path_is_a_label_in_each_of_the_layouts(tmp_path, path, label):
    touch(tmp_path, path)
    assert scan(tmp_path).labels == {path: label}


def test_compcars_folders_of_years_that_are_not_known_are_labels_without_a_year(tmp_path):
    touch(tmp_path, "78/1/2014/1.jpg", "78/1/unknown/2.jpg")
    assert scan(tmp_path).labels == {"78/1/2014/1.jpg": "78_1_2014", "78/1/unknown/2.jpg": "78_1_0000"}


def test_a_photo_that_lies_in_no_label_is_left_out_not_given_a_wrong_one(tmp_path):
    touch(tmp_path, "Audi/A4/2019/1.jpg", "honda_pilot_2011/2.jpg", "3.jpg", "A4/2019/4.jpg", "2012/5.jpg", "___/6.jpg")
    touch(
        tmp_path,
        "A4/2019/Blue/0.jpg",
        "honda_pilot_2011/front/7.jpg",
        "honda_pilot_2011/front/8.jpg",
        "kia_rio_2009/back/9.jpg",
    )
    scanned = scan(tmp_path)
    assert scanned.labels == {"Audi/A4/2019/1.jpg": "Audi_A4_2019", "honda_pilot_2011/2.jpg": "honda_pilot_2011"}
    assert {(each.path, each.reason, each.files) for each in scanned.left_out} == {
        ("3.jpg", BESIDE, 1),
        ("A4/2019", YEAR_ALONE, 1),
        ("A4/2019/Blue", YEAR_ALONE, 1),
        ("2012", YEAR_ALONE, 1),
        ("___", "its label has no letter and no digit", 1),
        ("honda_pilot_2011/front", TOO_DEEP, 2),
        ("kia_rio_2009/back", TOO_DEEP, 1),
    }


def test_a_make_a_model_or_several_years_are_no_label(tmp_path):
    touch(tmp_path, "all/Audi/A4/2019/1.jpg", "all/Audi/A4/2.jpg", "all/Audi/3.jpg", "all/4.jpg", "all/Audi/A3/5.jpg")
    touch(tmp_path, "all/Audi/A4/2009-2011/6.jpg", "all/Audi/A3/front/7.jpg", "all/honda_pilot_2011/8.jpg")
    scanned = scan(tmp_path)
    assert scanned.labels == {
        "all/Audi/A4/2019/1.jpg": "Audi_A4_2019",
        "all/honda_pilot_2011/8.jpg": "honda_pilot_2011",
    }
    assert {(each.path, each.reason) for each in scanned.left_out} == {
        ("all/Audi/A4/2.jpg", BESIDE),
        ("all/Audi/3.jpg", BESIDE),
        ("all/4.jpg", BESIDE),
        ("all/Audi/A3", NO_YEAR_OF),
        ("all/Audi/A3/front", NO_YEAR_OF),
        ("all/Audi/A4/2009-2011", YEAR_ALONE),
    }


def test_folders_of_several_years_alone_are_no_labels(tmp_path):
    touch(tmp_path, "Audi/A4/2009-2011/1.jpg", "Audi/A4/2012_2014/2.jpg")
    assert scan(tmp_path).labels == {}


def test_a_folder_of_photos_alone_is_a_label_itself_unless_it_is_a_year(tmp_path):
    touch(tmp_path, "pilot/1.jpg", "2012/1.jpg")
    assert scan(tmp_path / "pilot").labels == {"1.jpg": "pilot"}
    assert scan(tmp_path / "2012").labels == {}
