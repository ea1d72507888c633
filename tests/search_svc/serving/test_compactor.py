"""What a server does about versions by itself, without the server."""

import asyncio
import errno

import numpy as np
import pytest

from search_svc.building.build import IndexSpec
from search_svc.index.journal import Journal
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add
from search_svc.serving import compactor
from search_svc.serving.compactor import Compactor
from svckit.errors import Reason, ServiceError
from tests.search_svc.journals import D, DictBase, stored, written

TIMEOUT_S = 30


@pytest.fixture
def index(build_index, tmp_path, monkeypatch):
    """One that much was written to."""
    monkeypatch.setattr(compactor, "_LOOK_S", 0.01)
    monkeypatch.setattr(compactor, "_RETIRE_S", 0.0)
    vectors = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    build_index(vectors, directory=tmp_path / "index", spec=IndexSpec())
    written(tmp_path / "index", Add({"new": stored(), "newer": stored()}), base=DictBase())
    return tmp_path / "index"


@pytest.fixture
async def watching(index):
    """A compactor of it that has begun to look."""
    served = IndexVersion.open(index).manifest
    with Journal.open(index) as journal:
        watching = Compactor(index, journal, lambda: served, keep_versions=1, compact_at=2)
        watching.start()
        yield watching
        await watching.close()


async def until(condition):
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.005)


async def looks(index, count):
    """Lets the compactor look after the versions so many times: each look removes an old one."""
    for _ in range(count):
        (index / "versions" / "000000").mkdir()
        await until(lambda: not (index / "versions" / "000000").exists())


class Started:
    """Counts the processes that would be started; each does not come to be."""

    def __init__(self, monkeypatch, error):
        self.count = 0
        self._error = error
        monkeypatch.setattr(compactor.asyncio, "create_subprocess_exec", self._start)

    async def _start(self, *_, **__):
        self.count += 1
        raise self._error

    async def times(self, count):
        await until(lambda: self.count >= count)


NO_MEMORY = OSError(errno.ENOMEM, "Cannot allocate memory")


async def test_a_process_that_cannot_be_started_is_tried_again_later(monkeypatch, watching, caplog):
    watching._pause_s = 0.05
    started = Started(monkeypatch, NO_MEMORY)
    await started.times(3)
    assert "compacts again later" in caplog.messages
    with pytest.raises(ServiceError, match=r"no process could be started.*Cannot allocate memory") as caught:
        await watching.compact()
    assert caught.value.reason is Reason.COMPACTION_FAILED


async def test_every_compaction_that_fails_is_told_and_one_that_finds_another_build_is_not(monkeypatch, watching):
    failures = []
    watching._on_failure = lambda: failures.append(1)
    Started(monkeypatch, NO_MEMORY)
    with pytest.raises(ServiceError):
        await watching.compact()
    assert failures
    failures.clear()
    Started(monkeypatch, ServiceError(Reason.COMPACTION_RUNNING, "another builds"))
    with pytest.raises(ServiceError):
        await watching.compact()
    assert failures == []


async def test_while_it_is_not_tried_again_old_versions_go_all_the_same(index, monkeypatch, watching):
    watching._pause_s = 3600.0
    started = Started(monkeypatch, NO_MEMORY)
    await started.times(1)
    await looks(index, 2)
    assert started.count == 1


async def test_whatever_goes_wrong_it_looks_again(monkeypatch, watching, caplog):
    monkeypatch.setattr(watching, "_much_was_written", lambda: 1 / 0)
    await until(lambda: caplog.messages.count("cannot look after the versions") > 1)


async def test_no_process_after_process_is_started_while_another_builds(index, monkeypatch, watching):
    monkeypatch.setattr(compactor, "_BUILD_RUNNING_PAUSE_S", 3600.0)
    started = Started(monkeypatch, ServiceError(Reason.COMPACTION_RUNNING, "another builds"))
    await started.times(1)
    await looks(index, 5)
    assert started.count == 1
