"""Each form in which the data sets go around, as small archives with the names and fields of the real ones."""

import io

import numpy as np
import pytest
from PIL import Image

from search_svc.dataset.collection import scan
from search_svc.fetching import annotations
from search_svc.fetching.layouts import stanford_cars, vmmrdb
from search_svc.fetching.unpacking import unpack
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.search_svc.fetching.conftest import CARS, LABELS, devkit, matlab, photo, row, tgz, zipped


@pytest.fixture
def lay_out(tmp_path):
    """Unpacks archives of the given names and contents, and returns the photos below the folder, and what was left out."""

    def run(layout, files, *, whole=False):
        paths = []
        for name, content in files.items():
            paths.append(tmp_path / name)
            paths[-1].write_bytes(content)
        out = tmp_path / "out"
        done = unpack(paths, layout(paths, whole=whole), out, lambda *_: None)
        found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert sum(done.photos.values()) == len(found)
        return found, dict(done.left_out)

    return run


def is_cut_to(content, colour):
    """Whether a photo is the car of the colour and nothing else."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    wanted = np.array(Image.new("RGB", (1, 1), colour).getpixel((0, 0)))
    return pixels.shape == (30, 40, 3) and np.abs(pixels - wanted).max() < 12


def test_the_devkit_beside_train_and_test(lay_out):
    labelled = matlab([row(2, fname="00001.jpg")])
    found, left_out = lay_out(
        stanford_cars,
        {
            "car_devkit.tgz": tgz(devkit()),
            "cars_test_annos_withlabels.mat": labelled,
            "cars_train.tgz": tgz({"cars_train/00001.jpg": photo("red"), "cars_train/00002.jpg": photo("lime")}),
            "cars_test.tgz": tgz({"cars_test/00001.jpg": photo("blue")}),
        },
    )
    assert left_out == {}
    assert sorted(found) == sorted(
        [f"{LABELS[0]}/train_00001.jpg", f"{LABELS[2]}/train_00002.jpg", f"{LABELS[1]}/test_00001.jpg"]
    )
    assert is_cut_to(found[f"{LABELS[0]}/train_00001.jpg"], "red")
    assert is_cut_to(found[f"{LABELS[1]}/test_00001.jpg"], "blue")


def test_kaggles_archive_with_the_devkit(lay_out):
    """Its folders are doubled, and its cars_annos.mat is of photos that are called otherwise."""
    others = matlab([row(2, relative_im_path="car_ims/000001.jpg", test=0)])
    archive = zipped(
        {
            "cars_annos.mat": others,
            "cars_train/cars_train/00001.jpg": photo("red"),
            "cars_test/cars_test/00001.jpg": photo("blue"),
        }
    )
    found, left_out = lay_out(stanford_cars, {"archive.zip": archive, "car_devkit.tgz": tgz(devkit())})
    assert list(found) == [f"{LABELS[0]}/train_00001.jpg"]
    assert left_out == {"no annotation names it": 1}


def test_one_file_of_annotations_for_all_photos(lay_out):
    annos = matlab(
        [
            row(1, relative_im_path="car_ims/000001.jpg", test=0),
            row(2, relative_im_path="car_ims/000002.jpg", test=1),
        ]
    )
    images = tgz({"car_ims/000001.jpg": photo("red"), "car_ims/000002.jpg": photo("blue")})
    found, left_out = lay_out(stanford_cars, {"cars_annos.mat": annos, "car_ims.tgz": images})
    assert left_out == {}
    assert sorted(found) == sorted([f"{LABELS[0]}/train_000001.jpg", f"{LABELS[1]}/test_000002.jpg"])
    assert is_cut_to(found[f"{LABELS[1]}/test_000002.jpg"], "blue")


def by_classes(heading=""):
    names = "".join(f'"{name}"\n' for name in CARS)
    return {
        "names.csv": names.encode(),
        "anno_train.csv": f"{heading}00001.jpg,31,21,70,50,3\n00002.jpg,31,21,70,50,1\n".encode(),
        "anno_test.csv": b"00001.jpg,31,21,70,50,2\n",
        "car_data/car_data/train/Ram C-V Cargo Van Minivan 2012/00001.jpg": photo("red"),
        "car_data/car_data/train/Acura TL Type-S 2008/00002.jpg": photo("red"),
        "car_data/car_data/test/Acura TL Type-S 2008/00001.jpg": photo("blue"),
        "car_data/car_data/test/Acura TL Type-S 2008/00009.jpg": photo("blue"),
    }


@pytest.mark.parametrize("heading", ["", "fname,x1,y1,x2,y2,class\n"])
def test_folders_of_classes_with_boxes_in_csv(lay_out, heading):
    found, left_out = lay_out(stanford_cars, {"archive.zip": zipped(by_classes(heading))})
    assert sorted(found) == sorted([f"{LABELS[2]}/train_00001.jpg", f"{LABELS[1]}/test_00001.jpg"])
    assert is_cut_to(found[f"{LABELS[2]}/train_00001.jpg"], "red")
    assert left_out == {
        "its annotation names another car than its folder": 1,
        "no box around its car is known (--whole takes such photos as they are)": 1,
    }


def test_whole_photos_are_kept_to_the_byte(lay_out):
    files = {name: content for name, content in by_classes().items() if not name.endswith(".csv")}
    found, left_out = lay_out(stanford_cars, {"archive.zip": zipped(files)}, whole=True)
    assert left_out == {}
    assert found[f"{LABELS[1]}/test_00009.jpg"] == photo("blue")


@pytest.mark.parametrize("box", [(90, 21, 200, 50), (90, 0, 101, 60)])
def test_a_box_that_is_larger_than_the_photo_is_cut_at_its_edge(lay_out, box):
    annos = matlab([row(1, box, relative_im_path="car_ims/1.jpg", test=0)])
    found, _ = lay_out(stanford_cars, {"cars_annos.mat": annos, "car_ims.tgz": tgz({"car_ims/1.jpg": photo()})})
    assert Image.open(io.BytesIO(*found.values())).width == 11


def test_what_can_not_be_cut_is_left_out_and_told(lay_out):
    annos = matlab(
        [
            row(1, (150, 1, 160, 9), relative_im_path="car_ims/1.jpg", test=0),
            row(1, relative_im_path="car_ims/2.jpg", test=0),
            row(1, relative_im_path="car_ims/3.jpg", test=0),
        ]
    )
    images = tgz({"car_ims/1.jpg": photo(), "car_ims/2.jpg": b"no photo", "car_ims/3.jpg": photo()})
    found, left_out = lay_out(stanford_cars, {"cars_annos.mat": annos, "car_ims.tgz": images})
    assert list(found) == [f"{LABELS[0]}/train_3.jpg"]
    outside, (damaged, count) = left_out.pop("the box around its car is not in the photo"), *left_out.items()
    assert (outside, count) == (1, 1)
    assert damaged.startswith("can't be cut to its car: ")


@pytest.mark.parametrize("top", ["", "VMMRdb/", "data/VMMRdb/"])
def test_vmmrdb_with_its_top_folder_or_without(lay_out, top):
    files = {
        f"{top}honda_pilot_2011/1.jpg": photo("red"),
        f"{top}mercedes benz_e320_2001/2.jpg": photo("blue"),
        f"__MACOSX/{top}honda_pilot_2011/._1.jpg": b"junk",
        f"{top}honda_pilot_2011/Thumbs.db": b"junk",
    }
    found, left_out = lay_out(vmmrdb, {"VMMRdb.zip": zipped(files)})
    assert found == {"honda_pilot_2011/1.jpg": photo("red"), "mercedes benz_e320_2001/2.jpg": photo("blue")}
    assert left_out == {}


def test_photos_without_a_label_and_second_photos_of_a_name_are_left_out(lay_out):
    files = {"1.jpg": b"1", "a/honda_pilot_2011/1.jpg": b"2", "b/honda_pilot_2011/1.jpg": b"3", "__/1.jpg": b"4"}
    found, left_out = lay_out(vmmrdb, {"VMMRdb.zip": zipped(files)})
    assert found == {"honda_pilot_2011/1.jpg": b"2"}
    assert left_out == {
        "not in a folder named after a label": 1,
        "its label has a photo of that name already": 1,
        "its label has no letter and no digit": 1,
    }


def test_split_reads_what_is_laid_out(lay_out, tmp_path):
    lay_out(stanford_cars, {"archive.zip": zipped(by_classes())})
    assert list(scan(tmp_path / "out").classes) == sorted([LABELS[1], LABELS[2]])


def test_an_archive_that_is_damaged_in_the_middle_leaves_nothing(tmp_path):
    content = zipped({f"honda_pilot_2011/{number}.jpg": bytes([number]) * 1000 for number in range(200)})
    damaged = bytearray(content)
    damaged[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    (tmp_path / "VMMRdb.zip").write_bytes(damaged)
    paths = [tmp_path / "VMMRdb.zip"]
    with pytest.raises(ArtifactError, match="is damaged"):
        unpack(paths, vmmrdb(paths, whole=False), tmp_path / "out", lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["VMMRdb.zip"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"cars_annos.mat": b"no matlab"}, "cars_annos.mat: is no MATLAB file"),
        ({"cars_annos.mat": matlab([row(1, fname="1.jpg")])}, "cars_annos.mat: is not what"),
        ({"cars_annos.mat": matlab([row(9, relative_im_path="a/1.jpg", test=0)])}, "class 9 is none of the 3"),
        ({"cars_annos.mat": matlab([row(0, relative_im_path="a/1.jpg", test=0)])}, "class 0 is none of the 3"),
        ({"cars_train_annos.mat": matlab([row(1, fname="1.jpg")])}, "need cars_meta.mat, too"),
        ({"anno_train.csv": b"1.jpg,1,1,2,2,1\n"}, "without names.csv"),
        (
            {"anno_train.csv": b"1.jpg,1,1,2,2,1\n2.jpg,1,x,2,2,1\n", "names.csv": b"A B 2000\n"},
            "anno_train.csv: is not",
        ),
        ({"anno_train.csv": b"\xff", "names.csv": b"A B 2000\n"}, "anno_train.csv: is not CSV in UTF-8"),
    ],
)
def test_annotations_that_make_no_sense_are_told(files, told):
    with pytest.raises(CommandError, match=told):
        annotations.read(files)


def test_annotations_that_are_far_too_large_are_not_read(tmp_path):
    path = tmp_path / "cars_annos.mat"
    with path.open("wb") as file:
        file.truncate(annotations.MOST_BYTES + 1)
    with pytest.raises(ArtifactError, match="too many for annotations"):
        stanford_cars([path], whole=False)


def test_the_labels_are_those_of_the_gallery_that_ships(root):
    version = IndexVersion.open(root / "models" / "stanford-cars", verify=False)
    assert {annotations.label_of(name) for name in CARS} <= {label.label for label in version.items.labels}
