"""Replicas answer, without a cluster, as the shards of a local engine do: it is Ray alone that is missing."""

import numpy as np
import pytest

from search_svc.building.spec import IndexSpec
from search_svc.engine.asking import Question
from search_svc.engine.cluster.replica import Replica, WireQuestion, inline
from search_svc.engine.cluster.source import VersionSource
from search_svc.engine.merge import merge
from search_svc.index.version import SearchParams

D, ROWS = 6, 40
GALLERY = np.random.default_rng(0).standard_normal((ROWS, D)).astype(np.float32)


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    return build_index(GALLERY, directory=tmp_path_factory.mktemp("index"), spec=IndexSpec(shards=2))


@pytest.fixture(scope="module")
def replicas(version, tmp_path_factory):
    source = VersionSource.of(version, str(version.path.parents[1]), str(tmp_path_factory.mktemp("cache")))
    return [Replica(source, number) for number in range(2)]


@pytest.mark.parametrize("count", [0, 1, 5000, 20_000])
def test_queries_travel_in_parts_that_go_with_the_call_and_are_put_together_again(count):
    queries = np.arange(count * D, dtype=np.float32).reshape(count, D)
    parts = inline(queries)
    assert max(part.nbytes for part in parts) < 100_000
    np.testing.assert_array_equal(np.concatenate(parts), queries)


@pytest.mark.parametrize("params", [SearchParams(), None], ids=["searched", "compared"])
def test_no_queries_are_answered_by_no_hits_as_by_a_local_engine(replicas, version, params, open_shards):
    queries = np.empty((0, D), np.float32)
    found = [
        replica.answer(WireQuestion.of(Question(queries, 5, params).of(shard.rows)), *inline(queries))
        for replica, shard in zip(replicas, version.manifest.shards, strict=True)
    ]
    with open_shards(GALLERY, shards=2) as engine:
        expected = engine.search(queries, 5, exact=params is None).hits
    merged = merge(found, 5)
    np.testing.assert_array_equal(merged.ids, expected.ids)
    np.testing.assert_array_equal(merged.scores, expected.scores)
    assert replicas[0].rescore(merged.ids, *inline(queries)).shape == (0, 5)
