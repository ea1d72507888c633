"""Disks that are full, read-only, torn or have lost a file, under real servers: what is said, what goes on, what comes back.

Every gallery is compared, item by item, with what was acknowledged. A full disk is a small one of its own, which takes root.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from vmmr import wire
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.building.build import IndexSpec
from search_svc.index import index_dir
from search_svc.index.index_dir import new_version, version_names
from search_svc.index.repair import repair
from search_svc.index.retention import roll_back

D = 16
MODEL = "c0ffee" + 58 * "0"
TIMEOUT_S = 30
BASE = [f"photo {row}.jpg" for row in range(60)]
takes_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk takes root")


def unit(rows, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Client:
    """What a server's callers do; a query asks for all that was acknowledged to this client."""

    def __init__(self, channel):
        self.gallery = gallery_pb2_grpc.GalleryServiceStub(channel)
        self.search = search_pb2_grpc.SearchServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)
        self.acknowledged = 0

    def add(self, names, seed=1, uri=""):
        items = [gallery_pb2.Item(item_id=name, label="lada_niva_1999", uri=uri) for name in names]
        request = gallery_pb2.AddItemsRequest(items=items, embeddings=wire.pack(MODEL, unit(len(items), seed)))
        done = self.gallery.AddItems(request, timeout=TIMEOUT_S)
        self.acknowledged = max(self.acknowledged, done.journal_sequence)
        return done

    def names(self, label=""):
        found, token = [], None
        wanted = search_pb2.Filter(labels=[label]) if label else None
        while token != "":
            page = self.gallery.ListItems(
                gallery_pb2.ListItemsRequest(page_size=1000, page_token=token or "", filter=wanted), timeout=TIMEOUT_S
            )
            found += [item.item_id for item in page.items]
            token = page.next_page_token
        return found

    def nearest(self, vector):
        request = search_pb2.SearchRequest(
            queries=wire.pack(MODEL, vector[None]),
            options=search_pb2.SearchOptions(k=1, min_sequence=self.acknowledged),
        )
        return self.search.Search(request, timeout=TIMEOUT_S).results[0].neighbours[0].item_id

    def lost(self):
        """Entries that are lost by GetIndex, and what health says of it."""
        request = health_pb2.HealthCheckRequest(service="vmmr.gallery.v1.GalleryService/whole")
        status = self.health.Check(request, timeout=TIMEOUT_S).status
        index = self.search.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S).index
        return index.lost_entries, health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    def index(self):
        return self.search.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S).index

    def compact(self):
        return self.gallery.Compact(gallery_pb2.CompactRequest(), timeout=TIMEOUT_S)


@contextlib.contextmanager
def refused(reason):
    """Yields the exception, once it is there."""
    with pytest.raises(grpc.RpcError) as caught:
        yield caught
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
    assert info.reason == reason, caught.value


@pytest.fixture(scope="module")
def built(build_index, tmp_path_factory):
    made = build_index(unit(60, seed=0), directory=tmp_path_factory.mktemp("built"), spec=IndexSpec(shards=2))
    return made.path.parents[1]


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.fixture
def serve(spawn, connect):
    def start(index, *flags):
        process = spawn("--index", index, *flags)
        return process, Client(connect(process.ready()["port"]))

    return start


def kill(process):
    process.popen.kill()
    process.wait()


@pytest.fixture
def mount():
    """`mount` with arguments; unmounted when the test ends."""
    with contextlib.ExitStack() as stack:

        def do(*arguments):
            done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount here: {done.stderr.strip()}")
            if not any("remount" in str(each) for each in arguments):
                stack.callback(subprocess.run, ["umount", "-l", str(arguments[-1])], check=False)

        yield do


class Disk:
    """A small one, of which a part is a file that can be taken away."""

    def __init__(self, path, mount, kib):
        path.mkdir()
        mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", path)
        self.path = path
        self._ballast = path / "ballast"

    def fill(self):
        """To the last byte."""
        with self._ballast.open("ab") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))

    def make_room(self):
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path, mount):
    return Disk(tmp_path / "disk", mount, 4000)


@takes_root
class TestFull:
    def test_of_concurrent_callers_each_is_told_the_truth(self, index, serve, disk):
        process, client = serve(shutil.copytree(index, disk.path / "index"), "--compact-at", "0")
        acknowledged, refusals = set(BASE), []

        def write(caller):
            with contextlib.suppress(grpc.RpcError):
                for number in range(10_000):
                    names = [f"{caller} {number} {part}" for part in range(5)]
                    try:
                        client.add(names, seed=number, uri=500 * "u")
                    except grpc.RpcError as error:
                        refusals.append(error)
                        raise
                    acknowledged.update(names)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(6)))
        assert [error.code() for error in refusals] == 6 * [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert len(acknowledged) > len(BASE)
        assert set(client.names()) == acknowledged
        kill(process)
        subprocess.run(["mount", "-o", "remount,size=8000k", disk.path], check=True)
        _, client = serve(disk.path / "index", "--compact-at", "0")
        assert set(client.names()) == acknowledged
        assert client.add(["after"]).added == 1

    def test_a_server_that_starts_on_it_answers_from_all_that_was_acknowledged(self, index, serve, disk):
        process, client = serve(shutil.copytree(index, disk.path / "index"))
        client.add(["new"])
        kill(process)
        disk.fill()
        _, client = serve(disk.path / "index")
        assert client.nearest(unit(1)[0]) == "new"
        assert set(client.names()) == {*BASE, "new"}
        with refused("JOURNAL_FULL"):
            for number in range(100):
                client.add([f"{number} {part}" for part in range(100)], uri=500 * "u")
        disk.make_room()
        assert client.add(["after"]).added == 1

    def test_a_compaction_fails_with_the_reason_and_the_next_goes_through(self, index, serve, disk):
        _, client = serve(shutil.copytree(index, disk.path / "index"))
        client.add(["new"])
        disk.fill()
        with refused("COMPACTION_FAILED") as caught:
            client.compact()
        assert "No space left on device" in caught.value.details()
        assert client.nearest(unit(1)[0]) == "new"
        disk.make_room()
        assert client.compact().items == 61
        assert set(client.names()) == {*BASE, "new"}


@takes_root
class TestReadOnly:
    def test_a_disk_that_turns_read_only_is_read_and_written_again_when_it_can_be(self, index, serve, disk, mount):
        _, client = serve(shutil.copytree(index, disk.path / "index"))
        client.add(["new"])
        # A disk that fails refuses writes to files that are open too, which only a forced remount does here.
        done = subprocess.run(["mount", "-o", "remount,ro", disk.path], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            pytest.fail("files were open for writing: it cannot have been remounted")
        subprocess.run(["chattr", "-R", "+i", disk.path / "index"], check=False)


@takes_root
def test_a_folder_that_turns_read_only_is_read_and_written_again_once_it_can_be(index, serve, mount):
    mount("--bind", index, index)
    process, client = serve(index)
    mount("-o", "remount,ro,bind", index)
    nearest = client.nearest(unit(1)[0])
    for _ in range(2):
        with refused("JOURNAL_UNWRITABLE") as caught:
            client.add(["new"])
    said = process.first("the journal cannot be written")
    assert (said["level"], said["reason"]) == ("ERROR", "JOURNAL_UNWRITABLE")
    assert "journal.db cannot be written" in caught.value.details()
    assert (client.nearest(unit(1)[0]), client.names()) == (nearest, sorted(BASE))
    mount("-o", "remount,rw,bind", index)
    assert client.add(["new"]).added == 1
    assert client.nearest(unit(1)[0]) == "new"
    process.first("the journal is written again")
    assert len(process.logged("the journal cannot be written")) == 1


@pytest.fixture
def of_image(tmp_path, mount):
    """`of_image(INDEX)`: an index as a container sees one that its image has: nothing is written into the image."""

    def start(index):
        layers = [tmp_path / name for name in ("container", "work", "seen")]
        for layer in layers:
            layer.mkdir()
        upper, work, seen = layers
        # Docker's own; some kernels can rename an image's folders, if they are told to.
        options = f"lowerdir={index},upperdir={upper},workdir={work},redirect_dir=nofollow"
        mount("-t", "overlay", "overlay", "-o", options, seen)
        return seen

    return start


@takes_root
class TestInAContainersImage:
    def test_what_is_written_is_compacted_again_and_again_and_old_versions_go(self, index, serve, of_image):
        seen = of_image(index)
        process, client = serve(seen, "--keep-versions", "2")
        for number in range(4):
            client.add([f"new {number}"], seed=number)
            client.compact()
        kill(process)
        assert version_names(seen) == ["000004", "000005"]
        assert version_names(index) == ["000001"]
        _, client = serve(seen)
        assert set(client.names()) == {*BASE, *(f"new {number}" for number in range(4))}

    @pytest.mark.parametrize("last_step", ["publish", "make_current"])
    def test_a_version_that_the_image_began_is_ended(self, tmp_path, of_image, monkeypatch, last_step):
        image = tmp_path / "image"
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(index_dir, last_step, Mock(side_effect=KeyboardInterrupt))
            with new_version(image, {"job": "one"}) as draft:
                (draft.files / "shard").write_text("begun")
        seen = of_image(image)
        with new_version(seen, {"job": "one"}) as draft:
            assert (draft.files / "shard").read_text() == "begun"
        assert [path.name for path in (seen / "versions").iterdir()] == ["000001"]
        assert (seen / "versions/000001/shard").read_text() == "begun"
        assert index_dir.current(seen) == "000001"


@pytest.fixture(scope="module")
def left(built, tmp_path_factory, module_spawn, module_connect):
    """A journal whose server was killed as it had acknowledged 40 writes of three items each, all in its log."""
    index = shutil.copytree(built, tmp_path_factory.mktemp("left") / "index")
    process = module_spawn("--index", index)
    client = Client(module_connect(process.ready()["port"]))
    for number in range(40):
        client.add([f"{number} {part}" for part in range(3)], seed=number)
    kill(process)
    return index


@pytest.fixture
def killed(left, tmp_path):
    return shutil.copytree(left, tmp_path / "killed")


WRITTEN = [f"{number} {part}" for number in range(40) for part in range(3)]


class TestTornPage:
    @pytest.mark.parametrize("seed", range(3))
    def test_of_a_write_that_was_not_acknowledged_costs_nothing_and_needs_no_hand(self, killed, serve, seed):
        """The frames of a write whose last did not reach the disk, or in parts: what was in that place before, or noise."""
        log, rng = killed / "journal.db-wal", random.Random(seed)
        whole = log.read_bytes()
        torn = whole[32:][: rng.randrange(1, 20_000)]
        log.write_bytes(whole + (rng.randbytes(len(torn)) if seed else torn))
        _, client = serve(killed)
        assert set(client.names()) == {*BASE, *WRITTEN}
        assert client.add(["after"]).added == 1
        assert client.nearest(unit(1, seed=7)[0]) == "7 0"

    @pytest.mark.parametrize("seed", range(3))
    def test_of_the_last_write_is_refused_and_accepted_costs_that_write_as_a_whole_and_no_other(
        self, killed, serve, spawn, seed
    ):
        """A disk that said it had written, and had not: no program can mend that, and nothing half may be served."""
        log, rng = killed / "journal.db-wal", random.Random(seed)
        whole = log.read_bytes()
        with log.open("r+b") as file:
            if seed:
                file.seek(len(whole) - rng.randrange(1, 4000))
                file.write(rng.randbytes(16)[: len(whole) - file.tell()])
            else:
                file.truncate(len(whole) - rng.randrange(1, 4000))
        failed = spawn("--index", killed)
        said = f"{killed}/journal.db: ends with entry 117, and entries up to 120 were acknowledged"
        assert said in failed.fatal()
        process, client = serve(killed, "--accept-loss")
        assert set(client.names()) == {*BASE, *WRITTEN[:-3]}
        assert client.lost() == (3, "NOT_SERVING")
        assert client.add(["after"]).journal_sequence == 121
        assert client.nearest(unit(1, seed=7)[0]) == "7 0"
        kill(process)
        assert [kept.read_bytes()[:4000] for kept in killed.glob("journal.db-wal.damaged-*")] == [whole[:4000]]
        _, client = serve(killed)
        assert set(client.names()) == {*BASE, *WRITTEN[:-3], "after"}
        assert client.lost() == (3, "NOT_SERVING")

    def test_of_the_end_of_the_journal_repaired_is_compacted_by_a_server_that_begins_by_itself(self, killed, serve):
        log = killed / "journal.db-wal"
        log.write_bytes(log.read_bytes()[:-4000])
        assert repair(killed).lost[-1] == 120
        process, client = serve(killed, "--compact-at", "100", "--keep-versions", "1")
        kept = set(client.names())
        process.first("compacted")
        listed = client.gallery.ListVersions(gallery_pb2.ListVersionsRequest(), timeout=TIMEOUT_S)
        assert (listed.journal_sequence, listed.journal_depth) == (120, 0)
        assert set(client.names()) == kept

    def test_of_the_end_of_the_journal_repaired_is_compacted_and_listed_by_label(self, killed, serve):
        log = killed / "journal.db-wal"
        log.write_bytes(log.read_bytes()[:-4000])
        saved = repair(killed)
        assert saved.lost[-1] == 120
        _, client = serve(killed)
        kept = set(client.names())
        assert {*BASE, *WRITTEN[:-3]} <= kept
        assert set(client.names(label="lada_niva_1999")) == kept - {*BASE}
        assert client.compact().journal_sequence == 120
        assert set(client.names()) == kept


def flip(index, item_id, uri):
    """Change an entry of the journal as a disk does: by itself."""
    with contextlib.closing(sqlite3.connect(index / "journal.db")) as journal, journal:
        journal.execute("UPDATE entries SET uri = ? WHERE item_id = ?", [uri, item_id])


class TestDamageUnderAServer:
    @pytest.fixture
    def damaged(self, index, serve):
        process, client = serve(index)
        client.add(["new", "newer"])
        assert client.nearest(unit(2)[1]) == "newer"
        flip(index, "new", "flipped")
        assert client.index().problem == "", "nobody has read it since"
        return process, client

    def told(self, process, client):
        said = f"{process.first('the journal is damaged')['reason']}"
        assert "entry 1 is not what was written" in said
        assert client.index().problem == f"the journal is damaged: {said}"
        address = f"http://127.0.0.1:{process.ready()['metrics_port']}/metrics"
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as metrics:
            assert "\nvmmr_index_problem 1.0\n" in metrics.read().decode()
        return True

    def test_that_a_call_has_met_is_told_to_the_operator(self, damaged):
        process, client = damaged
        with refused("GALLERY_DAMAGED"):
            client.names()
        assert self.told(process, client)

    def test_that_a_compaction_has_met_is_told_to_the_operator(self, damaged):
        process, client = damaged
        with refused("COMPACTION_FAILED"):
            client.compact()
        assert self.told(process, client)

    def test_that_a_write_has_met_is_told_to_the_operator(self, damaged):
        process, client = damaged
        with refused("GALLERY_DAMAGED"):
            client.add(["new"], seed=3)
        assert self.told(process, client)


def test_at_a_clean_stop_nothing_is_left_in_the_log(index, serve):
    process, client = serve(index)
    client.add(["new"])
    assert (index / "journal.db-wal").stat().st_size
    process.popen.terminate()
    assert process.wait() == 0
    log = index / "journal.db-wal"
    assert not log.exists() or not log.stat().st_size


class TestLostShard:
    @pytest.fixture
    def compacted(self, index, serve):
        """Two versions, and a write that only the journal holds."""
        process, client = serve(index)
        client.add(["new"])
        assert client.compact().index_version == "000002"
        client.add(["newer"], seed=2)
        return process, client

    def test_while_serving_stops_the_next_version_alone_until_a_rollback(self, index, compacted):
        _, client = compacted
        lost = index / "versions/000002/shard-001.faiss"
        lost.unlink()
        assert [client.nearest(unit(1, seed)[0]) for seed in (1, 2)] == ["new", "newer"]
        client.add(["newest"], seed=3)
        with refused("COMPACTION_FAILED") as caught:
            client.compact()
        assert f"{lost}: is missing" in caught.value.details()
        assert roll_back(index) == "000001"
        assert client.compact().items == 63
        assert [client.nearest(unit(1, seed)[0]) for seed in (1, 2, 3)] == ["new", "newer", "newest"]

    def test_at_start_is_named_and_a_rollback_serves_all_that_was_acknowledged(self, index, compacted, serve, spawn):
        kill(compacted[0])
        (index / "versions/000002/shard-001.faiss").unlink()
        failed = spawn("--index", index)
        assert f"{index}/versions/000002/shard-001.faiss: " in failed.fatal()
        assert roll_back(index) == "000001"
        _, client = serve(index)
        assert set(client.names()) == {*BASE, "new", "newer"}
        assert [client.nearest(unit(1, seed)[0]) for seed in (1, 2)] == ["new", "newer"]
