"""The command, on a small collection."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from search_svc.building import spec_file
from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import Photo
from search_svc.select import command, division, sweep
from search_svc.select.command import PAGE_FILE, PICTURE_FILE, POINTS_FILE, SPEC_FILE
from search_svc.select.grid import Grid
from search_svc.select.trial_indexes import TrialIndexes
from search_svc.voting.labels import parse
from tests.search_svc.select.conftest import BLOG, FLAT, GRAPH, LISTS, small_grid, write


def points(out):
    return json.loads((out / POINTS_FILE).read_text())["points"]


def quality(out):
    """Return the figures of a point that do not depend on the clock."""
    timed = {"timing", "build_s"}
    return [{name: value for name, value in point.items() if name not in timed} for point in points(out)]


def test_every_point_is_measured_and_one_is_chosen(select, embeddings, tmp_path, capsys):
    select(embeddings, "--out", tmp_path / "out", "--shards", 2)
    found = points(tmp_path / "out")
    assert len(found) == len(small_grid(0, 0, "ip").settings)
    flat = found[0]
    assert (flat["recall_1"], flat["recall_10"]) == (1.0, 1.0)
    assert 64 < flat["bytes_per_photo"] < 66, "16 floats, and the heads of two files"
    for point in found:
        assert 0 < point["top_1"] <= point["top_5"] <= 1
        assert point["build_s"] > 0
        assert 0 < point["timing"]["p50_ms"] <= point["timing"]["p99_ms"]
        assert point["timing"]["qps_1"] > 0
        assert point["timing"]["qps_64"] > 0
    spec = json.loads((tmp_path / "out" / SPEC_FILE).read_text())
    assert list(spec) == [*spec_file.FIELDS, "reason"]
    assert spec_file.read(tmp_path / "out" / SPEC_FILE)["factory"] == spec["factory"]
    table, progress = capsys.readouterr()
    assert "| 7/7 [" in progress
    assert spec["reason"] in table
    assert "16-d, shards: 2\n" in table
    assert "the blog's Flat" in table
    assert "skipped PQ2: takes 2,560 photos to train" in table
    assert sum(line.startswith("* ") for line in table.splitlines()[4:]) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {SPEC_FILE, POINTS_FILE, PAGE_FILE, PICTURE_FILE}


def test_the_page_stands_alone_and_leads_from_each_mark_to_its_row(select, embeddings, tmp_path):
    select(embeddings, "--out", tmp_path / "out", drawn=True)
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    spec = json.loads((tmp_path / "out" / SPEC_FILE).read_text())
    assert spec["reason"].replace("'", "&#39;") in page
    rows = re.findall(r'<tr id="point-(\d+)"', page)
    assert rows == [str(number) for number in range(1, len(points(tmp_path / "out")) + 1)]
    marks = re.findall(r'<a href="#point-(\d+)"[^>]*><title>\d+: ([^<]*)</title>', page)
    assert sorted(number for number, _ in marks) == sorted(4 * rows), "four plots"
    assert len(re.findall('class="chosen"', page)) == 1
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "<script" not in page
    assert (tmp_path / "out" / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")


def test_the_choice_is_the_same_whatever_photos_of_other_splits_are(select, collection, tmp_path):
    matrix, photos = collection
    foreign = [row for row, photo in enumerate(photos) if photo.split not in ("train", "dev")]
    poisoned, relabelled = matrix.copy(), list(photos)
    poisoned[foreign] = np.nan
    for row in foreign:
        relabelled[row] = Photo(photos[row].path, parse("other_car_1999"), photos[row].split)
    write(tmp_path / "clean", matrix, photos)
    write(tmp_path / "poisoned", poisoned, relabelled)

    def exact(items, dimension, metric):
        grid = small_grid(items, dimension, metric)
        return Grid(tuple(each for each in grid.settings if each != GRAPH), grid.notes, grid.skipped)

    for name in ("clean", "poisoned"):
        select(tmp_path / name, "--out", tmp_path / f"{name}-out", grids=exact)
    assert quality(tmp_path / "poisoned-out") == quality(tmp_path / "clean-out")


class Watched(np.ndarray):
    """Records which rows are read, and fails if it is read in any other way than by row numbers."""

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        self.read.update(rows.tolist())
        return np.asarray(self).__getitem__(rows)


def test_only_rows_of_train_and_dev_are_read(select, embeddings, collection, tmp_path, monkeypatch):
    read = set()
    opened = Embeddings.open(embeddings)
    watched = np.asarray(opened.matrix).view(Watched)
    watched.read = read
    object.__setattr__(opened, "matrix", watched)
    monkeypatch.setattr(Embeddings, "open", lambda _: opened)
    select(embeddings, "--out", tmp_path / "out")
    assert read == {row for row, photo in enumerate(collection[1]) if photo.split in ("train", "dev")}


def test_dev_photos_of_unknown_labels_are_counted_and_not_asked_for(select, collection, tmp_path, capsys):
    matrix, photos = collection
    strange = [row for row, photo in enumerate(photos) if photo.split == "dev"][:7]
    for row in strange:
        photos[row] = Photo(photos[row].path, parse("other_car_1999"), "dev")
    write(tmp_path / "embeddings", matrix, photos)
    select(tmp_path / "embeddings", "--out", tmp_path / "out")
    out = capsys.readouterr().out
    assert "43 dev photos against 200 train photos of 10 labels" in out
    assert "7 more dev photos have a label that no train photo has" in out


@pytest.mark.parametrize(("normalized", "metric"), [(True, "ip"), (False, "l2")])
def test_embeddings_of_any_length_are_compared_by_distance(select, collection, tmp_path, normalized, metric):
    write(tmp_path / "embeddings", *collection, normalized=normalized)
    asked = []

    def grid(items, dimension, metric):
        asked.append((items, dimension, metric))
        return Grid((FLAT, BLOG), {}, {})

    select(tmp_path / "embeddings", "--out", tmp_path / "out", grids=grid)
    assert asked == [(200, 16, metric)]


def test_of_very_many_dev_photos_some_are_asked_for(select, embeddings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(division, "MOST_ASKED", 20)
    select(embeddings, "--out", tmp_path / "out")
    out = capsys.readouterr().out
    assert "20 dev photos against" in out
    assert "label that no train photo has" not in out


def test_photos_of_an_exclusion_list_are_left_out(select, embeddings, tmp_path, capsys):
    (tmp_path / "exclude.csv").write_text("path\n0.jpg\n3.jpg\n")
    select(embeddings, "--out", tmp_path / "out", "--exclude", tmp_path / "exclude.csv")
    assert "49 dev photos against 199 train photos" in capsys.readouterr().out


def test_what_was_measured_is_not_measured_again(select, embeddings, tmp_path, monkeypatch):
    select(embeddings, "--out", tmp_path / "out")
    whole = points(tmp_path / "out")
    lost = json.loads((tmp_path / "out" / POINTS_FILE).read_text())
    lost["points"] = [point for point in whole if point["setting"]["factory"] != "IVF4,SQ8"]
    (tmp_path / "out" / POINTS_FILE).write_text(json.dumps(lost))
    asked = []
    measure = command.Sweep._measure
    monkeypatch.setattr(
        command.Sweep,
        "_measure",
        lambda self, index, settings: asked.extend(settings) or measure(self, index, settings),
    )
    select(embeddings, "--out", tmp_path / "out")
    assert asked == LISTS
    assert len(points(tmp_path / "out")) == len(whole)


def test_points_of_other_embeddings_are_refused(select, embeddings, collection, tmp_path, capsys):
    select(embeddings, "--out", tmp_path / "out")
    before = points(tmp_path / "out")
    with pytest.raises(SystemExit, match=r"points.json: holds points .* its shards was 1, here it is 2"):
        select(embeddings, "--out", tmp_path / "out", "--shards", 2)
    (tmp_path / "exclude.csv").write_text("path\n0.jpg\n")
    with pytest.raises(SystemExit, match=r"points.json: holds points .* its photos was"):
        select(embeddings, "--out", tmp_path / "out", "--exclude", tmp_path / "exclude.csv")
    write(tmp_path / "others", -collection[0], collection[1])
    with pytest.raises(SystemExit, match=r"points.json: holds points .* its embeddings was"):
        select(tmp_path / "others", "--out", tmp_path / "out")
    assert points(tmp_path / "out") == before


def test_finalists_are_timed_again_side_by_side(select, embeddings, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("search_svc.select.sweep.FINALISTS", 1)
    timings = command.Sweep._time_again
    monkeypatch.setattr(
        command.Sweep, "_time_again", lambda self, found: asked.append(list(found)) or timings(self, found)
    )
    select(embeddings, "--out", tmp_path / "out")
    spec = spec_file.read(tmp_path / "out" / SPEC_FILE)
    assert spec["factory"] in [point.setting.factory for finalists in asked for point in finalists]
    assert all(FLAT in [point.setting for point in finalists] for finalists in asked), (
        "for exact search to compare with"
    )
    kept = [point["timing"]["p50_ms"] for point in points(tmp_path / "out")]
    assert asked[-1][0].timing.p50_ms not in kept, "the later times are kept"


def test_each_point_is_timed_as_it_is_searched(select, embeddings, tmp_path, monkeypatch):
    asked = []
    timings = sweep.timings

    def noted(pairs, *more):
        asked.append([params for _, params in pairs])
        return timings(pairs, *more)

    monkeypatch.setattr(sweep, "timings", noted)
    select(embeddings, "--out", tmp_path / "out")
    assert [setting.params for setting in LISTS] in asked


def test_only_indexes_that_may_be_chosen_lie_on_disk(select, embeddings, tmp_path, monkeypatch):
    """The flat index stays too, for it says what there is to find."""
    there = []
    keep = TrialIndexes.keep

    def kept(self, indexes):
        keep(self, indexes)
        there.append({place.parent.name for place in self.path.glob("*/built.json")})

    monkeypatch.setattr(TrialIndexes, "keep", kept)
    monkeypatch.setattr("search_svc.select.sweep.FINALISTS", 1)
    select(embeddings, "--out", tmp_path / "out")
    assert len(there) == 4, "after each index"
    assert all("Flat ip" in names and len(names) <= 2 for names in there)


def test_without_time_the_blogs_and_flat_are_measured_and_the_others_named(
    select, embeddings, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "_alarm", lambda minutes: lambda: minutes == 5)
    select(embeddings, "--out", tmp_path / "out", "--budget-minutes", 5)
    assert [point["setting"]["metric"] for point in points(tmp_path / "out")] == ["ip", "l2"]
    out = capsys.readouterr().out
    assert "no time for 5 points, of IVF4,SQ8" in out
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert "<code>IVF4,SQ8 nprobe 1</code>" in page
    select(embeddings, "--out", tmp_path / "out")
    assert len(points(tmp_path / "out")) == 7
    assert "no time" not in capsys.readouterr().out


def test_the_time_is_that_of_the_whole_command(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    out_of_time, never = command._alarm(2.0), command._alarm(None)
    now[0] = 219.0
    assert not out_of_time()
    now[0] = 221.0
    assert out_of_time()
    assert not never()


def test_an_index_that_cannot_be_built_after_all_is_named(select, embeddings, tmp_path, capsys):
    few = FLAT.__class__("IVF201,Flat", "ip", FLAT.params.__class__(nprobe=1))
    select(embeddings, "--out", tmp_path / "out", grids=lambda *_: Grid((FLAT, BLOG, few), {}, {}))
    out = capsys.readouterr().out
    assert "skipped IVF201,Flat: needs 201 embeddings or more to train on, there are 200" in out
    assert "no time" not in out


def test_a_folder_of_something_else_is_left_alone(select, embeddings):
    before = sorted(embeddings.iterdir())
    with pytest.raises(SystemExit) as ended:
        select(embeddings, "--out", embeddings)
    assert str(ended.value.code).endswith("holds something else than a selection: name a new or empty folder")
    assert sorted(embeddings.iterdir()) == before


def test_a_users_own_work_folder_is_left_alone(select, embeddings, tmp_path):
    (tmp_path / "work").mkdir()
    with pytest.raises(SystemExit):
        select(embeddings, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path != embeddings] == ["work"]


def test_limits_that_nothing_meets_end_with_which_and_by_how_much(select, embeddings, tmp_path, capsys):
    select(embeddings, "--out", tmp_path / "out")
    assert (tmp_path / "out" / SPEC_FILE).exists()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        select(embeddings, "--out", tmp_path / "out", "--max-memory", "3K", "--min-recall", "0.5")
    told = str(ended.value.code)
    assert re.fullmatch(
        r"vmmr-search: error: no index meets the limits; IVF4,SQ8 .* comes nearest, with .* KiB, .* more than"
        r" --max-memory 3 KiB",
        told,
    )
    assert "the blog's Flat" in capsys.readouterr().out, "the table is there"
    assert not (tmp_path / "out" / SPEC_FILE).exists(), "nor is the choice of an earlier run"
    assert "No index meets the limits" in (tmp_path / "out" / PAGE_FILE).read_text()


def test_what_misses_several_limits_is_told_of_each(select, embeddings, tmp_path):
    flags = ("--max-memory", "1", "--max-p99-ms", "1e-9", "--min-recall", "1")
    with pytest.raises(SystemExit) as ended:
        select(embeddings, "--out", tmp_path / "out", *flags)
    assert all(f"more than {flag}" in str(ended.value.code) for flag in ("--max-memory 1 bytes", "--max-p99-ms 1e-09"))
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    assert "Limits: memory 1 bytes, p99 1e-09 ms, recall@10 1." in page


def test_a_limit_changes_the_choice(select, embeddings, tmp_path):
    select(embeddings, "--out", tmp_path / "out", "--max-memory", "9K")
    assert spec_file.read(tmp_path / "out" / SPEC_FILE)["factory"] == "IVF4,SQ8"
    select(embeddings, "--out", tmp_path / "out", "--min-recall", "1")
    assert points(tmp_path / "out")
    chosen = spec_file.read(tmp_path / "out" / SPEC_FILE)
    [found] = [
        point
        for point in points(tmp_path / "out")
        if {**point["setting"], **point["setting"]["params"]}.items() >= chosen.items()
    ]
    assert found["recall_10"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shards", "0"], "--shards must be 1 to 200, the number of train photos, got 0"),
        (["--shards", "201"], "--shards must be 1 to 200"),
    ],
)
def test_mistakes_are_told_before_any_work(select, embeddings, tmp_path, flags, message):
    with pytest.raises(SystemExit, match=message):
        select(embeddings, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-memory", "0"),
        ("--max-memory", "lots"),
        ("--max-p99-ms", "0"),
        ("--max-p99-ms", "nan"),
        ("--min-recall", "1.1"),
        ("--min-recall", "-1"),
        ("--budget-minutes", "inf"),
    ],
    ids=" ".join,
)
def test_limits_that_make_no_sense_are_refused(select, embeddings, tmp_path, flags, capsys):
    with pytest.raises(SystemExit) as ended:
        select(embeddings, "--out", tmp_path / "out", *flags)
    assert ended.value.code == 2
    assert f"argument {flags[0]}: must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"),
    [("800", 800), ("1K", 1024), ("1.5 GiB", 1.5 * 2**30), ("500MB", 500 * 2**20), ("2g", 2**31), ("7B", 7)],
)
def test_sizes_are_read_in_the_units_people_write(text, size):
    assert command._size(text) == size


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_embeddings_without_train_or_dev_photos_are_refused(select, collection, tmp_path, missing):
    matrix, photos = collection
    kept = [row for row, photo in enumerate(photos) if photo.split != missing]
    write(tmp_path / "embeddings", matrix[kept], [photos[row] for row in kept])
    with pytest.raises(SystemExit, match=f"there is no photo of the split {missing}"):
        select(tmp_path / "embeddings", "--out", tmp_path / "out")


def test_without_the_extra_it_is_told_before_any_work(tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None; from search_svc.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "select", "none", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "vmmr-search: error: select.html needs matplotlib: pip install ./client '.[report]', in a checkout of vmmr\n"
    )
    assert not (tmp_path / "out").exists()


KEEPS_ONE = """
import sys, threading
from search_svc.__main__ import main
from search_svc.select.points import Store
add = Store.add
def kept(*args):
    add(*args)
    print("kept", flush=True)
    threading.Event().wait()
Store.add = kept
main()
"""
"""Goes no further than the first points that it keeps."""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on(select, embeddings, tmp_path, by):
    """Runs the real grid, and stops it once points are kept."""
    argv = [sys.executable, "-c", KEEPS_ONE, "select", embeddings, "--out", tmp_path / "out"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "kept\n", run.communicate()
        run.send_signal(by)
        _, told = run.communicate()
    before = {json.dumps(point["setting"]): point for point in points(tmp_path / "out")}
    assert before
    if by is signal.SIGINT:
        assert run.returncode == 130
        assert re.search(r"stopped: \d+ of \d+ points are measured, and kept in .*; the same command goes on", told)
    select(embeddings, "--out", tmp_path / "out")
    after = {json.dumps(point["setting"]): point for point in points(tmp_path / "out")}
    assert before.keys() <= after.keys()
    assert all(after[name]["build_s"] == point["build_s"] for name, point in before.items()), "they are the same ones"
    assert (tmp_path / "out" / SPEC_FILE).exists()
