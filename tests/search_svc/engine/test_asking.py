"""What a search says of shards that have not answered."""

import numpy as np
import pytest

from search_svc.engine.asking import Asked, MergingEngine
from search_svc.engine.merge import Hits
from search_svc.index.version import SearchParams
from svckit.errors import Reason, ServiceError

NONE = Hits(np.empty((1, 0), np.float32), np.empty((1, 0), np.int64))


class Engine(MergingEngine):
    closed = False

    def __init__(self, asked, rescored=None):
        self.defaults = SearchParams()
        self._asked, self._rescored = asked, rescored

    def _ask(self, question, timeout_s):
        return self._asked

    def _rescore(self, candidates, queries, timeout_s):
        return self._rescored


@pytest.mark.parametrize(
    ("late", "down", "says"),
    [
        (["a"], [], "not answered in time by a; allow_partial takes the answers of the other shards"),
        (["a"], ["a"], "no replica is up of a; allow_partial takes the answers of the other shards"),
        (["a", "b", "c"], ["a", "c"], "no replica is up of a, c; not answered in time by b; allow_partial takes"),
    ],
)
@pytest.mark.parametrize("reranked", [False, True])
def test_a_shard_that_nobody_could_be_asked_for_is_not_told_as_slow(late, down, says, reranked):
    answered, lacks = Asked([NONE], []), Asked([NONE], late, down)
    engine = Engine(answered, lacks) if reranked else Engine(lacks)
    with pytest.raises(ServiceError) as caught:
        engine.search(np.ones((1, 2), np.float32), 3, params=SearchParams(rerank=2 if reranked else None))
    assert str(caught.value).startswith(says.split("; allow_partial")[0])
    assert reranked or says in str(caught.value)
    assert (caught.value.reason, caught.value.metadata) == (Reason.SHARD_TIMEOUT, {"shards": ",".join(late)})
