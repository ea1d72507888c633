import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.dataset import photo_list as manifest
from search_svc.dataset.photo_list import SPLITS, Photo
from search_svc.voting.labels import Label, parse
from svckit.artifact import ArtifactError

HEADER = "path,label,make,model,year,split\n"

text = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=10)
text = text.map(lambda words: unicodedata.normalize("NFC", words))
names = text.filter(bool)
labels = st.builds(Label, names, text, text, st.none() | st.integers(1908, 2049))
paths = names.filter(lambda name: name[0] != "/" and ".." not in name)
photos = st.lists(
    st.builds(Photo, paths, labels, st.sampled_from(SPLITS)), max_size=5, unique_by=lambda photo: photo.label.label
)


@settings(deadline=None)
@given(photos)
def test_what_is_written_is_read(tmp_path_factory, photos):
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    manifest.write(path, photos)
    assert manifest.read(path) == photos


def test_a_photo_is_a_line_that_people_can_read(tmp_path):
    path = tmp_path / "manifest.csv"
    manifest.write(path, [Photo("a/1.jpg", parse("land_rover_lr2_2012"), "dev"), Photo("b/2.jpg", parse("b"), "test")])
    assert path.read_text() == HEADER + "a/1.jpg,land_rover_lr2_2012,land rover,lr2,2012,dev\nb/2.jpg,b,,,,test\n"


def test_columns_that_others_added_are_passed_over_and_a_byte_order_mark_too(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("split,note,path,label,make,model,year\ntrain,nice,a/1.jpg,x,y,z,2001\n", encoding="utf-8-sig")
    assert manifest.read(path) == [Photo("a/1.jpg", Label("x", "y", "z", 2001), "train")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no column path, label, make, model, year, split"),
        ("path,label,make,model,year\n", "has no column split"),
        (
            HEADER + "a,b,c,d,2001,train\na,b,c,d,2001,val\n",
            "line 3: split must be one of train, dev, test, unseen-dev, unseen-test, got 'val'",
        ),
        (HEADER + "a,b,c,d,MMI,train\n", "line 2: year must be a number or nothing, got 'MMI'"),
        (HEADER + "a,b,c,d,2019.5,train\n", "line 2: year must be a number or nothing, got '2019.5'"),
        (
            HEADER + "a,b\u202ec,c,d,2019,train\n",
            (
                "line 2: label: its name has control characters, or such that change the order of the text around them, got "
                "'b\\u202ec'"
            ),
        ),
        (HEADER + "a,b,c,d\n", "line 2: needs a path, a label and every other column"),
        (HEADER + ",b,c,d,2001,train\n", "line 2: needs a path, a label and every other column"),
        (HEADER + "a,,c,d,2001,train\n", "line 2: needs a path, a label and every other column"),
        (
            HEADER + "a/1,b,c,d,2001,train\n../2,b,c,d,2001,train\n",
            "line 3: path must lead to a file within the folder of photos, got '../2'",
        ),
        (
            HEADER + "/a/1,b,c,d,2001,train\n",
            "line 2: path must lead to a file within the folder of photos, got '/a/1'",
        ),
        (
            HEADER + "1,a,c,d,2001,train\n2,b,c,d,2001,train\n3,b,c,d,2001,dev\n4,b,c,e,2001,dev\n",
            "the label 'b' has make 'c', model 'd', year 2001 in line 3, but make 'c', model 'e', year 2001 in line 5",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, content, reason):
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    with pytest.raises(ArtifactError) as caught:
        manifest.read(path)
    assert caught.value.path == path
    assert caught.value.reason == reason


def test_what_is_no_csv_or_not_there_is_told(tmp_path):
    path = tmp_path / "manifest.csv"
    with pytest.raises(ArtifactError, match="No such file"):
        manifest.read(path)
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ArtifactError, match="not a CSV file in UTF-8"):
        manifest.read(path)


def test_numbers_and_flags_are_read_as_pandas_writes_them(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(HEADER.strip() + ",no_car_found,cars\na,b,c,d,2019.0,train,True,0.0\ne,f,g,h,,dev,False,2.0\n")
    one, other = manifest.read(path)
    assert (one.label.year, one.no_car_found, one.cars) == (2019, True, 0)
    assert (other.label.year, other.no_car_found, other.cars) == (None, False, 2)


def test_labels_in_two_forms_of_unicode_are_one(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text(
        HEADER
        + "1,citroe\u0308n_c4_2011,citroe\u0308n,c4,2011,train\n2,citro\u00ebn_c4_2011,citro\u00ebn,c4,2011.0,dev\n",
        encoding="utf-8",
    )
    assert {photo.label for photo in manifest.read(path)} == {Label("citro\u00ebn_c4_2011", "citro\u00ebn", "c4", 2011)}
