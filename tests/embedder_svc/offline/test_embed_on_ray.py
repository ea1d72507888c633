"""`vmmr-embedder embed --ray`, on a cluster of two nodes on this machine, with a tiny real network."""

import argparse
import contextlib
import csv
import functools
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from embedder_svc.offline import command as embed_command
from embedder_svc.offline import on_ray
from embedder_svc.offline.chunks import Chunk
from embedder_svc.photos import photo_folder
from embedder_svc.photos.photo_folder import LocalFolder
from svckit import ray_cluster
from svckit.cli import CommandError
from tests.embedder_svc import storage as storages

pytestmark = pytest.mark.xdist_group("ray")

CHUNK = 64
COUNT = 1500  # 24 chunks
BROKEN = {3: b"", 70: b"not a photo", 1499: None}  # None: not there


class Collection:
    def __init__(self, root: Path, model: Path) -> None:
        self.manifest, self.photos, self._model = root / "manifest.csv", root / "photos", model

    def flags(self, out: Path, *more: str) -> list[str]:
        """Of a flag that is there twice, the last counts."""
        return ["embed", str(self.manifest), f"--photos={self.photos}", f"--model={self._model}", f"--out={out}", *more]

    def embed(self, out: Path, *more: str) -> None:
        parser = argparse.ArgumentParser()
        embed_command.add(parser.add_subparsers())
        args = parser.parse_args(self.flags(out, *more))
        args.run(args)


@pytest.fixture(scope="module")
def collection(tmp_path_factory, encode, street, car_bundle):
    root = tmp_path_factory.mktemp("collection")
    made = Collection(root, car_bundle)
    made.photos.mkdir()
    cars = ({(1, 1): 255}, {}, {(0, 3): 255, (2, 2): 200})
    contents = [encode(street(cars[number % 3]), "JPEG", quality=60 + number) for number in range(40)]
    rows = [["label", "path"]]
    for number in range(COUNT):
        name = f"car {number}.jpg"
        if (content := BROKEN.get(number, contents[number * 7 % 40])) is not None:
            (made.photos / name).write_bytes(content)
        rows.append(["a car", name])
    with made.manifest.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return made


@pytest.fixture(scope="module")
def whole(collection, tmp_path_factory):
    """What a run without Ray makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    collection.embed(out, "--threads=1")
    return contents(out)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def chunks_done(out):
    journal = out.with_name(f"{out.name}.partial") / "journal.jsonl"
    return journal.read_text().count("\n") if journal.exists() else 0


def actors():
    """The processes that embed for this process' cluster, by Ray's name for them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            found += [process.pid for name in process.cmdline()[:1] if name.startswith("ray::Actor")]
    return found


def wait_until(true):
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid):
    return not psutil.pid_exists(pid)


@contextlib.contextmanager
def started(*arguments):
    with subprocess.Popen([sys.executable, "-m", "embedder_svc", *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def held_up(photo, tmp_path):
    """Yield what lets go: until then the photo is a pipe, and who reads it waits; a reader who has begun waits for ever."""
    aside = photo.rename(tmp_path / photo.name)
    os.mkfifo(photo)
    try:
        yield lambda: aside.replace(photo)
    finally:
        if aside.exists():
            aside.replace(photo)


def test_the_artifact_is_that_of_one_machine_to_the_bit(collection, whole, ray_address, tmp_path, capsys):
    collection.embed(tmp_path / "out", f"--ray={ray_address}")
    assert contents(tmp_path / "out") == whole
    said = capsys.readouterr()
    assert f"{COUNT} photos in the manifest: {COUNT - len(BROKEN)} embedded by tiny" in said.out
    assert f"warning: {len(BROKEN)} photos can't be read and were left out" in said.err
    assert "bits" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_worker_loses_nothing_nor_does_a_killed_driver(collection, whole, ray_address, tmp_path):
    out = tmp_path / "out"
    command = collection.flags(out, f"--ray={ray_address}")
    # The second is not given out before the first is done: else both actors might wait, with a chunk before those behind them.
    first, second = (collection.photos / f"car {CHUNK * number}.jpg" for number in (5, 15))
    with held_up(first, tmp_path) as let_go_first, held_up(second, tmp_path), started(*command):
        wait_until(lambda: chunks_done(out) == 5)
        let_go_first()
        for actor in actors():  # one of them waits for the first pipe still
            os.kill(actor, signal.SIGKILL)
        wait_until(lambda: chunks_done(out) == 15)
    assert not out.exists()
    wait_until(lambda: not actors())
    collection.embed(out, f"--ray={ray_address}")
    assert contents(out) == whole


def test_a_chunk_whose_actor_hangs_is_given_to_another(collection, whole, ray_address, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "_PATIENCE_S", math.inf)
    out, photo, ended = tmp_path / "out", collection.photos / f"car {CHUNK * 5}.jpg", threading.Event()
    with held_up(photo, tmp_path) as let_go:

        def let_go_once_one_waits_for_it():
            with photo.open("wb"):  # opens once it is being read; who reads waits until it is closed
                let_go()
                on_ray._PATIENCE_S = 0.0
                ended.wait()

        helper = threading.Thread(target=let_go_once_one_waits_for_it)
        helper.start()
        collection.embed(out, f"--ray={ray_address}")
        ended.set()
        helper.join()
    assert contents(out) == whole


def test_photos_that_end_whoever_reads_them_are_named_at_last(collection, ray_address, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "_RETRIES", 1)
    out = tmp_path / "out"
    with held_up(collection.photos / "car 0.jpg", tmp_path):

        def kill_readers():
            for _ in range(2):
                with (collection.photos / "car 0.jpg").open("wb"):  # opens once it is being read
                    (actor,) = actors()
                    os.kill(actor, signal.SIGKILL)
                    wait_until(functools.partial(gone, actor))

        helper = threading.Thread(target=kill_readers)
        helper.start()
        with pytest.raises(
            CommandError, match=r"^Ray gave up on the photos car \d+\.jpg to car \d+\.jpg, or others that"
        ):
            collection.embed(out, f"--ray={ray_address}", "--actors=1")
        helper.join()
    assert out.with_name("out.partial").exists()


def test_a_photo_that_only_a_node_can_not_open_is_not_left_out(collection):
    """The folder is not there on that node, or is another one."""
    chunk = Chunk(np.zeros((1, 4)), {0: "No such file or directory"}, [])
    on_ray.check_seen(LocalFolder(collection.photos), ["car 1499.jpg", "car 1.jpg"], chunk)
    with pytest.raises(
        CommandError, match=r"a node of the cluster can't open .*car 1\.jpg \(No such file or directory\)"
    ):
        on_ray.check_seen(LocalFolder(collection.photos), ["car 1.jpg", "car 2.jpg"], chunk)


@pytest.fixture
def storage(collection):
    with storages.serving(collection.photos.parent) as serving:
        yield serving


def test_photos_in_storage_come_to_the_same_artifact(collection, whole, storage, ray_address, tmp_path):
    collection.embed(tmp_path / "out", f"--ray={ray_address}", f"--photos={storage.url}/photos")
    assert contents(tmp_path / "out") == whole
    assert len(storage.opened) >= COUNT - len(BROKEN)


def test_a_connection_of_a_node_that_fails_ends_the_command_which_goes_on_from_there(
    collection, whole, storage, ray_address, tmp_path
):
    flags = f"--ray={ray_address}", f"--photos={storage.url}/photos"
    late = re.compile(r"/car (6[5-9]\d|[7-9]\d\d|\d{4})\.jpg$")
    storage.refuse = lambda _, path: storages.CUT if late.search(path) else None
    host = re.escape(socket.gethostname())
    with pytest.raises(CommandError, match=rf"^on {host}, a node of the cluster: .*can't be fetched") as caught:
        collection.embed(tmp_path / "out", *flags)
    assert "hidden" not in str(caught.value)
    assert chunks_done(tmp_path / "out") <= 10
    del storage.refuse
    collection.embed(tmp_path / "out", *flags)
    assert contents(tmp_path / "out") == whole


def test_a_photo_that_only_a_node_can_not_find_in_storage_is_not_left_out(storage):
    chunk = Chunk(np.zeros((1, 4)), {0: "No such file or directory"}, [])
    folder = photo_folder.at(f"{storage.url}/photos")
    on_ray.check_seen(folder, ["car 1499.jpg", "car 1.jpg"], chunk)
    with pytest.raises(CommandError, match=rf"can't open {storage.shown}/photos/car 1\.jpg .* the same path or URL"):
        on_ray.check_seen(folder, ["car 1.jpg", "car 2.jpg"], chunk)


def test_nodes_that_do_not_come_to_the_same_bits_are_told(capsys):
    pool = on_ray.Pool(None, [])
    pool.welcome("one", "a")
    pool.welcome("another", "a")
    assert capsys.readouterr().err == ""
    pool.welcome("a third", "b")
    assert "do not embed a photo to the same bits" in capsys.readouterr().err


def test_no_room_is_told_at_once():
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])
    assert on_ray._room(ray, on_ray.Share()) == 1
    with pytest.raises(CommandError, match=r"no node of the cluster has 2 CPUs: lower --actor-cpus"):
        on_ray._room(ray, on_ray.Share(cpus=2))
    with pytest.raises(CommandError, match=r"no node of the cluster has 1 CPUs and 0\.5 GPUs"):
        on_ray._room(ray, on_ray.Share(gpus=0.5))


def test_actors_have_room_where_a_whole_one_fits():
    nodes = [{"Alive": True, "Resources": {"CPU": 7.0, "GPU": 1.0}}, {"Alive": True, "Resources": {"CPU": 3.0}}]
    nodes.append({"Alive": False, "Resources": {"CPU": 100.0}})
    assert ray_cluster.room(nodes, {"CPU": 2, "GPU": 0}) == 4
    assert ray_cluster.room(nodes, {"CPU": 1, "GPU": 0.25}) == 4
    assert ray_cluster.room(nodes, {"CPU": 8, "GPU": 0}) == 0


def test_a_cluster_that_is_not_there_is_told_at_once(collection, tmp_path):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(CommandError, match=f"there is no Ray cluster at {address}: Connection refused"):
        collection.embed(tmp_path / "out", f"--ray={address}")
    with pytest.raises(CommandError, match=r"--ray must be HOST:PORT of .* got head"):
        collection.embed(tmp_path / "out", "--ray=head")


def test_without_ray_the_extra_is_named(collection, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CommandError, match=r"ray is not installed: .*\[ray\]"):
        collection.embed(tmp_path / "out", "--ray=127.0.0.1:1")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--ray=a:1", "--threads=1"], "--threads is for this machine, not for --ray"),
        (["--ray=a:1", "--device=cpu"], "--device is for this machine"),
        (["--actors=2"], "--actors is for --ray"),
        (["--actor-gpus=0.5"], "--actor-gpus is for --ray"),
    ],
)
def test_flags_of_the_other_way_are_refused(collection, tmp_path, flags, said):
    with pytest.raises(CommandError, match=said):
        collection.embed(tmp_path / "out", *flags)


@pytest.mark.parametrize("share", ["0", "1.5", "-1", "half", "nan"])
def test_shares_of_a_gpu(collection, tmp_path, share, capsys):
    with pytest.raises(SystemExit):
        collection.embed(tmp_path / "out", f"--actor-gpus={share}")
    assert "must be a part of a GPU" in capsys.readouterr().err
