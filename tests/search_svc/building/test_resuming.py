"""A build that is stopped, wherever that is, is gone on with, and comes to the same."""

import contextlib
import importlib.util
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from search_svc.building import faiss_index
from search_svc.building.checkpoints import Checkpoints
from search_svc.index.version import IndexVersion

_builder = importlib.util.spec_from_file_location("builder", Path(__file__).with_name("builder.py"))
builder = importlib.util.module_from_spec(_builder)
_builder.loader.exec_module(builder)

SPEC = {"factory": "PCA6,IVF4,SQ8", "shards": 3, "nprobe": 2}
COPIED_ALL, TRAINED = "400 embeddings copied", ", the index trained"
# Where it stops (module/class:function, and the how many-eth time), in how many processes it fills shards, and what is kept.
STOPS = {
    "copying": (["search_svc.building.checkpoints/Checkpoints:keep", 3], 1, "96 embeddings copied, 0 photos indexed"),
    "copied": (["search_svc.building.build:copy_embeddings", 1], 1, f"{COPIED_ALL}, 0 photos indexed"),
    "training": (["search_svc.building.faiss_index:train", 1], 1, f"{COPIED_ALL}, 0 photos indexed"),
    "trained": (["search_svc.building.shard_files:_empty", 1], 1, f"{COPIED_ALL}{TRAINED}, 0 photos indexed"),
    "in a shard": (
        ["search_svc.building.shard_files/_Shard:_keep_part", 2],
        1,
        f"{COPIED_ALL}{TRAINED}, 64 photos indexed",
    ),
    "between shards": (
        ["search_svc.building.shard_files/_Shard:fill", 1],
        1,
        f"{COPIED_ALL}{TRAINED}, 134 photos indexed",
    ),
    "in processes": (
        ["search_svc.building.shard_files/_Shard:_keep_part", 2],
        2,
        f"{COPIED_ALL}{TRAINED}, 128 photos indexed",
    ),
    "shards done": (["search_svc.building.build:_write_shards", 1], 2, f"{COPIED_ALL}{TRAINED}, 400 photos indexed"),
    "manifest": (
        ["search_svc.building.build:write_version_manifest", 1],
        1,
        f"{COPIED_ALL}{TRAINED}, 400 photos indexed",
    ),
}


@pytest.fixture
def stopped(tmp_path):
    """Starts a build in a process of its own; returns it when it has stopped, in all the processes that get so far."""
    builds = []

    def start(stop, processes, spec=SPEC):
        arguments = json.dumps({"spec": spec, "stop": stop, "processes": processes})
        command = [sys.executable, builder.__file__, str(tmp_path / "index"), arguments]
        build = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        builds.append(build)
        in_workers = "_Shard" in stop[0]
        for _ in range(processes if in_workers else 1):
            assert build.stdout.readline() == "here\n", ended(build)
        return build

    yield start
    for build in builds:
        build.kill()
        build.communicate()


def ended(build):
    """What a build said that did not get to where it was to stop; it may still run."""
    build.kill()
    return build.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with builder.small_steps():
        return contents(builder.build_it(tmp_path_factory.mktemp("undisturbed"), SPEC))


def contents(version):
    """Of all files, but for the time in the manifest."""
    files = {path.name: path.read_bytes() for path in version.path.iterdir()}
    manifest = json.loads(files.pop("manifest.json"))
    return files | {"manifest": {name: manifest[name] for name in manifest if name not in {"created", "sha256"}}}


def go_on(index, **changes):
    with builder.small_steps():
        return builder.build_it(index, **{"spec": SPEC, **changes})


@pytest.mark.parametrize("where", STOPS)
def test_a_build_that_was_killed_is_gone_on_with_and_comes_to_the_same(stopped, undisturbed, tmp_path, capsys, where):
    stop, processes, kept = STOPS[where]
    build = stopped(stop, processes)
    children = psutil.Process(build.pid).children(recursive=True)
    assert (len(children) > 0) == (processes > 1)
    build.kill()
    build.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == [], "workers end with what started them"
    index = tmp_path / "index"
    assert not (index / "CURRENT").exists()
    assert [path.name for path in (index / "versions").iterdir()] == [".draft"]
    version = go_on(index)
    assert contents(version) == undisturbed
    assert IndexVersion.open(index).manifest == version.manifest
    assert [path.name for path in (index / "versions").iterdir()] == ["000001"]
    said = capsys.readouterr().err
    assert f"going on with a build that was stopped: {kept}\n" in said
    assert ("training" in said) == (TRAINED not in kept)


@pytest.mark.parametrize("where", ["in a shard", "in processes"])
def test_ctrl_c_ends_it_quietly_and_it_is_gone_on_with(stopped, undisturbed, tmp_path, where):
    stop, processes, _ = STOPS[where]
    build = stopped(stop, processes)
    children = psutil.Process(build.pid).children(recursive=True)
    os.killpg(build.pid, signal.SIGINT)  # a terminal tells all of them
    _, said = build.communicate(timeout=60)
    assert build.returncode == 130
    assert "Traceback" not in said
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert contents(go_on(tmp_path / "index")) == undisturbed


def test_a_worker_that_is_killed_ends_the_build_with_the_reason_and_it_is_gone_on_with(stopped, undisturbed, tmp_path):
    build = stopped(*STOPS["in processes"][:2])
    workers = [each for each in psutil.Process(build.pid).children() if "spawn_main" in " ".join(each.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    _, said = build.communicate(timeout=60)
    assert build.returncode == 1
    assert "builder: error: a process that this command had started was killed, perhaps for want of memory" in said
    assert "Traceback" not in said
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert contents(go_on(tmp_path / "index")) == undisturbed


def test_a_worker_that_still_starts_when_all_is_done_is_not_waited_for(undisturbed, tmp_path):
    first = tmp_path / "the first has started"
    arguments = json.dumps({"spec": SPEC, "processes": 2, "one_worker_starts": str(first)})
    command = [sys.executable, builder.__file__, str(tmp_path / "index"), arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as build:
        try:
            _, said = build.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(build.pid, signal.SIGKILL)
    assert build.returncode == 0
    assert "Traceback" not in said
    assert contents(IndexVersion.open(tmp_path / "index")) == undisturbed


def test_workers_never_see_ctrl_c_not_even_while_they_start(stopped):
    build = stopped(*STOPS["in processes"][:2])
    for worker in psutil.Process(build.pid).children():
        if "spawn_main" in " ".join(worker.cmdline()):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
            assert int(status["SigBlk"], 16) & (1 << (signal.SIGINT - 1)), "blocked by what started it"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"spec": SPEC | {"shards": 2}}, "index"),
        ({"spec": SPEC | {"seed": 1}}, "index"),
        ({"spec": SPEC | {"factory": "PCA6,IVF4,Flat"}}, "index"),
        ({"uris": [f"{row}.jpg" for row in range(builder.ITEMS)]}, "gallery"),
        ({"embeddings": np.ones((builder.ITEMS, 8), np.float32), "spec": {}}, "embeddings and index"),
    ],
)
def test_another_build_discards_it_and_says_so(draft, tmp_path, capsys, changes, what):
    version = go_on(draft, **changes)
    said = capsys.readouterr().err
    assert f"discarding what a build of another {what} left when it was stopped\n" in said
    assert "going on" not in said
    with builder.small_steps():
        assert contents(version) == contents(builder.build_it(tmp_path / "new", **{"spec": SPEC, **changes}))


def test_how_it_is_searched_may_change(draft, capsys):
    version = go_on(draft, spec=SPEC | {"nprobe": 3, "rerank": 4, "k": 2})
    assert "going on with a build that was stopped" in capsys.readouterr().err
    assert (version.manifest.search.nprobe, version.manifest.search.rerank, version.manifest.k) == (3, 4, 2)


@pytest.mark.parametrize(
    "damaged", ["version/embeddings.npy", "work/trained.faiss", "version/shard-000.faiss", "work/shard-001-64.faiss"]
)
@pytest.mark.parametrize("damage", ["flip", "shorten", "lose"])
def test_what_is_damaged_is_made_again_and_said(draft, undisturbed, capsys, damaged, damage):
    path = draft / "versions/.draft" / damaged
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flip" else content[:-1])
    if damage == "lose":
        path.unlink()
    assert contents(go_on(draft)) == undisturbed
    assert f"{path} is damaged, and is made again" in capsys.readouterr().err


@pytest.mark.parametrize("record", ["embeddings", "trained", "shard-001"])
def test_a_record_in_which_any_bit_flipped_is_not_believed_and_what_it_tells_of_is_made_again(
    draft, undisturbed, capsys, record
):
    path = draft / f"versions/.draft/work/{record}.json"
    whole = path.read_bytes()
    found = Checkpoints(path.parent)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert found.state(record) in ({}, json.loads(whole)["state"])
    path.write_bytes(whole.replace(b'"state"', b'"stats"'))
    capsys.readouterr()
    assert contents(go_on(draft)) == undisturbed
    assert f"{path} is damaged, and is made again" in capsys.readouterr().err


def test_what_was_written_to_the_embeddings_after_their_record_is_cut_off(tmp_path, undisturbed, monkeypatch, capsys):
    index = interrupted(tmp_path / "index", monkeypatch, "search_svc.building.checkpoints.Checkpoints.keep", 3)
    with (index / "versions/.draft/version/embeddings.npy").open("ab") as file:
        file.write(b"half a row")
    assert contents(go_on(index)) == undisturbed
    assert "is damaged" not in capsys.readouterr().err


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_version_that_was_whole_but_not_current_becomes_current_and_no_other_is_made(tmp_path, monkeypatch, earlier):
    versions = [f"{number:06d}" for number in range(1, earlier + 2)]
    for _ in range(earlier):
        go_on(tmp_path / "index")
    index = interrupted(tmp_path / "index", monkeypatch, "search_svc.index.index_dir.publish", 1)
    assert sorted(path.name for path in (index / "versions").iterdir()) == [".draft", *versions]
    shard = (index / "versions" / versions[-1] / "shard-000.faiss").stat()
    version = go_on(index, spec=SPEC | {"nprobe": 3})
    assert IndexVersion.open(index).manifest == version.manifest
    assert (version.path.name, version.manifest.search.nprobe) == (versions[-1], 3)
    assert version.shard_paths[0].stat().st_mtime_ns == shard.st_mtime_ns, "it is not built again"
    assert sorted(path.name for path in (index / "versions").iterdir()) == versions


def test_a_version_that_is_current_stays_as_it_is_if_the_build_was_killed_right_after(tmp_path, monkeypatch):
    index = interrupted(tmp_path / "index", monkeypatch, "search_svc.index.index_dir.atomic_write", 3)
    before = IndexVersion.open(index)
    assert (index / "versions/.draft").exists()
    assert go_on(index).path.name == "000002"
    assert IndexVersion.open(index, before.path.name).manifest == before.manifest
    assert sorted(path.name for path in (index / "versions").iterdir()) == ["000001", "000002"]


def test_a_version_that_was_not_current_and_was_deleted_is_built_again(tmp_path, undisturbed, monkeypatch):
    index = interrupted(tmp_path / "index", monkeypatch, "search_svc.index.index_dir.publish", 1)
    shutil.rmtree(index / "versions/000001")
    assert contents(go_on(index)) == undisturbed


@pytest.fixture
def draft(tmp_path, monkeypatch):
    """What a build left that was stopped in its second shard."""
    return interrupted(tmp_path / "index", monkeypatch, "search_svc.building.shard_files._Shard._keep_part", 7)


def interrupted(index, monkeypatch, function, times):
    class StoppedError(BaseException):
        pass

    original = pkgutil.resolve_name(function)
    before = iter(range(times - 1))

    def stopping(*args, **kwargs):
        original(*args, **kwargs)
        if next(before, None) is None:
            raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):  # noqa: PT012 - what the patch is for
        patch.setattr(function, stopping)
        go_on(index)
    return index


def test_a_shard_that_was_whole_is_left_as_it_is(draft):
    shard = draft / "versions/.draft/version/shard-000.faiss"
    before = shard.stat()
    after = (go_on(draft).path / "shard-000.faiss").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_index_is_written_without_work_of_its_own_left_over(tmp_path):
    version = go_on(tmp_path / "index")
    assert {path.name for path in version.path.iterdir()} == {
        "manifest.json",
        "embeddings.npy",
        "sums.npy",
        "items.arrow",
        *(f"shard-{number:03d}.faiss" for number in range(3)),
    }
    assert faiss_index.read(version.shard_paths[0]).ntotal == 134
