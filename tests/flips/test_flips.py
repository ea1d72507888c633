"""A seeded part of `python -m tests.flips`; and that it would notice what is wrong."""

import dataclasses
import json
import random

import pytest

from search_svc.index.journal import StoredItem
from tests.flips.__main__ import main
from tests.flips.asking import WrongError, ask
from tests.flips.damage import another, content, damages
from tests.flips.scenes import Expected, build_all
from tests.flips.trial import (
    REFUSED,
    RIDDLE,
    RIGHT,
    SILENT,
    Outcome,
    Place,
    Table,
    check_how_much_is_lost,
    check_what_is_left,
    files,
    refusal,
)

PLACES = 3
"""Of each file, with each of the things that can be done with an index."""
SCENES = ("killed", "stopped", "pruned", "pruning", "upgrading", "versions", "drafted", "backup")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return {scene.name: scene for scene in build_all(tmp_path_factory.mktemp("scenes"))}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return another(tmp_path_factory.mktemp("other"))


@pytest.fixture
def table(scenes, tmp_path, request):
    return Table(scenes[getattr(request, "param", "pruned")], tmp_path)


@pytest.mark.parametrize("table", SCENES, indirect=True)
def test_untouched_all_goes_well(table):
    assert {way: table.attempt(way).kind for way in table.scene.ways} == dict.fromkeys(table.scene.ways, RIGHT)


@pytest.mark.parametrize("table", SCENES, indirect=True)
def test_one_flipped_bit_is_answered_right_or_refused_by_name(table):
    rng = random.Random(table.scene.name)
    bad = []
    for path in files(table.scene.index):
        name, size = str(path.relative_to(table.scene.index)), path.stat().st_size
        for _ in range(PLACES if size else 0):
            place = Place(table.scene.name, name, rng.randrange(size), rng.randrange(8))
            way = rng.choice(table.scene.ways)
            outcome = table.attempt(way, place)
            if outcome.kind not in (RIGHT, REFUSED):
                bad.append((way, place, outcome))
    assert not bad


@pytest.mark.parametrize("table", ["killed", "pruned", "versions", "backup"], indirect=True)
def test_more_damage_than_a_bit_is_answered_right_or_refused_by_name(table, scenes, other):
    rng = random.Random(table.scene.name)
    before = content(scenes["stopped"].index)
    bad = []
    for damage in damages(table.scene, before, other, rng):
        way = rng.choice(table.scene.ways)
        outcome = table.attempt(way, damage)
        if outcome.kind not in (RIGHT, REFUSED):
            bad.append((way, damage.kind, damage.file, outcome))
    assert not bad


class TestAsked:
    """Each thing that may be wrong is noticed: here it is the expectation that is changed."""

    def changed(self, expected, item_id, **changes):
        item = dataclasses.replace(expected.items[item_id], **changes)
        return Expected({**expected.items, item_id: item}, expected.sequence, expected.ever)

    @pytest.mark.parametrize(
        "changes",
        [
            {"label": "fiat_uno_2000"},
            {"uri": "elsewhere"},
            {"batch_id": "elsewhere"},
            {"attributes": {"n": "0"}},
            {"embedding": bytes(16)},
        ],
    )
    @pytest.mark.parametrize("late", [True, False])
    def test_an_item_that_differs_in_anything(self, table, changes, late):
        name = next(name for name in table.scene.expected.items if name.startswith("last") == late)
        with pytest.raises(WrongError, match=f"1 changed .'{name}'"):
            ask(table.index, self.changed(table.scene.expected, name, **changes))

    @pytest.mark.parametrize("lost", [True, False])
    def test_an_item_too_few_or_too_many(self, table, lost):
        items = dict(table.scene.expected.items)
        if lost:
            items["lost"] = items["photo 7"]
        else:
            del items["photo 7"]
        with pytest.raises(WrongError, match="1 lost .'lost'" if lost else "1 strange .'photo 7'"):
            ask(table.index, Expected(items, table.scene.expected.sequence, table.scene.expected.ever))

    @pytest.mark.parametrize("sequence", [57, 59])
    def test_another_last_sequence_number(self, table, sequence):
        expected = table.scene.expected
        with pytest.raises(WrongError, match=f"58; {sequence} was acknowledged"):
            ask(table.index, Expected(expected.items, sequence, expected.ever))

    def test_what_the_indexes_of_the_journal_do_not_find(self, table, monkeypatch):
        monkeypatch.setattr("search_svc.index.journal.Journal.of_label", lambda *_: [])
        with pytest.raises(WrongError, match="of the label"):
            ask(table.index, table.scene.expected)

    def test_what_a_search_does_not_find(self, table, monkeypatch):
        monkeypatch.setattr(
            "search_svc.live.live_items.LiveItems.take", lambda _, rows: (["x"] * len(rows), [""] * len(rows))
        )
        with pytest.raises(WrongError, match="the nearest to"):
            ask(table.index, table.scene.expected)


class TestRepaired:
    def test_an_item_that_is_what_it_once_was_is_as_told(self, table):
        expected = table.scene.expected
        check_what_is_left(table.index, expected, "1 lost")

    def test_an_item_that_is_what_it_never_was(self, table):
        ever = {**table.scene.expected.ever, "photo 7": [StoredItem("", "", "", {}, b"")]}
        with pytest.raises(WrongError, match="'photo 7' is what it never was"):
            check_what_is_left(table.index, dataclasses.replace(table.scene.expected, ever=ever), "1 lost")

    def test_more_than_was_told(self, table):
        items = {**table.scene.expected.items, "gone": StoredItem("", "", "", {}, b"")}
        check_how_much_is_lost(table.index, dataclasses.replace(table.scene.expected, items=items), "1 lost")
        with pytest.raises(WrongError, match=r"1 items differ .'gone'., and repair told of 0"):
            check_how_much_is_lost(table.index, dataclasses.replace(table.scene.expected, items=items), "more may be")

    def test_more_than_a_bit_can_cost(self, table):
        with pytest.raises(WrongError, match="one bit cost 2 entries"):
            check_how_much_is_lost(table.index, table.scene.expected, "2 lost")

    def test_a_number_that_would_be_given_twice(self, table):
        with pytest.raises(WrongError, match="58 is the last number; 59 was acknowledged"):
            check_what_is_left(table.index, dataclasses.replace(table.scene.expected, sequence=59), "1 lost")

    def test_none_lost_by_a_command_that_failed(self, table):
        with pytest.raises(WrongError, match="repair ends with code 1"):
            check_what_is_left(table.index, table.scene.expected, "none lost")


def test_a_refusal_names_the_file_or_its_journal_and_a_way_out():
    told = "/index/journal.db: is damaged: `vmmr-search repair /index` saves what can be read of it"
    assert refusal(told, "journal.db-wal") == refusal(told, "journal.mark") == Outcome(REFUSED, told)
    assert refusal(told, "CURRENT").kind == RIDDLE
    assert refusal("/index/journal.db: is damaged", "journal.db").kind == RIDDLE


def test_an_error_of_no_kind_that_is_told_to_users_is_a_riddle(table, monkeypatch):
    monkeypatch.setattr("tests.flips.trial.ask", lambda *_, **__: {}["journal.db: a backup"])
    assert table.attempt("serve").kind == RIDDLE


@pytest.mark.parametrize("silent", [True, False])
def test_the_command_fails_if_anything_was_silent(monkeypatch, capsys, silent):
    outcome = Outcome(SILENT if silent else RIGHT)
    done = [("serve", [Place("killed", "journal.db", 1, 1)], [outcome])]
    monkeypatch.setattr("tests.flips.__main__.trials", lambda *_: done)
    monkeypatch.setattr("sys.argv", ["flips"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == int(silent)
    assert capsys.readouterr().out.splitlines()[2].split() == ["1", str(int(not silent)), "0", "0", str(int(silent))]


@pytest.mark.parametrize("table", ["stopped"], indirect=True)
@pytest.mark.parametrize("offset", [18, 19, 47, 68, 69, 70, 71])
def test_a_header_that_says_something_else_is_refused_by_name_and_mended_by_a_repair(table, offset):
    """How to write, and to read; the format of the schema; whose file it is: SQLite takes none of it for damage."""
    places = [Place("stopped", "journal.db", offset, bit) for bit in (0, 3, 7)]
    assert {table.attempt("serve", place).kind for place in places} == {REFUSED}
    assert {table.attempt("repair", place).kind for place in places} == {RIGHT}


def test_a_run_that_was_stopped_goes_on_and_one_that_had_ended_or_has_other_settings_begins_anew(monkeypatch, tmp_path):
    out, tried = tmp_path / "flips.json", []

    def trials(_, __, done):
        for file in ("journal.db", "CURRENT"):
            if ("killed", file) not in done:
                tried.append(file)
                yield "serve", [Place("killed", file, 1, 1)], [Outcome(REFUSED)]
                if tried == ["journal.db", "CURRENT"]:
                    raise KeyboardInterrupt

    def run(*settings):
        tried.clear()
        monkeypatch.setattr("sys.argv", ["flips", "--out", str(out), *settings])
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            main()
        return tried[:], [row["file"] for row in json.loads(out.read_text())["rows"]]

    monkeypatch.setattr("tests.flips.__main__.trials", trials)
    assert run() == (["journal.db", "CURRENT"], ["journal.db"])
    assert run() == (["CURRENT"], ["journal.db", "CURRENT"])
    assert json.loads(out.read_text())["all"]["refused"] == 2
    assert run() == (["journal.db", "CURRENT"], ["journal.db"])
    assert run("--seed", "1") == (["journal.db", "CURRENT"], ["journal.db"])


def test_the_scenes_are_what_they_are_said_to_be(scenes):
    def there(scene: str) -> set[str]:
        return {str(path.relative_to(scenes[scene].index)) for path in files(scenes[scene].index)}

    assert {name: scene.expected.sequence for name, scene in scenes.items()} == {
        "killed": 46, "stopped": 46, "pruned": 58, "pruning": 47, "upgrading": 46, "versions": 62, "drafted": 46, "backup": 58,
    }  # fmt: skip
    assert (scenes["killed"].index / "journal.db-wal").stat().st_size > 40_000
    assert (scenes["pruning"].index / "journal.db-wal").stat().st_size > 40_000
    assert (scenes["upgrading"].index / "journal.db-wal").stat().st_size > 10_000
    assert (scenes["upgrading"].index / "journal.db").read_bytes()[60:64] == b"\0\0\0\1"
    assert not (scenes["stopped"].index / "journal.db-wal").exists()
    assert {f"versions/00000{n}/{file}" for n in (1, 2, 3) for file in VERSION} <= there("versions")
    assert {"versions/.draft/version/shard-001.faiss", "versions/.draft/work/shard-001.json"} <= there("drafted")
    assert {name.split("/")[0] for name in there("backup")} == {"backups", "files"}
    assert len(there("backup")) == len({"the record", "the journal", *VERSION})


VERSION = (
    "calibration.json",
    "embeddings.npy",
    "items.arrow",
    "manifest.json",
    "shard-000.faiss",
    "shard-001.faiss",
    "sums.npy",
)
