import contextlib
import itertools
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from search_svc.index import index_dir
from search_svc.index.index_dir import new_version
from search_svc.index.version import IndexVersion
from svckit.artifact import ArtifactError

# Builds a version in argv[1], and stops for good when argv[2], a function the build calls, is done.
BUILDER = """
import importlib, sys
import numpy as np
from tests.search_svc.builds import build_version
from search_svc.voting.labels import parse
from search_svc.building.spec import IndexSpec

def stop_after(name):
    module, _, function = name.rpartition(".")
    module = importlib.import_module(module)
    original = getattr(module, function)
    def stopping(*args, **kwargs):
        original(*args, **kwargs)
        print("here", flush=True)
        sys.stdin.read()
    setattr(module, function, stopping)

stop_after(sys.argv[2])
rows = [str(row) for row in range(20)]
build_version(__import__("pathlib").Path(sys.argv[1]), embeddings=np.ones((20, 4), np.float32), item_ids=rows,
    labels=[parse(row) for row in rows], uris=rows, model="m", model_name="n", spec=IndexSpec(shards=2))
"""


@pytest.fixture
def building(tmp_path):
    """Starts a build in tmp_path that stops after a function of its own, and waits until it has stopped."""
    builders = []

    def start(after):
        command = [sys.executable, "-c", BUILDER, str(tmp_path), after]
        builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        builders.append(builder)
        assert builder.stdout.readline() == "here\n"
        return builder

    yield start
    for builder in builders:
        builder.kill()
        builder.communicate()


@pytest.mark.parametrize(
    "after",
    [
        "search_svc.building.build.copy_embeddings",
        "search_svc.building.faiss_index.write",
        "search_svc.building.build.write_version_manifest",
    ],
)
def test_a_build_that_is_killed_leaves_no_version_and_another_one_sweeps_up(building, build_index, tmp_path, after):
    before = build_index(np.eye(4), directory=tmp_path)
    builder = building(after)
    assert len(list((tmp_path / "versions").iterdir())) == 2
    builder.kill()
    builder.wait()
    assert IndexVersion.open(tmp_path).manifest == before.manifest
    assert build_index(np.eye(5), directory=tmp_path).manifest.version == "000002"
    assert IndexVersion.open(tmp_path).manifest.items == 5
    assert sorted(path.name for path in (tmp_path / "versions").iterdir()) == ["000001", "000002"]


def test_a_build_that_is_killed_before_it_moved_current_leaves_the_old_version_current(building, build_index, tmp_path):
    build_index(np.eye(4), directory=tmp_path)
    builder = building("os.rename")
    builder.kill()
    builder.wait()
    assert IndexVersion.open(tmp_path).manifest.version == "000001"
    assert IndexVersion.open(tmp_path, "000002").manifest.items == 20, "it is whole, if not current"
    assert build_index(np.eye(5), directory=tmp_path).manifest.version == "000003"


def test_two_builds_at_once_are_refused_and_the_first_goes_on(building, build_index, tmp_path):
    builder = building("search_svc.building.build.copy_embeddings")
    with pytest.raises(ArtifactError, match="another process is building an index here"):
        build_index(np.eye(5), directory=tmp_path)
    assert builder.poll() is None
    assert (tmp_path / "versions/.draft/version/embeddings.npy").exists(), "what it writes is left alone"


def test_a_version_that_cannot_be_written_leaves_no_version(tmp_path):
    with pytest.raises(NotADirectoryError), new_version(tmp_path, {}) as draft:  # noqa: PT012 - the block is the draft
        (draft.files / "embeddings.npy").touch()
        (draft.files / "embeddings.npy" / "x").touch()
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [".draft"]
    assert not (tmp_path / "CURRENT").exists()


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ArtifactError, match="holds something else than an index"), new_version(tmp_path, {}):
        pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_system_s_own_folder_is_in_nobody_s_way(tmp_path):
    (tmp_path / "lost+found").mkdir()
    with new_version(tmp_path, {}):
        pass
    assert index_dir.current(tmp_path) == "000001"


def test_versions_are_counted_past_the_last_whatever_else_lies_there(tmp_path):
    names = []
    for stray in ("000007", "notes", "0009.old"):
        (tmp_path / "versions" / stray).mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        with new_version(tmp_path, {}) as draft:
            names.append(draft.version)
    assert names == ["000008", "000009"]
    assert index_dir.current(tmp_path) == "000009"
    assert (tmp_path / "CURRENT").read_bytes() == b"000009 %08x\n" % zlib.crc32(b"000009")


class TestCurrent:
    @pytest.fixture
    def index(self, tmp_path):
        """With versions that a bit of the name of the third leads to."""
        for _ in range(3):
            with new_version(tmp_path, {}):
                pass
        return tmp_path

    def test_any_flipped_bit_is_refused_with_the_way_out_and_leads_to_no_other_version(self, index):
        whole = (index / "CURRENT").read_bytes()
        way_out = f"`vmmr-search rollback {index} 000003` names the newest version that is there"
        for place, bit in itertools.product(range(len(whole)), range(8)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            (index / "CURRENT").write_bytes(flipped)
            if (flipped[:-1], bytes(flipped[-1:]).isspace()) == (whole[:-1], True):
                assert index_dir.current(index) == "000003"
                continue
            with pytest.raises(ArtifactError, match=f"^{index}/CURRENT: ") as caught:
                index_dir.current(index)
            assert caught.value.remedy == way_out

    def test_one_that_is_gone_is_not_taken_for_an_index_that_was_never_built(self, index):
        (index / "CURRENT").unlink()
        with pytest.raises(ArtifactError, match="missing, and there are versions: `vmmr-search rollback"):
            index_dir.current(index)

    def test_a_name_that_was_written_by_hand_or_an_earlier_release_is_believed(self, index):
        (index / "CURRENT").write_text("000002\n")
        assert index_dir.current(index) == "000002"

    @pytest.mark.parametrize("content", [b"", b"\xff", b"000002 12345678\n", None])
    def test_whatever_became_of_it_a_rollback_to_a_version_that_is_named_mends_it(self, calibrated, tmp_path, content):
        index = shutil.copytree(calibrated.version.path.parents[1], tmp_path / "index")
        (index / "CURRENT").unlink()
        if content is not None:
            (index / "CURRENT").write_bytes(content)
        command = [sys.executable, "-m", "search_svc", "rollback", index, "000001"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "version 000001 is current now, none that is known (" in done.stdout
        assert index_dir.current(index) == "000001"


def test_the_way_out_of_a_damaged_version_is_another_one_or_a_backup(tmp_path):
    for names in ((), ("000001",), ("000001", "000002", "000003")):
        for name in names:
            (tmp_path / "versions" / name).mkdir(parents=True, exist_ok=True)
        told = index_dir.way_out(tmp_path, names[-1] if names else "000001")
        assert "`vmmr-search restore`" in told
        assert ("rollback" in told) == (len(names) > 1)
    assert f"`vmmr-search rollback {tmp_path} 000002`" in told


def test_the_way_out_of_a_damaged_version_that_is_not_the_current_one_changes_nothing_of_what_is_served(tmp_path):
    for name in ("000001", "000002"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    index_dir.make_current(tmp_path, "000002")
    told = index_dir.way_out(tmp_path, "000001")
    assert "version 000002 is the current one" in told
    assert f"remove {tmp_path}/versions/000001;" in told
    assert ("rollback" in told, "rollback" in index_dir.way_out(tmp_path, "000002")) == (False, True)


def test_a_version_is_not_taken_back_while_it_cannot_be_read_which_is_current(tmp_path):
    """A build that was killed had moved it to its place; it may have become the current one, and be served."""
    job, place = {"of": "this"}, tmp_path / "versions" / "000001"
    with contextlib.suppress(ZeroDivisionError), new_version(tmp_path, job) as draft:
        (draft.files / "file").write_text("content")
        (draft.work.parent / "moving").write_text("000001")
        draft.files.rename(place)
        raise ZeroDivisionError
    (tmp_path / "CURRENT").mkdir()  # so that reading it fails
    with pytest.raises(ArtifactError, match="CURRENT: "), new_version(tmp_path, job):
        pass
    assert (place / "file").exists()


@pytest.mark.parametrize("part", ["", "job.json", "version", "version/a.file", "work", "work/a.file"])
@pytest.mark.parametrize("lies_there", ["another kind", "link to nothing", "link to what it was"])
def test_a_draft_with_something_else_than_a_build_makes_is_begun_anew(tmp_path, part, lies_there, capsys):
    job, index, elsewhere = {"of": "this"}, tmp_path / "index", tmp_path / "elsewhere"
    with contextlib.suppress(ZeroDivisionError), new_version(index, job) as draft:
        (draft.files / "a.file").write_text("content")
        (draft.work / "a.file").write_text("content")
        raise ZeroDivisionError
    path = (index / "versions/.draft" / part).rename(elsewhere)
    place = index / "versions/.draft" / part
    if lies_there != "another kind":
        place.symlink_to(elsewhere if "was" in lies_there else tmp_path / "nowhere")
    elif path.is_dir():
        place.write_text("content")
    else:
        place.mkdir()
    with new_version(index, job) as draft:
        assert [*draft.files.iterdir(), *draft.work.iterdir()] == []
        (draft.files / "file").write_text("new")
    assert (index / "versions/000001/file").read_text() == "new"
    assert {file.read_text() for file in (elsewhere, *elsewhere.rglob("a.file")) if file.is_file()} <= {
        "content",
        '{"of": "this"}\n',
    }
    assert not (tmp_path / "nowhere").exists()
    assert capsys.readouterr().err == f"warning: {index}/versions/.draft is damaged, and is begun anew\n"


def test_what_others_leave_in_a_draft_or_take_out_of_it_meanwhile_costs_nothing_of_it(tmp_path, monkeypatch):
    job = {"of": "this"}
    with contextlib.suppress(ZeroDivisionError), new_version(tmp_path, job) as draft:
        (draft.files / "file").write_text("content")
        raise ZeroDivisionError
    for folder in ("version/@eaDir", "version/lost+found", "work/.snapshot"):  # of a NAS, and of file systems
        (tmp_path / "versions/.draft" / folder).mkdir()
    listed = Path.rglob
    gone = tmp_path / "versions/.draft/work/.record.tmp"
    more = {gone.parents[1]: [gone]}
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: [*listed(path, pattern), *more.get(path, [])])
    with new_version(tmp_path, job) as draft:
        assert (draft.files / "file").read_text() == "content"


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """An index whose first version was moved to its place by a build that was then killed; the draft's folder, which is gone."""
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(index_dir, "make_current", Mock(side_effect=KeyboardInterrupt))
        with new_version(tmp_path, {"job": "one"}) as draft:
            (draft.files / "shard").write_text("begun")
    return draft.files


def test_a_part_of_a_copy_that_a_killed_build_left_in_its_draft_costs_nothing_of_it(tmp_path, moved):
    (moved.parent / ".version.0.tmp").mkdir()
    with new_version(tmp_path, {"job": "one"}) as draft:
        assert (draft.files / "shard").read_text() == "begun"
    assert [path.name for path in (tmp_path / "versions").iterdir()] == ["000001"]


def test_of_a_version_and_its_copy_neither_is_taken_for_whole(tmp_path, moved):
    moved.mkdir()
    with new_version(tmp_path, {"job": "one"}) as draft:
        assert not list(draft.files.iterdir())
        assert not list(tmp_path.glob("versions/0*"))
    assert [path.name for path in (tmp_path / "versions").iterdir()] == ["000001"]


def test_a_lock_that_is_no_file_is_named_with_what_helps(tmp_path):
    (tmp_path / "build.lock").mkdir()
    with (
        pytest.raises(
            ArtifactError, match=r"build\.lock: Is a directory: whoever builds locks it: see that it is a file"
        ),
        index_dir.only_builder(tmp_path),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("part", ["versions", "versions/000001"])
def test_of_a_part_of_an_index_the_index_is_named(tmp_path, part):
    (tmp_path / part).mkdir(parents=True)
    (tmp_path / "CURRENT").write_text("000001\n")
    with pytest.raises(ArtifactError, match=f"it is a part of the index {tmp_path}: name that"):
        index_dir.current(tmp_path / part)
