"""Shards on a Ray cluster of two nodes answer as one index in this process does, to the bit, whatever happens to replicas."""

import fcntl
import os
import shutil
import signal
import threading
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search_svc.building.compaction import compact
from search_svc.building.spec import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.index.index_dir import current
from search_svc.index.journal import Journal
from search_svc.index.version import SearchParams
from search_svc.live.following import Follower, Replay
from search_svc.live.opening import Opener
from search_svc.serving.config import SearchConfig
from svckit.cli import CommandError
from svckit.config import ConfigError
from svckit.errors import Reason, ServiceError
from tests.conftest import TIMEOUT_S
from tests.search_svc import live_index

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore::Warning:ray")]

D, ROWS = 6, 90
# Small whole numbers, so that scores tie everywhere.
GALLERY = np.random.default_rng(0).integers(-2, 3, (ROWS, D)).astype(np.float32)
questions = arrays.arrays(np.float32, st.tuples(st.integers(0, 70), st.just(D)), elements=st.integers(-2, 2))


@pytest.fixture(scope="module")
def connection(ray_address):
    from search_svc.engine.cluster.connection import Connection

    connection = Connection(ray_address, replicas=2)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def open_engine(connection, tmp_path_factory):
    from search_svc.engine.cluster.ray_engine import RayEngine

    def open_engine(version):
        storage, cache = str(version.path.parents[1]), str(tmp_path_factory.mktemp("cache"))
        return RayEngine.open(version, connection, storage=storage, cache=cache)

    return open_engine


@pytest.fixture(scope="module")
def versions(build_index, tmp_path_factory):
    """Flat, whose shards are every other row, and compressed, by inner product and by distance."""
    specs = {
        "Flat": IndexSpec("Flat", shards=2),
        "IVF4,SQ4": IndexSpec("IVF4,SQ4", metric="l2", shards=3, train_sample=ROWS, nprobe=2, rerank=2),
    }
    return {
        name: build_index(GALLERY, directory=tmp_path_factory.mktemp("index"), spec=spec)
        for name, spec in specs.items()
    }


@pytest.fixture(scope="module")
def engines(versions, open_engine):
    """Name -> (on the cluster, in this process)."""
    opened = {name: (open_engine(version), LocalEngine.open(version)) for name, version in versions.items()}
    yield opened
    for pair in opened.values():
        for engine in pair:
            engine.close()


@pytest.fixture
def flat(engines, until, connection):
    """The Flat engine on the cluster, all of whose replicas are up, now and when the test ends."""
    engine, _ = engines["Flat"]
    until(lambda: connection.table(engine._key).settled)
    yield engine
    until(lambda: connection.table(engine._key).settled)


def check_same(found, expected):
    assert found.shards == expected.shards
    np.testing.assert_array_equal(found.hits.ids, expected.hits.ids)
    np.testing.assert_array_equal(found.hits.scores.view(np.int32), expected.hits.scores.view(np.int32))


def check_answers(pair, queries=GALLERY[:7] + 0.3):
    check_same(*(engine.search(queries, 12) for engine in pair))


def replicas(connection, engine, shard):
    return connection.table(engine._key).shards[shard]


def process_of(replica):
    """Return the id of the process that a replica is, or None while there is none."""
    import ray

    with suppress(ray.exceptions.ActorUnavailableError):
        return ray.get(replica.actor.__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.parametrize("name", ["Flat", "IVF4,SQ4"])
def test_replicas_answer_as_the_shards_of_this_process_do(engines, name):
    on_cluster, here = engines[name]

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(questions, st.integers(1, 100), st.booleans(), st.none() | st.integers(1, 5), st.data())
    def check(queries, k, exact, rerank, data):
        rows = data.draw(st.none() | arrays.arrays(np.bool_, ROWS))
        without = np.flatnonzero(data.draw(arrays.arrays(np.bool_, ROWS)))
        how = {"params": SearchParams(nprobe=3, rerank=rerank), "rows": rows, "without": without, "exact": exact}
        if name == "Flat":
            how["params"] = SearchParams(rerank=rerank)
        check_same(on_cluster.search(queries, k, **how), here.search(queries, k, **how))

    check()
    check_answers(engines[name])
    assert (on_cluster.shards, on_cluster.tunable) == (here.shards, here.tunable)
    assert on_cluster.batching, "one way there and back is for all of them"


def test_no_node_has_two_replicas_of_a_shard(flat, connection):
    for shard in range(flat.shards):
        assert len({replica.node for replica in replicas(connection, flat, shard)}) == 2


def test_a_killed_replica_fails_no_search_and_comes_back_on_its_node(engines, flat, connection, until):
    victim = replicas(connection, flat, 0)[0]
    process = process_of(victim)
    os.kill(process, signal.SIGKILL)
    for _ in range(30):
        check_answers(engines["Flat"])
    until(lambda: process_of(victim) not in {None, process})
    assert {victim.name} < {replica.name for replica in replicas(connection, flat, 0)}
    check_answers(engines["Flat"])


def test_a_replica_that_hangs_delays_a_search_until_the_other_is_asked(engines, flat, connection, until):
    def late(name):
        return name in flat._racer._abandoned.values()

    victim = replicas(connection, flat, 1)[0]

    def searched_with_nobody_late():
        check_answers(engines["Flat"])
        return not flat.abandoned

    # A replica that is late with an earlier answer is not asked while the other is there: stopped, it would delay nothing.
    until(searched_with_nobody_late)
    asked_again, process = flat.hedged, process_of(victim)
    os.kill(process, signal.SIGSTOP)
    try:
        until(lambda: check_answers(engines["Flat"]) or late(victim.name))
        assert flat.hedged > asked_again
        for _ in range(20):
            check_answers(engines["Flat"])
    finally:
        os.kill(process, signal.SIGCONT)
    check_answers(engines["Flat"])


@pytest.fixture
def only_the_second_shard_is_late(flat, monkeypatch):
    """The time of a search begins to pass when the first shard has answered."""
    ask = flat._racer.ask

    def answered(send, replica):
        answer = send(replica)
        answer.future().result(TIMEOUT_S)
        return answer

    def asked(sends, *how):
        return ask({0: partial(answered, sends[0]), 1: sends[1]}, *how)

    monkeypatch.setattr(flat._racer, "ask", asked)


@pytest.mark.usefixtures("only_the_second_shard_is_late")
def test_a_shard_without_replicas_refuses_or_is_left_out_as_asked_until_one_is_back(engines, flat, connection, until):
    stopped = [process_of(replica) for replica in replicas(connection, flat, 1)]
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    queries = GALLERY[:3]
    try:
        with pytest.raises(ServiceError, match=r"not answered in time by shard-001\.faiss") as caught:
            flat.search(queries, 5, timeout_s=0.3)
        assert (caught.value.reason, caught.value.metadata) == (Reason.SHARD_TIMEOUT, {"shards": "shard-001.faiss"})
        found = flat.search(queries, 5, timeout_s=0.3, allow_partial=True)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGKILL)
    assert found.shards == 1
    assert not (found.hits.ids % 2).any()
    _, here = engines["Flat"]
    exact = here.search(queries, 5, rows=np.arange(ROWS) % 2 == 0).hits
    np.testing.assert_array_equal(found.hits.ids, exact.ids)

    def answers():
        with suppress(ServiceError):
            return flat.search(queries, 5, timeout_s=TIMEOUT_S)

    check_same(until(answers), here.search(queries, 5))


def test_searches_of_an_engine_that_is_closed_end(versions, open_engine, engines):
    engine = open_engine(versions["Flat"])
    engine.interrupt()
    with pytest.raises(ServiceError) as caught:
        engine.search(GALLERY[:1], 3)
    assert caught.value.reason == Reason.SHUTTING_DOWN
    engine.close()
    check_answers(engines["Flat"])


def test_front_ends_share_replicas_which_go_with_the_last_of_them(
    open_engine, build_index, tmp_path, until, connection
):
    import ray

    from search_svc.engine.cluster.scale import Scale
    from search_svc.engine.cluster.source import VersionSource

    def names():
        return {name for name in ray.util.list_named_actors() if name.startswith(source.key)}

    version = build_index(GALLERY + 1, directory=tmp_path / "index")
    source = VersionSource.of(version, str(tmp_path / "index"), str(tmp_path))
    engine = open_engine(version)
    before, keeper = names(), ray.get_actor("keeper")
    ray.get(keeper.renew.remote("another front end", {source.key: source}, Scale(1)))
    engine.close()
    ray.get(keeper.renew.remote("another front end", {source.key: source}, Scale(1)))
    assert names() == before
    assert len(before) == 2, "the first front end said how many"
    ray.get(keeper.renew.remote("another front end", {}, Scale(1)))
    until(lambda: not names())


def test_a_damaged_shard_is_named_to_who_opens_it(open_engine, build_index, tmp_path, monkeypatch):
    from search_svc.engine.cluster import connection

    monkeypatch.setattr(connection, "_NO_PLACE_S", 0.5)
    version = build_index(GALLERY + 2, directory=tmp_path / "index")
    damaged = bytearray(version.shard_paths[0].read_bytes())
    damaged[-1] ^= 1
    version.shard_paths[0].write_bytes(damaged)
    with pytest.raises(CommandError, match=r"open version 000001-\w+: node .+ \(\w+\): .*shard-000\.faiss: sha256 is"):
        open_engine(version)


def test_a_replica_that_hangs_while_it_opens_is_told_and_comes_up_when_its_storage_answers(
    connection, build_index, tmp_path, until
):
    import ray

    from search_svc.engine.cluster import keeper as keepers
    from search_svc.engine.cluster.scale import Scale
    from search_svc.engine.cluster.source import VersionSource

    version = build_index(GALLERY + 3, directory=tmp_path / "index")
    source = VersionSource.of(version, "memory://index", str(tmp_path / "cache"))
    copies = tmp_path / "cache" / f"copies-{os.getuid()}"
    copies.mkdir(0o700, parents=True)
    for name, digest in source.sha256.items():
        shutil.copyfile(version.path / name, copies / digest)
    keeper = ray.get_actor("keeper")

    def table(sources=((source.key, source),)):
        _, tables = ray.get(keeper.renew.remote("waiting", dict(sources), Scale(2)))
        return tables.get(source.key)

    def give_up_after(seconds):
        def set_bound(_):
            from search_svc.engine.cluster import keeper as its_keepers

            its_keepers._OPENING_S = seconds

        ray.get(keeper.__ray_call__.remote(set_bound))

    with (copies / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        until(table)
        give_up_after(0.0)
        until(lambda: "shard-000.faiss is not open after" in table().problem)
        give_up_after(keepers._OPENING_S)
    until(lambda: table().settled)
    table(sources=())


class Following:
    """The gallery of an index that is followed, by an engine."""

    def __init__(self, path, open_engine):
        self.opener, self.journal = Opener(path, open_engine, max_k=100), Journal.open(path)
        replay = Replay(self.opener.current(), self.journal)
        replay.finish()
        self.follower = Follower(path, self.journal, replay, self.opener.current)
        self.follower.start()

    @property
    def view(self):
        return self.follower.gallery.view

    def search(self, queries):
        view = self.view
        how = {"params": view.manifest.search, "labels": None, "exact": False, "timeout_s": None}
        found = view.search(queries, 9, **how, allow_partial=False)
        return view.manifest.version, view.sequence, found

    def stop(self):
        self.follower.stop()
        self.opener.close()
        self.journal.close()


def test_writes_and_a_version_switch_are_followed_as_by_an_engine_in_this_process(open_engine, tmp_path, until):
    path, queries = tmp_path / "index", live_index.unit(3, seed=5)
    live_index.build(path, IndexSpec("Flat", shards=2), live_index.unit(40, seed=0))
    index = live_index.Index(path)
    index.add(new=("misc", queries[0]))
    both = [Following(path, open_engine), Following(path, LocalEngine.open)]
    failures, done = [], threading.Event()

    def ask():
        while not done.is_set():
            try:
                both[0].search(queries)
            except ServiceError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    try:
        asking.start()
        for write in (partial(index.add, more=("misc", queries[1])), partial(index.delete, "photo 3", "new")):
            sequence = write()
            until(lambda sequence=sequence: all(each.view.sequence == sequence for each in both))
            (*of, found), (*of_local, expected) = (each.search(queries) for each in both)
            assert of == of_local
            check_same(found, expected)
        compact(path)
        until(lambda: all(each.view.manifest.version == current(path) for each in both))
        (*of, found), (*of_local, expected) = (each.search(queries) for each in both)
        assert of == of_local
        assert of[0] == "000002"
        check_same(found, expected)
    finally:
        done.set()
        asking.join()
        for each in both:
            each.stop()
        index.writer.close()
    assert failures == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"engine": "ray"}, "--engine ray and --ray-address go together"),
        ({"ray_address": "localhost:1"}, "--engine ray and --ray-address go together"),
        ({"engine": "ray", "ray_address": "localhost:1", "device": "cuda"}, "--device must be cpu"),
        (
            {"engine": "ray", "ray_address": "ray://localhost:1"},
            "--ray-address must be HOST:PORT of the Ray cluster's GCS",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        SearchConfig(index=tmp_path, **settings)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:1"])
def test_where_no_cluster_is_says_so_at_once(address):
    from search_svc.engine.cluster.connection import connect

    with pytest.raises(CommandError, match=rf"--ray-address.* {address}"):
        connect(address)
