import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.dataset.collection import Collection, Remark, scan
from search_svc.dataset.photo_list import Photo
from search_svc.dataset.schemes import CUTS, divide, divide_by_lists, eighty_ten_ten_cuts, hold_out, stratified_cuts
from search_svc.voting.labels import parse
from svckit.cli import CommandError

sizes = st.dictionaries(st.text(st.sampled_from("abc_ 019"), min_size=1, max_size=8), st.integers(1, 60), max_size=6)
schemes = pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())


def collection(sizes, top=""):
    classes = {label: [f"{top}{label}/{i:03d}.jpg" for i in range(sizes[label])] for label in sorted(sizes)}
    return Collection(top, classes, [])


@schemes
@settings(deadline=None)
@given(sizes)
def test_every_photo_is_in_exactly_one_split(cuts, sizes):
    photos = divide(collection(sizes, "VMMRdb/"), cuts)
    expected = [f"VMMRdb/{label}/{i:03d}.jpg" for label, count in sizes.items() for i in range(count)]
    assert [photo.path for photo in photos] == sorted(expected)
    assert all(photo.label == parse(photo.path.split("/")[1]) for photo in photos)


@schemes
@settings(deadline=None)
@given(sizes)
def test_the_same_photos_are_always_split_the_same_way(cuts, sizes):
    assert divide(collection(sizes), cuts) == divide(collection(sizes), cuts)


@schemes
@settings(deadline=None)
@given(sizes)
def test_a_label_is_split_the_same_way_whatever_other_labels_there_are(cuts, sizes):
    together = divide(collection(sizes), cuts)
    for label, count in sizes.items():
        assert divide(collection({label: count}), cuts) == [photo for photo in together if photo.label.label == label]


def blog_lists(data_dir):
    """Return the lists of the blog's algorithm, written as its author describes it, with the global random state."""
    lists = {"train": [], "dev": [], "test": []}
    for category in sorted(folder.name for folder in data_dir.iterdir()):
        names = [f"{category}/{name}" for name in sorted(file.name for file in (data_dir / category).iterdir())]
        random.seed(230)
        random.shuffle(names)
        lists["train"] += names[: int(0.8 * len(names))]
        lists["dev"] += names[int(0.8 * len(names)) : int(0.9 * len(names))]
        lists["test"] += names[int(0.9 * len(names)) :]
    return lists


def test_the_blog_scheme_gives_the_blogs_lists(tmp_path):
    for count in [*range(1, 13), 45, 100, 233]:
        folder = tmp_path / f"make_model {count}_2001"
        folder.mkdir()
        for i in range(count):
            (folder / f"{i * 7919 % 1000}.jpg").touch()
    lists = {"train": set(), "dev": set(), "test": set()}
    for photo in divide(scan(tmp_path), eighty_ten_ten_cuts):
        lists[photo.split].add(photo.path)
    assert lists == {split: set(names) for split, names in blog_lists(tmp_path).items()}


@pytest.mark.parametrize(
    ("photos", "expected"),
    [(1, (0, 0, 1)), (2, (1, 0, 1)), (5, (4, 0, 1)), (6, (4, 1, 1)), (9, (7, 1, 1)), (10, (8, 1, 1)), (45, (36, 4, 5))],
)
def test_the_blogs_cuts(photos, expected):
    assert shares(eighty_ten_ten_cuts, photos) == expected


@pytest.mark.parametrize("photos", range(1, 6))
def test_the_blog_leaves_dev_without_the_labels_of_fewer_than_six_photos(photos):
    assert shares(eighty_ten_ten_cuts, photos)[1] == 0


@settings(deadline=None)
@given(st.integers(3, 2_000))
def test_the_stratified_scheme_has_labels_of_three_photos_and_more_in_every_split(photos):
    train, dev, test = shares(stratified_cuts, photos)
    assert train >= 1
    assert dev == test >= 1
    assert abs(dev - photos / 10) <= 1


def test_the_stratified_scheme_keeps_a_lone_photo_to_be_found_and_tests_with_one_of_two():
    assert shares(stratified_cuts, 1) == (1, 0, 0)
    assert shares(stratified_cuts, 2) == (1, 0, 1)


def shares(cuts, photos):
    counts = Counter(photo.split for photo in divide(collection({"a": photos}), cuts))
    return counts["train"], counts["dev"], counts["test"]


@pytest.fixture
def lists(tmp_path):
    """Write train.txt, dev.txt and test.txt."""

    def write(train="", dev="", test=""):
        paths = {split: tmp_path / f"{split}.txt" for split in ("train", "dev", "test")}
        for split, text in {"train": train, "dev": dev, "test": test}.items():
            paths[split].write_text(text)
        return paths

    return write


def test_lists_say_which_photo_is_for_what_and_the_photos_they_do_not_name_are_reported(lists):
    paths = lists("a b_c_2001/000.jpg\n\na b_c_2001/001.jpg\r\n", "", "VMMRdb/d/000.jpg\n")
    photos, remarks = divide_by_lists(collection({"a b_c_2001": 3, "d": 1}, "VMMRdb/"), paths)
    assert photos == [
        Photo("VMMRdb/a b_c_2001/000.jpg", parse("a b_c_2001"), "train"),
        Photo("VMMRdb/a b_c_2001/001.jpg", parse("a b_c_2001"), "train"),
        Photo("VMMRdb/d/000.jpg", parse("d"), "test"),
    ]
    assert remarks == [Remark("VMMRdb/a b_c_2001/002.jpg", "in none of the lists")]


@settings(deadline=None)
@given(sizes)
def test_the_lists_the_blog_wrote_give_the_blogs_split(tmp_path_factory, sizes):
    there = collection(sizes)
    photos = divide(there, eighty_ten_ten_cuts)
    directory = tmp_path_factory.mktemp("lists")
    paths = {split: directory / f"{split}.txt" for split in ("train", "dev", "test")}
    for split, path in paths.items():
        path.write_text("".join(f"{photo.path}\n" for photo in photos if photo.split == split))
    assert divide_by_lists(there, paths) == (photos, [])


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        ("d/000.jpg\nd/009.jpg\n", r"dev.txt: line 2: 'd/009.jpg' is not among the photos"),
        ("d/000.jpg\nd/000.jpg\n", r"dev.txt: line 2: 'd/000.jpg' was in dev already"),
        ("a/000.jpg\n", r"dev.txt: line 1: 'a/000.jpg' was in train already"),
    ],
)
def test_a_list_that_does_not_fit_the_photos_is_refused_with_its_line(lists, dev, message):
    with pytest.raises(CommandError, match=message):
        divide_by_lists(collection({"a": 1, "d": 1}), lists("a/000.jpg\n", dev))


@settings(deadline=None)
@given(
    st.dictionaries(st.text(st.sampled_from("abc_ 019"), min_size=1, max_size=8), st.integers(1, 9), min_size=4),
    st.data(),
)
def test_the_last_labels_are_held_out_whole_and_no_other_photo_moves(sizes, data):
    count = data.draw(st.integers(2, len(sizes) - 2))
    photos = divide(collection(sizes), stratified_cuts)
    held = hold_out(photos, count)
    last = sorted(sizes)[-count:]
    splits = {photo.label.label: photo.split for photo in held}
    assert [splits[name] for name in last] == [
        "unseen-dev" if place in range(0, count, 5) else "unseen-test" for place in range(count)
    ]
    for before, after in zip(photos, held, strict=True):
        assert (after.path, after.label) == (before.path, before.label)
        assert after.split == (splits[after.label.label] if after.label.label in last else before.split)


@pytest.mark.parametrize("count", [-1, 0, 1, 4, 9])
def test_no_split_is_left_without_labels_by_holding_out(count):
    photos = divide(collection(dict.fromkeys("abcde", 3)), eighty_ten_ten_cuts)
    with pytest.raises(CommandError, match=f"--unseen must be 2 or more, and leave 2 of the 5 labels, got {count}"):
        hold_out(photos, count)
