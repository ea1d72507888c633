"""The commands that change a gallery, as processes."""

import hashlib
import json
import re

import numpy as np
import pytest
from vmmr._cli import labelled

PILOT = "honda_pilot_2027"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def stored(services):
    """The labels of what is in the gallery, by id."""
    return lambda: {item_id: item.label for item_id, (item, _) in services.search.items.items()}


@pytest.fixture
def folders(tmp_path):
    """A folder a label: two photos of a pilot, one of an ls."""
    for name, content in ((f"{PILOT}/1.jpg", b"1"), (f"{PILOT}/2.PNG", b"2"), ("lexus_ls_2027/3.jpg", b"3")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    (tmp_path / "photos" / PILOT / "notes.txt").write_text("no photo")
    (tmp_path / "photos" / PILOT / ".hidden.jpg").write_bytes(b"4")
    return tmp_path / "photos"


def batch_of(done) -> str:
    return re.search(r"^vmmr: batch (\S+); `vmmr remove --batch-id \1` takes it out again$", done.stderr, re.MULTILINE)[
        1
    ]


def test_add_puts_photos_of_one_label_into_the_gallery_and_says_how_to_take_them_out(run, services, stored):
    done = run("add", "1.jpg", "-", "--label", PILOT, stdin="2")
    assert (done.returncode, done.stdout.splitlines()) == (0, ["LABEL             ADDED", "honda_pilot_2027  2"])
    assert stored() == {sha(b"1"): PILOT, sha(b"2"): PILOT}
    batch_id = batch_of(done)
    items = [item for item, _ in services.search.items.values()]
    assert [(item.uri, item.batch_id) for item in items] == [("1.jpg", batch_id), ("", batch_id)]
    assert run("remove", "--batch-id", batch_id).stdout == "2 photos removed\n"
    assert stored() == {}


def test_photos_of_a_folder_have_its_name_for_a_label(run, folders, stored):
    done = run("add", "photos")
    assert done.stdout.splitlines()[1:] == ["honda_pilot_2027  2", "lexus_ls_2027     1"]
    assert stored() == {sha(b"1"): PILOT, sha(b"2"): PILOT, sha(b"3"): "lexus_ls_2027"}


def test_a_folder_is_looked_at_once_however_many_photos_it_has(folders, monkeypatch):
    looked, look = [], labelled.folder_label
    monkeypatch.setattr(labelled, "folder_label", lambda photo: looked.append(photo.parent) or look(photo))
    assert len(labelled.labelled([str(folders)], None)) == 3
    assert sorted(looked) == sorted({photo.parent for photo in folders.rglob("*.jpg")})


def test_and_of_the_folder_itself_too_unless_another_label_is_given(run, folders, stored):
    assert run("add", f"photos/{PILOT}").returncode == 0
    assert run("add", "photos", "--label", "other_car_1999").returncode == 0
    assert set(stored().values()) == {"other_car_1999"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["1.jpg"], "1.jpg: say what it shows with --label"),
        ([f"photos/{PILOT}", "empty"], "empty: there are no photos in that folder"),
        (["photos/stray"], "photos/stray/0.jpg lies beside folders of photos"),
    ],
)
def test_a_photo_whose_label_is_unclear_is_refused_before_anything_is_added(run, folders, services, arguments, said):
    (folders.parent / "empty").mkdir()
    (folders / "stray" / "sub").mkdir(parents=True)
    for name in ("0.jpg", "sub/1.jpg"):
        (folders / "stray" / name).write_bytes(b"1")
    done = run("add", *arguments)
    assert done.returncode == 2
    assert f"vmmr: error: {said}" in done.stderr
    assert services.search.items == {}


def test_bad_photos_are_named_and_the_others_are_added(run, stored):
    done = run("add", "1.jpg", "bad.jpg", "none.jpg", "--label", PILOT)
    assert done.returncode == 1
    assert "vmmr: bad.jpg: photo: " not in done.stdout
    assert re.search(r"^vmmr: bad\.jpg: .*not an image", done.stderr, re.MULTILINE)
    assert re.search(r"^vmmr: none\.jpg: ", done.stderr, re.MULTILINE)
    assert stored() == {sha(b"1"): PILOT}


def test_what_stops_half_way_says_how_far_it_was_and_goes_on_with_its_batch(run, folders, services, stored, fail):
    services.search.script.marked[np.float32(3).tobytes()] = fail(
        "JOURNAL_FULL", "the journal is full", retry_after_s=3600
    )
    arguments = ("add", f"photos/{PILOT}", "photos/lexus_ls_2027", "--batch", "1")
    done = run(*arguments, "--batch-id", "mine")
    assert done.returncode == 3
    assert "the journal is full" in done.stderr
    assert "vmmr: 2 of 3 photos are in the gallery; to go on, give the same command --batch-id mine" in done.stderr
    services.search.script.marked.clear()
    services.embedder.script.received.clear()
    done = run(*arguments, "--batch-id", "mine")
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ["lexus_ls_2027  1"])
    assert "vmmr: 2 photos were there already, with that label" in done.stderr
    [embed] = services.embedder.script.of("Embed")
    assert [image.content for image in embed.request.images] == [b"3"]
    assert len(stored()) == 3


def test_what_is_there_already_stays_in_the_batch_that_it_came_with(run, services, stored):
    first = batch_of(run("add", "1.jpg", "--label", PILOT))
    done = run("add", "1.jpg", "2.jpg", "--label", PILOT)
    assert done.stdout.splitlines()[1:] == ["honda_pilot_2027  1"]
    assert "vmmr: 1 photo was there already, with that label" in done.stderr
    assert run("remove", "--batch-id", batch_of(done)).stdout == "1 photo removed\n"
    assert stored() == {sha(b"1"): PILOT}
    assert [item.batch_id for item, _ in services.search.items.values()] == [first]


def test_a_photo_that_gets_another_label_is_told_of(run, stored):
    run("add", "1.jpg", "--label", PILOT)
    assert f"vmmr: 1.jpg: was {PILOT}, is lexus_ls_2027 now" in run("add", "1.jpg", "--label", "lexus_ls_2027").stderr
    assert stored() == {sha(b"1"): "lexus_ls_2027"}


def test_a_photo_whose_new_label_was_not_taken_is_not_told_to_have_it(run, services, stored, fail):
    run("add", "1.jpg", "--label", PILOT)
    services.search.script.marked[np.float32(1).tobytes()] = fail("JOURNAL_FULL")
    done = run("add", "1.jpg", "--label", "lexus_ls_2027")
    assert (done.returncode, stored()) == (3, {sha(b"1"): PILOT})
    assert "vmmr: 0 of 1 photos are in the gallery" in done.stderr
    assert "lexus_ls_2027" not in done.stderr


def test_a_photo_of_the_batch_whose_label_changed_is_added_again(run, stored):
    run("add", "1.jpg", "--label", "x", "--batch-id", "mine")
    run("add", "1.jpg", "--label", "y", "--batch-id", "mine")
    assert stored() == {sha(b"1"): "y"}


def test_an_embedder_of_another_model_is_refused_with_the_model_to_use(run, services):
    services.search.model = "cd" * 32
    done = run("add", "1.jpg", "--label", PILOT)
    assert done.returncode == 3
    assert f"with an embedder that serves the model {'cd' * 32}" in done.stderr
    assert services.embedder.script.of("Embed") == []


def test_the_crop_goes_with_every_photo(run, services):
    assert run("add", "1.jpg", "--label", PILOT, "--crop", "0,0,0.5,1").returncode == 0
    assert services.embedder.script.of("Embed")[0].request.images[0].crop.right == 0.5


def test_add_as_json_has_an_object_a_photo(run):
    done = run("add", "1.jpg", "bad.jpg", "--label", PILOT, "--batch-id", "b", "--json")
    good, bad = sorted(map(json.loads, done.stdout.splitlines()), key=lambda line: "error" in line)
    assert good["item"] == {
        "item_id": sha(b"1"),
        "label": PILOT,
        "uri": "1.jpg",
        "batch_id": "b",
        "attributes": {},
        "cut": None,
    }
    assert good["journal_sequence"] == 1
    assert (bad["photo"], bad["error"]["type"]) == ("bad.jpg", "InvalidPhotoError")


def test_remove_takes_items_by_id_or_label(run, stored):
    run("add", "1.jpg", "2.jpg", "--label", "x")
    run("add", "3.jpg", "--label", "y")
    assert run("remove", "--item", sha(b"1"), "--item", "gone").stdout == "1 photo removed\n"
    assert json.loads(run("remove", "--label", "y", "--json").stdout)["deleted"] == 1
    assert stored() == {sha(b"2"): "x"}


@pytest.mark.parametrize("arguments", [[], ["--label", "x", "--batch-id", "y"]])
def test_remove_wants_to_be_told_what_in_one_way(run, arguments):
    assert run("remove", *arguments).returncode == 2


def test_list_shows_what_is_there_and_filters(run):
    run("add", "1.jpg", "--label", "x", "--batch-id", "b")
    run("add", "2.jpg", "3.jpg", "--label", "y", "--batch-id", "c")
    one, two, three = sha(b"1"), sha(b"2"), sha(b"3")
    lines = [line.split() for line in run("list").stdout.splitlines()]
    assert lines[0] == ["ITEM", "LABEL", "BATCH", "PHOTO"]
    assert sorted(lines[1:]) == sorted([[one, "x", "b", "1.jpg"], [two, "y", "c", "2.jpg"], [three, "y", "c", "3.jpg"]])
    assert [json.loads(line)["item_id"] for line in run("list", "--label", "x", "--json").stdout.splitlines()] == [one]
    assert len(run("list", "--batch-id", "c", "--json").stdout.splitlines()) == 2


def test_a_filter_that_the_service_refuses_is_told_in_the_words_of_the_command_line(run, services, fail):
    from svckit.errors import Violation

    violation = Violation("filter.makes", "UNKNOWN_FILTER_VALUE", "no photo has the make lada")
    services.search.script.then(fail("UNKNOWN_FILTER_VALUE", violations=[violation]))
    done = run("list", "--make", "lada")
    assert (done.returncode, done.stderr) == (3, "vmmr: error: --make: no photo has the make lada\n")


def test_compact_tells_the_version(run):
    assert run("compact").stdout == "version 000002: 0 photos\n"
    assert json.loads(run("compact", "--json").stdout)["index_version"] == "000002"
