"""A backup answers as the index does, or the drill says that it does not."""

import shutil

import numpy as np
import pytest

from search_svc.building.compaction import compact
from search_svc.building.spec import IndexSpec
from search_svc.index.backup import back_up
from search_svc.index.retention import retire
from search_svc.live import drill as module
from search_svc.live.drill import drill
from search_svc.live.view import View
from svckit.cli import CommandError
from tests.search_svc.live_index import Index, build, unit


@pytest.fixture(
    scope="module", params=[IndexSpec(shards=2), IndexSpec("IVF4,SQ8", nprobe=2, rerank=2)], ids=["flat", "ivf"]
)
def built(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("index")
    build(path, request.param, unit(60))
    return path


@pytest.fixture
def index(built, tmp_path):
    path = shutil.copytree(built, tmp_path / "index")
    with_writes(path, 3, seed=2)
    return path


@pytest.fixture
def backups(index, tmp_path):
    back_up(index, str(tmp_path / "backups"))
    return str(tmp_path / "backups")


def with_writes(path, count, seed):
    index = Index(path)
    index.add(**{f"{seed} {row}": ("misc", vector) for row, vector in enumerate(unit(count, seed))})
    index.writer.close()


def test_a_backup_answers_as_its_index(index, backups):
    done = drill(backups, index)
    assert (done.queries, done.exact) == (32 + 3 + 32, False)


@pytest.mark.parametrize("with_id", [True, False])
def test_the_backups_of_another_index_are_told_as_that(index, backups, tmp_path, with_id):
    other = tmp_path / "other"
    build(other, IndexSpec(), unit(60, 5))
    if with_id:
        back_up(other, str(tmp_path / "its own"))
    mine = "[0-9a-f]{32}" if with_id else "one that has no id"
    said = f"^{backups} is of another index, [0-9a-f]{{32}}, and {other} is {mine}: name the index that it is of$"
    with pytest.raises(CommandError, match=said):
        drill(backups, other)


def test_also_after_more_was_written_and_compacted(index, backups):
    with_writes(index, 5, seed=3)
    assert drill(backups, index).backup.journal_sequence == 3
    compact(index)
    assert not drill(backups, index).exact, "the version of the backup is still there"


def test_searches_exactly_if_the_version_of_the_backup_is_gone(index, backups):
    compact(index)
    retire(index, 1)
    assert drill(backups, index).exact


def test_an_index_that_has_let_go_of_what_it_was_cannot_be_compared_with(index, backups):
    with_writes(index, 5, seed=3)
    compact(index)
    retire(index, 1)
    with pytest.raises(
        CommandError, match="holds writes after entry 3 in all its versions: back up, and try that backup"
    ):
        drill(backups, index)


def test_another_gallery_is_told(built, index, backups, tmp_path):
    other = shutil.copytree(built, tmp_path / "other")
    shutil.copy(index / "ID", other)
    with_writes(other, 3, seed=4)
    with pytest.raises(CommandError, match=r"of 67 queries are answered otherwise by the backup than by the index"):
        drill(backups, other)


def test_a_bit_of_a_score_is_told(index, backups, monkeypatch):
    def search(view, *args, **more):
        answered = found(view, *args, **more)
        if "backups" not in str(view.opened.version.path) and view.opened.version.path.parents[1] == index:
            answered.hits.scores[0, 0] = np.nextafter(answered.hits.scores[0, 0], np.float32(np.inf))
        return answered

    found = View.search
    monkeypatch.setattr(module.View, "search", search)
    with pytest.raises(CommandError, match=r"^1 of 67 queries"):
        drill(backups, index)
