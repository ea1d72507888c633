"""The commands that change a gallery, as processes."""

import hashlib
import json
import os
import re
import signal
import subprocess
import threading

import numpy as np
import pytest

from tests.client.conftest import COMMAND, neighbour

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


def test_near_copies_of_what_is_there_are_warned_of_and_loudly_where_the_label_is_another(run, services, stored):
    services.search.near = {1: [neighbour(27, 0.987)], 2: [neighbour(9, 0.951)], 3: [neighbour(27, 0.949)]}
    done = run("add", "1.jpg", "2.jpg", "3.jpg", "--label", PILOT)
    assert (done.returncode, len(stored())) == (0, 3)
    loud = "vmmr: WARNING: 2.jpg: nearly the same photo is in the gallery WITH ANOTHER LABEL: item-9 ('honda_pilot_2009', similarity 0.951)"
    assert [line for line in done.stderr.splitlines() if "similarity" in line] == [
        "vmmr: warning: 1.jpg: nearly the same photo is in the gallery: item-27 ('honda_pilot_2027', similarity 0.987)",
        f"{loud}; this one was added as 'honda_pilot_2027'",
    ]
    assert "vmmr: 2 photos were nearly the same as one that was there, and added" in done.stderr
    assert "vmmr: 1 photo was nearly the same as one that was there with ANOTHER LABEL" in done.stderr


def test_programs_are_told_the_nearest_of_each_photo(run, services):
    services.search.near = {1: [neighbour(27, 0.987)], 3: []}
    done = run("add", "1.jpg", "2.jpg", "3.jpg", "--label", PILOT, "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["near_copy"] for each in told] == [True, False, False]
    assert [each["nearest"] and each["nearest"]["item_id"] for each in told] == ["item-27", "item-2", None]
    assert told[0]["nearest"]["label"]["label"] == PILOT
    assert told[0]["similarity"] == pytest.approx(0.987)
    assert "similarity 0.987" in done.stderr


def test_photos_that_could_not_be_compared_are_added_and_counted(run, services, stored, fail):
    services.search.script.marked[np.float32(1).tobytes()] = lambda request, context: (
        fail("SHARD_TIMEOUT", "not answered in time")(request, context) if "Search" in type(request).__name__ else None
    )
    done = run("add", "1.jpg", "--label", PILOT)
    assert (done.returncode, len(stored())) == (0, 1)
    assert "vmmr: 1 photo was not compared with those that were there" in done.stderr
    assert re.search(r"^vmmr: the gallery could not be searched: .*not answered in time", done.stderr, re.MULTILINE)


def test_photos_of_a_folder_have_its_name_for_a_label(run, folders, stored):
    done = run("add", "photos")
    assert done.stdout.splitlines()[1:] == ["honda_pilot_2027  2", "lexus_ls_2027     1"]
    assert stored() == {sha(b"1"): PILOT, sha(b"2"): PILOT, sha(b"3"): "lexus_ls_2027"}


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


def test_an_interrupt_says_how_to_go_on(run, environment, services, tmp_path):
    waits, leave = threading.Event(), threading.Event()
    services.embedder.script.marked[b"2"] = lambda *_: waits.set() or (leave.wait(60) and None)
    arguments = [COMMAND, "add", "1.jpg", "2.jpg", "--label", PILOT, "--batch", "1"]
    with subprocess.Popen(arguments, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert waits.wait(60)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    leave.set()
    assert process.returncode == 130
    assert re.search(
        r"^vmmr: [01] of 2 photos are in the gallery; to go on, give the same command --batch-id ", told, re.MULTILINE
    )
    assert "Traceback" not in told


@pytest.mark.parametrize("reason", ["ROLE_REQUIRED", "LABEL_NOT_ALLOWED"])
def test_who_may_not_add_is_not_advised_to_go_on(run, services, fail, reason):
    services.search.script.marked[np.float32(2).tobytes()] = fail(reason, "not yours")
    done = run("add", "1.jpg", "2.jpg", "--label", PILOT, "--batch", "1")
    assert done.returncode == 3
    assert "vmmr: 1 of 2 photos are in the gallery\nvmmr: error: " in done.stderr
    assert "to go on" not in done.stderr


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


def test_programs_are_told_of_every_photo_those_that_are_there_already_too(run, services):
    run("add", "1.jpg", "--label", PILOT)
    (there,) = [item for item, _ in services.search.items.values()]
    done = run("add", "1.jpg", "2.jpg", "-", "--label", PILOT, "--json", stdin="2")
    first, second, third = sorted(
        map(json.loads, done.stdout.splitlines()), key=lambda line: line["photo"], reverse=True
    )
    told = {line["photo"]: line for line in (first, second, third)}
    assert told["1.jpg"]["there_already"] is True
    assert told["1.jpg"]["item"]["item_id"] == there.item_id
    assert told["2.jpg"]["item"]["item_id"] == told["-"]["item_id"] == sha(b"2")
    assert told["-"]["same_as"] == "2.jpg"


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


# --- what people have in their folders ---


def test_all_that_a_folder_holds_is_added_or_counted_with_its_reason(run, folders, stored):
    for name in ("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", f"{PILOT}/4.jfif", f"{PILOT}/5.HEIC", f"{PILOT}/6.jpg/7.jpg"):
        (folders / name).parent.mkdir(parents=True, exist_ok=True)
        (folders / name).write_bytes(name[-6:-5].encode())
    done = run("add", "photos")
    assert (done.returncode, len(stored())) == (1, 5)
    assert done.stdout.splitlines()[1:] == ["honda_pilot_2027  4", "lexus_ls_2027     1"]
    told = done.stderr.splitlines()
    assert (
        "vmmr: 4 files left out: hidden (1); in a folder that has the name of a photo (1); made by the system, not by a camera "
        "(1); not a photo file (1)"
    ) in told
    assert f"vmmr: photos/{PILOT}/6.jpg: in a folder that has the name of a photo" in told
    assert sum(path.is_file() for path in folders.rglob("*")) == 5 + 4


@pytest.mark.parametrize("path", ["Audi/A4/2019/1.jpg", "Audi/A4/2019/Blue/1.jpg"])
def test_folders_of_make_model_and_year_are_labels(run, folders, stored, path):
    (folders.parent / "cars" / path).parent.mkdir(parents=True)
    (folders.parent / "cars" / path).write_bytes(b"1")
    assert run("add", "cars").returncode == 0
    assert stored() == {sha(b"1"): "Audi_A4_2019"}
    done = run("add", "cars/Audi/A4")
    assert (done.returncode, len(stored())) == (2, 1)
    assert (
        "in a folder named after a year, or below one, which takes a make's and a model's above it to be a label"
        in done.stderr
    )


def test_names_that_are_not_utf_8_stop_nothing_and_are_told(run, folders, stored):
    for name in (b"caf\xe9.jpg", PILOT.encode() + b"/caf\xe9.jpg"):
        (folders / os.fsdecode(name)).write_bytes(b"4")
    bad = os.fsdecode(bytes(folders) + b"/caf\xe9.jpg")
    done = run("add", str(folders / PILOT), bad, "--label", PILOT)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert stored() == {sha(b"1"): PILOT, sha(b"2"): PILOT}
    assert "photos/caf\\udce9.jpg: its name is not UTF-8, so the gallery can't keep it: rename it" in done.stderr
    assert f"photos/{PILOT}/caf\\udce9.jpg: its name is not UTF-8" in done.stderr
    for arguments in (["add", "1.jpg"], ["remove"], ["list"]):
        done = run(*arguments, "--label", os.fsdecode(b"\xe9"))
        assert (done.returncode, "must be UTF-8" in done.stderr) == (2, True)
    assert json.loads(run("identify", "--json", bad).stdout)["photo"].endswith("caf\udce9.jpg")


@pytest.mark.parametrize("label", ["___", "bad label/..", "a\u202eb", " ", "\u00a0"])
def test_what_can_be_no_label_is_refused(run, stored, label):
    done = run("add", "1.jpg", "--label", label)
    assert (done.returncode, stored()) == (2, {})
    assert "--label" in done.stderr


# --- what add says is what the gallery holds ---


def test_the_same_command_again_changes_nothing(run, folders, services, stored):
    (folders / "copy").mkdir()
    (folders / "copy" / "1.jpg").write_bytes(b"1")  # the same photo under another label
    (folders / PILOT / "again.jpg").write_bytes(b"2")  # and under the same
    first = run("add", "photos")
    assert first.returncode == 1
    assert first.stdout.splitlines()[1:] == ["copy              1", "honda_pilot_2027  1", "lexus_ls_2027     1"]
    assert "photos/honda_pilot_2027/1.jpg: the same file as photos/copy/1.jpg, which is 'copy'" in first.stderr
    assert "vmmr: 1 photo was the same as another one of them" in first.stderr
    before = dict(services.search.items), services.search.sequence
    held = stored()
    assert sorted(held.values()) == ["copy", PILOT, "lexus_ls_2027"]
    second = run("add", "photos")
    assert (second.returncode, second.stdout) == (1, "")
    assert (dict(services.search.items), services.search.sequence) == before
    assert "vmmr: 3 photos were there already, with that label" in second.stderr
    assert "takes it out again" not in second.stderr, "there is nothing in the new batch"


def test_nor_does_it_for_standard_input_nor_with_a_batch_of_its_own(run, services):
    run("add", "-", "1.jpg", "--label", PILOT, stdin="2")
    before = dict(services.search.items), services.search.sequence
    assert run("add", "-", "1.jpg", "--label", PILOT, stdin="2").returncode == 0
    assert run("add", "1.jpg", "--label", PILOT, "--batch-id", "mine").returncode == 0
    assert (dict(services.search.items), services.search.sequence) == before


def test_another_part_of_a_photo_that_is_there_already_is_told_to_be_no_change(run, services):
    run("add", "1.jpg", "2.jpg", "--label", PILOT)
    before = dict(services.search.items)
    done = run("add", "1.jpg", "2.jpg", "--label", PILOT, "--whole")
    assert dict(services.search.items) == before
    told = "--crop and --whole change nothing of photos that are there already, as 2 of them are: remove them, and add them again"
    assert f"vmmr: {told}" in done.stderr.splitlines()


# --- labels that are nearly there ---


@pytest.mark.parametrize(
    "label",
    [
        "Honda_Pilot_2001",
        "Honda Pilot 2001",
        "honda_pilot_2001 ",
        "honda-pilot 2001",
        "h\u00f3nda_pilot_2001",
        "honda_pilot_2001\u200f",
        "hon\u200bda_pilot_2001",
    ],
)
def test_another_way_to_write_a_label_of_the_gallery_is_warned_of(run, label):
    done = run("add", "1.jpg", "--label", label)
    assert done.returncode == 0
    told = f"'{label}' is a new label, but the gallery has 'honda_pilot_2001', which names the same car: votes divide"
    assert f"vmmr: warning: {told}" in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("honda_pilot_2101", "no year from 1908 to 2049 can be read from the name; the gallery has 'honda_pilot_2001'"),
        ("honda_pilot_2009_2011", "it names the years 2009 to 2011, and a label has one"),
        ("pilot", "no make, model and year can be read from the name"),
    ],
)
def test_what_a_new_label_does_not_say_is_warned_of(run, label, told):
    assert f"vmmr: warning: '{label}' is a new label: {told}" in run("add", "1.jpg", "--label", label).stderr


def test_labels_that_are_there_or_are_read_in_full_are_not_warned_of(run):
    for label in ("honda_pilot_2001", "lexus_ls_2027"):
        assert "warning" not in run("add", "1.jpg", "--label", label).stderr


def test_labels_of_one_command_that_name_one_car_are_warned_of(run, folders):
    (folders / "Lexus_LS_2027").mkdir()
    (folders / "Lexus_LS_2027" / "4.jpg").write_bytes(b"4")
    assert "'lexus_ls_2027' is a new label, but the gallery has 'Lexus_LS_2027'" in run("add", "photos").stderr


def test_a_label_in_the_other_form_of_unicode_is_the_same(run, stored):
    run("add", "1.jpg", "--label", "citroe\u0308n_c4_2011")
    assert stored() == {sha(b"1"): "citro\u00ebn_c4_2011"}
    assert "vmmr: 1 photo was there already" in run("add", "1.jpg", "--label", "citro\u00ebn_c4_2011").stderr


def test_make_model_and_year_are_a_label(run, stored):
    assert run("add", "1.jpg", "--make", "Maruti_Suzuki", "--model", "Swift", "--year", "2015").returncode == 0
    done = run("add", "2.jpg", "--make", "Honda", "--model", "pilot", "--year", "2001")
    assert stored() == {sha(b"1"): "Maruti Suzuki_Swift_2015", sha(b"2"): "honda_pilot_2001"}
    assert "vmmr: the gallery calls this car 'honda_pilot_2001', and so are these photos" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--make", "honda", "--model", "pilot"], "name a car together"),
        (["--make", "honda", "--model", "pilot", "--year", "2102"], "--year must be 1908 to 2049, got 2102"),
        (["--make", "honda", "--model", "pilot", "--year", "2012", "--label", "x"], "in place of --label"),
        (["--make", "honda", "--model", "_", "--year", "2012"], "no label can be made of"),
    ],
)
def test_a_car_that_is_named_in_part_or_twice_is_refused(run, stored, arguments, said):
    done = run("add", "1.jpg", *arguments)
    assert (done.returncode, stored()) == (2, {})
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--label", "Honda_Pilot_2001"],
            "no photo of the gallery has the label 'Honda_Pilot_2001': did you mean 'honda_pilot_2001'?",
        ),
        (["--batch-id", "b"], "no photo of the gallery was added in a batch 'b'"),
        (["--item", "a"], "the gallery has no item with that id"),
        (["--item", "a", "--item", "b"], "the gallery has no item with one of those ids"),
    ],
)
def test_that_nothing_was_removed_is_said_with_a_code_of_its_own(run, arguments, said):
    done = run("remove", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "0 photos removed\n", f"vmmr: error: {said}\n")
    assert json.loads(run("remove", *arguments, "--json").stdout)["deleted"] == 0
