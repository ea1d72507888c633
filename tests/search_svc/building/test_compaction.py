import contextlib
import dataclasses
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.building import build, compaction
from search_svc.building.compaction import compact, compact_all
from search_svc.building.spec import IndexSpec
from search_svc.dataset.cuts import CutCounts, CutKind
from search_svc.engine.local import LocalEngine
from search_svc.index.index_dir import BuildRunningError, current, only_builder, version_names
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.journal_loss import accept_gone
from search_svc.index.retention import retire, roll_back, versions
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import VersionLease
from search_svc.index.writes import Add, Delete
from search_svc.live.following import Replay
from search_svc.live.view import Opened
from search_svc.voting.labels import parse
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from tests.search_svc.builds import build_version
from tests.search_svc.journals import CAR, MODEL, NO_CAR, D, DictBase, applied, replayed, stored, written

ROOT = Path(__file__).parents[3]
SPECS = [IndexSpec(shards=2), IndexSpec("IVF4,Flat", shards=2, nprobe=2), IndexSpec(shards=2, shard_by="label")]


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    """An index of 60 items, of each kind; to be copied."""
    vectors = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    made = [build_index(vectors, directory=tmp_path_factory.mktemp("index"), spec=spec) for spec in SPECS]
    return [version.path.parents[1] for version in made]


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built[0], tmp_path / "index")


def base_of(index_dir, version=None):
    """The items of a version."""
    made = IndexVersion.open(index_dir, version)
    return DictBase(dict(rows(made)), made.manifest.journal_sequence)


def rows(version):
    """Item id and item of every row, in order."""
    items = version.items
    for row in range(len(items)):
        label = items.labels[items.label_of[row]].label
        embedding = version.embeddings[row].tobytes()
        yield (
            items.item_id(row),
            StoredItem(label, items.uri(row), items.batch_id(row), items.attributes(row), embedding, items.cut(row)),
        )


def write(index_dir, *writes):
    outcomes = written(index_dir, *writes, base=base_of(index_dir))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    return outcomes


ids = st.sampled_from([f"photo {row}.jpg" for row in range(4)] + ["new", "newer"])
items = st.builds(
    stored,
    st.sampled_from(["make_model 0_2000", "lada_niva_1999"]),
    st.integers(0, 3),
    batch_id=st.sampled_from(["", "may"]),
    attributes=st.sampled_from([{}, {"dealer": "7"}]),
    cut=st.sampled_from([None, CAR, NO_CAR]),
)
some_writes = st.lists(
    st.one_of(
        st.dictionaries(ids, items, min_size=1).map(Add),
        st.lists(ids, min_size=1).map(lambda some: Delete(tuple(some))),
        st.just(Delete(label="make_model 0_2000")),
        st.just(Delete(batch_id="may")),
    ),
    min_size=1,
    max_size=5,
)


def served_sums(index_dir):
    """The sum of each label that has photos, by label, in the view of the index as it is now."""
    version = IndexVersion.open(index_dir)
    with Journal.open(index_dir) as journal:
        replay = Replay(Opened(version, None), journal)
        replay.finish()
    view = replay.view()
    return sums(view.items.labels, view.means, view.items.counts)


def sums(labels, means, counts):
    return {label.label: means.sum_of(n).tobytes() for n, label in enumerate(labels) if counts[n]}


@settings(max_examples=25)
@given(kind=st.integers(0, len(SPECS) - 1), rounds=st.lists(some_writes, min_size=1, max_size=2))
def test_versions_in_a_row_hold_what_a_dict_would_and_the_journal_what_each_lacks(
    built, tmp_path_factory, kind, rounds
):
    index_dir = shutil.copytree(built[kind], tmp_path_factory.mktemp("copy") / "index")
    gallery = base_of(index_dir).items
    for writes in rounds:
        for each in writes:
            gallery = applied(gallery, each)
        write(index_dir, *writes)
        served = served_sums(index_dir)
        compact(index_dir)
        made = IndexVersion.open(index_dir)
        assert dict(rows(made)) == gallery
        assert sums(made.items.labels, made.means, made.items.counts) == served
        kinds = Counter(item.cut.kind if item.cut else CutKind.UNKNOWN for item in gallery.values())
        assert made.manifest.cuts == CutCounts(*(kinds[kind] for kind in CutKind))
        with Journal.open(index_dir) as journal:
            assert made.manifest.journal_sequence == journal.sequence()
        for name in version_names(index_dir):
            assert replayed(index_dir, base_of(index_dir, name)) == gallery
    shutil.rmtree(index_dir)


def test_rows_that_are_kept_come_first_in_order_and_then_what_was_written_last_comes_last(index):
    write(index, Add({"a": stored(), "b": stored()}), Add({"photo 7.jpg": stored(), "a": stored(number=1)}))
    names = [item_id for item_id, _ in rows(compact(index))]
    assert names == [*(f"photo {row}.jpg" for row in range(60) if row != 7), "b", "photo 7.jpg", "a"]


def test_the_next_version_is_of_the_same_kind_and_searches_as_the_last(built, tmp_path):
    index = shutil.copytree(built[1], tmp_path / "index")
    before = IndexVersion.open(index).manifest
    far = np.full((1, D), 10, np.float16)
    write(index, Add({"new": StoredItem("lada_niva_1999", "", "", {}, far.tobytes())}))
    made = compact(index)
    same = (
        "model",
        "model_name",
        "dimension",
        "factory",
        "metric",
        "search",
        "k",
        "temperature",
        "seed",
        "train_sample",
    )
    assert [getattr(made.manifest, name) for name in same] == [getattr(before, name) for name in same]
    assert (made.manifest.version, len(made.manifest.shards)) == ("000002", 2)
    with LocalEngine.open(made) as engine:
        found = engine.search(far.astype(np.float32), 1)
    assert made.items.item_id(found.hits.ids[0, 0]) == "new"


@pytest.mark.parametrize("case", [(1, None, False), (1, True, True), (6, None, True), (6, False, False)])
def test_the_training_is_taken_over_if_few_items_are_new_or_if_told_to(built, tmp_path, capsys, case):
    new, retrain, trained = case
    index = shutil.copytree(built[1], tmp_path / "index")
    write(index, Add({f"new {number}": stored() for number in range(new)}))
    compact(index, retrain=retrain)
    assert ("training IVF4,Flat" in capsys.readouterr().err) == trained


def test_a_calibration_stays_and_new_labels_get_their_typical_scores(calibrated, tmp_path):
    index = shutil.copytree(calibrated.version.path.parents[1], tmp_path / "index")
    rng = np.random.default_rng(0)
    near = rng.standard_normal(32) + 0.1 * rng.standard_normal((9, 32))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype("<f2")
    add = {str(row): StoredItem("lada_niva_1999", "", "", {}, each.tobytes()) for row, each in enumerate(near)}
    base = DictBase({}, dimension=32)
    written(index, Add(add), base=base)
    made, fitted = compact(index), calibrated.version.calibration
    assert made.calibration.typical["lada_niva_1999"] > np.mean(list(fitted.typical.values()))
    assert {name: value for name, value in made.calibration.typical.items() if name in fitted.typical} == fitted.typical
    assert made.calibration.unknown_threshold == fitted.unknown_threshold


def test_a_typical_score_of_0_stays_as_all_others_do(calibrated):
    """Labels of one photo each have that with each other, and photos may be as far from each other as from anything."""
    version = calibrated.version
    fitted = dataclasses.replace(version.calibration, typical=dict.fromkeys(version.calibration.typical, 0.0))
    base = dataclasses.replace(version, calibration=fitted)
    assert compaction._extend_calibration(base, version.items, version.embeddings) == fitted


def test_nothing_is_built_if_nothing_was_written(index):
    assert compact(index) is None
    assert version_names(index) == ["000001"]


def test_of_no_items_none_is_built(index):
    write(index, Delete(tuple(f"photo {row}.jpg" for row in range(60))))
    with pytest.raises(CommandError, match="every item was deleted"):
        compact(index)
    assert current(index) == "000001"


def test_only_one_builds_at_a_time(index):
    write(index, Add({"new": stored()}))
    with only_builder(index), pytest.raises(BuildRunningError):
        compact(index)


def test_what_does_not_answer_as_it_should_is_not_published(index, monkeypatch):
    write(index, Add({"new": stored()}))
    monkeypatch.setattr(compaction, "_best_scores", lambda version, queries: np.zeros(len(queries), np.float32))
    with pytest.raises(CommandError, match="does not find the nearest items"):
        compact(index)
    assert (current(index), version_names(index)) == ("000001", ["000001"])


def test_a_damaged_journal_is_named(index):
    write(index, Add({"new": stored(number=5)}))
    file = index / "journal.db"
    content = bytearray(file.read_bytes())
    content[content.index(stored(number=5).embedding)] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"journal\.db: is damaged \(entry 1 is not what was written\)"):
        compact(index)


def test_a_damaged_version_is_named_and_not_taken_over(index):
    write(index, Add({"new": stored()}))
    file = index / "versions" / "000001" / "embeddings.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"embeddings\.npy: is damaged"):
        compact(index)


STOPS = {
    "while embeddings are copied": "search_svc.building.build:copy_embeddings",
    "after the shards": "search_svc.building.build:_write_shards",
    "after the manifest": "search_svc.building.build:write_version_manifest",
    "after the move": "search_svc.index.index_dir:publish",
    "after CURRENT": "search_svc.index.index_dir:make_current",
}
STOPPING = """
import importlib, os, sys
module, name = sys.argv[2].split(":")
module = importlib.import_module(module)
original = getattr(module, name)
def stopping(*args, **kwargs):
    original(*args, **kwargs)
    os.kill(os.getpid(), 9)
setattr(module, name, stopping)
from pathlib import Path
from search_svc.building.compaction import compact, compact_all
compact(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_kill_anywhere_leaves_the_gallery_whole_and_the_next_goes_on(index, stop):
    write(index, Add({"new": stored()}), Delete(("photo 3.jpg",)))
    gallery = replayed(index, base_of(index))
    killed = subprocess.run([sys.executable, "-c", STOPPING, index, stop], check=False, capture_output=True, cwd=ROOT)
    assert killed.returncode == -9
    assert replayed(index, base_of(index)) == gallery
    write(index, Add({"late": stored()}))
    compact(index)
    compact(index)
    assert dict(rows(IndexVersion.open(index))) == {**gallery, "late": stored()}


def test_a_compaction_that_was_stopped_takes_in_what_it_had_begun_with(index, capsys):
    write(index, Add({"new": stored()}))
    stop = STOPS["after the shards"]
    subprocess.run([sys.executable, "-c", STOPPING, index, stop], check=False, capture_output=True, cwd=ROOT)
    write(index, Add({"late": stored()}))
    assert compact(index).manifest.journal_sequence == 1
    assert "going on with a build that was stopped: 61 embeddings copied" in capsys.readouterr().err
    assert compact(index).manifest.journal_sequence == 2


def grown(index, count):
    """Compacted so often, with an item more each time."""
    for number in range(count):
        write(index, Add({f"new {number}": stored()}))
        compact(index)
    return replayed(index, base_of(index))


def flip_entry(index, sequence):
    """Change an entry of the journal as a disk does: by itself."""
    with contextlib.closing(sqlite3.connect(index / "journal.db")) as journal, journal:
        journal.execute("UPDATE entries SET uri = 'flipped' WHERE sequence = ?", [sequence])


class TestRetention:
    def test_keeps_the_newest_and_the_journal_that_the_oldest_of_them_lacks(self, index):
        gallery = grown(index, 4)
        assert retire(index, 2) == ["000001", "000002", "000003"]
        assert version_names(index) == ["000004", "000005"]
        with Journal.open(index) as journal:
            assert (journal.pruned, journal.sequence()) == (3, 4)
        for name in version_names(index):
            assert replayed(index, base_of(index, name)) == gallery

    def test_keeps_what_is_in_use_and_the_journal_for_it(self, index):
        gallery = grown(index, 3)
        held = VersionLease(index / "versions" / "000002")
        assert retire(index, 1) == ["000001", "000003"]
        assert [kept.in_use for kept in versions(index)] == [True, False]
        assert replayed(index, base_of(index, "000002")) == gallery
        held.release()
        assert retire(index, 1) == ["000002"]
        assert replayed(index, base_of(index)) == gallery

    def test_keeps_the_current_version_whatever_its_age(self, index):
        gallery = grown(index, 2)
        roll_back(index, "000001")
        assert retire(index, 1) == ["000002", "000003"]
        assert replayed(index, base_of(index)) == gallery

    def test_sequence_numbers_go_on_after_all_was_pruned(self, index):
        grown(index, 1)
        retire(index, 1)
        assert write(index, Add({"x": stored()}))[0].sequence == 2


class TestRollback:
    def test_is_refused_where_the_journal_does_not_hold_whole_what_the_older_version_needs(self, index):
        grown(index, 2)
        flip_entry(index, 1)
        with pytest.raises(ArtifactError, match=r"journal\.db: is damaged \(entry 1 is not .*`vmmr-search repair"):
            roll_back(index, "000001")
        assert current(index) == "000003"
        assert roll_back(index, "000002") == "000002", "which holds the entry"

    def test_loses_nothing_that_was_written(self, index):
        gallery = grown(index, 2)
        assert (roll_back(index), current(index)) == ("000002", "000002")
        assert replayed(index, base_of(index)) == gallery
        write(index, Delete(("new 0",)))
        compact(index)
        assert (current(index), dict(rows(IndexVersion.open(index))).keys()) == ("000004", gallery.keys() - {"new 0"})

    def test_to_a_version_that_is_not_there_is_refused(self, index):
        with pytest.raises(CommandError, match="has no version before 000001"):
            roll_back(index)
        with pytest.raises(CommandError, match="has no version 000009"):
            roll_back(index, "000009")

    def test_to_a_damaged_version_is_refused(self, index):
        grown(index, 1)
        (index / "versions" / "000001" / "embeddings.npy").write_bytes(b"")
        with pytest.raises(ArtifactError, match=r"embeddings\.npy"):
            roll_back(index)
        assert current(index) == "000002"


class TestCommands:
    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "search_svc", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )

    def test_compact_versions_and_rollback_say_what_they_did(self, index):
        write(index, Add({"new": stored()}))
        compacted = self.run("compact", index)
        assert compacted.stdout == f"{index}/versions/000002: 61 photos of 22 labels, journal to 1\n", compacted.stderr
        again = self.run("compact", index, "--keep-versions", 1)
        assert again.stdout == f"{index}: nothing was written since version 000002 was built; removed: 000001\n"
        listed = self.run("versions", index).stdout.splitlines()
        assert listed[0].split() == ["version", "created", "(UTC)", "items", "model", "journal"]
        assert listed[1].startswith("000002  ")
        assert listed[1].endswith("61     test (c0ffee000000)  1        current")
        assert self.run("rollback", index).stderr == f"vmmr-search: error: {index} has no version before 000002\n"

    def test_compact_beside_another_build_ends_with_a_code_of_its_own(self, index):
        write(index, Add({"new": stored()}))
        with only_builder(index):
            refused = self.run("compact", index)
        assert (refused.returncode, refused.stdout) == (3, "")
        assert refused.stderr.startswith(f"vmmr-search: error: {index}: another process is building")


class TestBuildingAnew:
    """Over an index that was written to."""

    def build(self, index, **options):
        vectors = np.random.default_rng(5).standard_normal((30, D)).astype(np.float32)
        names = [f"photo {row}.jpg" for row in range(30)]
        labels = [parse("make_model 0_2000")] * 30
        options = {"model": MODEL, **options}
        return build_version(
            index,
            embeddings=vectors,
            item_ids=names,
            labels=labels,
            uris=names,
            model_name="test",
            spec=IndexSpec(),
            **options,
        )

    def test_lays_what_was_written_over_what_is_built(self, index):
        write(index, Add({"new": stored()}), Delete(("photo 3.jpg",)))
        self.build(index)
        assert replayed(index, base_of(index)).keys() == {"new", *(f"photo {row}.jpg" for row in range(30) if row != 3)}

    def test_is_refused_where_that_cannot_be_and_lets_go_of_it_if_told_to(self, index):
        grown(index, 1)
        retire(index, 1)
        with pytest.raises(
            CommandError, match="was written to while it served, 1 times, and versions hold the first 1"
        ):
            self.build(index)
        made = self.build(index, drop_changes=True)
        assert made.manifest.journal_sequence == 1
        assert write(index, Add({"x": stored()}))[0].sequence == 2
        assert replayed(index, base_of(index)).keys() == {"x", *(f"photo {row}.jpg" for row in range(30))}

    @pytest.mark.parametrize("before", [(), (Add({"new": stored()}),)])
    def test_with_another_model_is_refused_if_it_is_written_to_meanwhile(self, index, monkeypatch, before):
        def copied_meanwhile(*arguments):
            write(index, Add({"late": stored()}))
            return copy(*arguments)

        copy = build.copy_embeddings
        monkeypatch.setattr(build, "copy_embeddings", copied_meanwhile)
        write(index, *before)
        with pytest.raises(CommandError, match="was written to meanwhile, with embeddings of another model"):
            self.build(index, model="f" * 64, drop_changes=bool(before))
        assert current(index) == "000001"
        assert "late" in replayed(index, base_of(index))

    def test_with_another_model_starts_the_journal_over(self, index):
        write(index, Add({"new": stored()}))
        with pytest.raises(CommandError, match="with embeddings of another model"):
            self.build(index, model="f" * 64)
        self.build(index, model="f" * 64, drop_changes=True)
        base = base_of(index)
        base.model = "f" * 64
        assert written(index, Add({"x": stored()}), base=base)[0].sequence == 2
        assert "x" in replayed(index, base)
        with pytest.raises(CommandError, match="what was written since is of another model"):
            roll_back(index)


def test_a_journal_whose_loss_was_accepted_is_begun_where_the_version_ends(index):
    grown(index, 3)
    for file in index.glob("journal.*"):
        file.unlink()
    accept_gone(index)
    assert write(index, Add({"x": stored()}))[0].sequence == 4
    assert "x" in replayed(index, base_of(index))


def test_a_journal_of_another_index_is_not_written_to(index, tmp_path):
    grown(index, 3)
    other = tmp_path / "other"
    other.mkdir()
    written(other, Add({"x": stored()}))
    for name in ("journal.db", "journal.mark"):
        shutil.copy(other / name, index)
    (outcome,) = written(index, Add({"x": stored()}), base=base_of(index))
    assert "ends with entry 1, and the index holds 3: it is the journal of another" in str(outcome)


def test_where_the_journal_s_loss_was_accepted_nothing_is_new_and_no_earlier_version_takes_its_place(index):
    grown(index, 3)
    for file in index.glob("journal.*"):
        file.unlink()
    accept_gone(index)
    assert compact(index) is None
    with pytest.raises(CommandError, match="it holds the journal to 2, which was pruned up to 3"):
        roll_back(index)
    retire(index, 1)
    assert write(index, Add({"x": stored()}))[0].sequence == 4
    assert "x" in replayed(index, base_of(index))


def test_of_a_version_that_is_not_current_any_more_none_is_built(index, monkeypatch):
    read = compaction.merge_journal

    def overtaken(*arguments):
        source = read(*arguments)
        monkeypatch.setattr(compaction, "merge_journal", read)
        write(index, Add({"late": stored()}))
        compact(index)
        retire(index, 1)
        return source

    write(index, Add({"new": stored()}))
    monkeypatch.setattr(compaction, "merge_journal", overtaken)
    with pytest.raises(BuildRunningError, match="version 000002 took the place of 000001 meanwhile"):
        compact(index)
    assert dict(rows(IndexVersion.open(index))).keys() >= {"new", "late"}
    assert version_names(index) == ["000002"]


class TestAllOfTheJournal:
    """Compacted where a compaction was stopped that had begun with less."""

    @pytest.fixture
    def stopped(self, index):
        write(index, Add({"new": stored()}))
        stop = STOPS["after the shards"]
        subprocess.run([sys.executable, "-c", STOPPING, index, stop], check=False, capture_output=True, cwd=ROOT)
        write(index, Add({"late": stored()}), Delete(("photo 3.jpg",)))
        return index

    def test_is_in_the_version_that_is_current_when_it_ends(self, stopped, capsys):
        gallery = replayed(stopped, base_of(stopped))
        assert compact_all(stopped).manifest.journal_sequence == 3
        assert "going on with a build that was stopped" in capsys.readouterr().err
        assert dict(rows(IndexVersion.open(stopped))) == gallery
        assert version_names(stopped) == ["000001", "000002", "000003"]

    def test_ends_with_what_there_was_when_it_was_called(self, stopped, monkeypatch):
        def written_meanwhile(*arguments, **options):
            write(stopped, Add({f"later {len(built)}": stored()}))
            built.append(build_as_before(*arguments, **options))
            return built[-1]

        built, build_as_before = [], compaction.build_version
        monkeypatch.setattr(compaction, "build_version", written_meanwhile)
        assert compact_all(stopped).manifest.journal_sequence >= 3
        assert len(built) == 2

    def test_is_what_another_may_have_put_into_a_version_meanwhile(self, stopped, monkeypatch):
        def overtaken(*arguments, **options):
            monkeypatch.setattr(compaction, "compact", compact)
            made = compact(*arguments, **options)
            compact(*arguments, **options)
            return made

        monkeypatch.setattr(compaction, "compact", overtaken)
        assert compact_all(stopped).manifest.version == "000002"
        assert IndexVersion.open(stopped).manifest.journal_sequence == 3

    def test_the_command_says_so(self, stopped):
        done = TestCommands().run("compact", stopped)
        assert done.stdout.startswith(f"{stopped}/versions/000003: 61 photos of 22 labels, journal to 3"), done.stderr
