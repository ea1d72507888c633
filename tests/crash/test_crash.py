"""The crash test, short: one kill of each kind, one start by the command. The long run is `python -m tests.crash --kills 200`."""

import re
import subprocess
import sys

import numpy as np
import pytest
from vmmr.gallery.v1 import gallery_pb2
from vmmr.search.v1 import search_pb2

from tests.crash.__main__ import KINDS
from tests.crash.expected import Item, best_scores, half, right, same, vector


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_nothing_is_half_there_whatever_is_killed(root):
    command = [sys.executable, "-m", "tests.crash", "--kills", "6", "--writers", "2", "--flips", "4", "--commands", "6"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost = 0, half there = 0, wrong answers = 0, problems = 0" in done.stdout
    assert f"kills 6 ({', '.join(f'{kind} 1' for kind in sorted(KINDS))})" in done.stdout
    assert re.search(r"starts [1-9]\d* by the command, [1-9]\d* forked", done.stdout)
    assert re.search(r"starts with a flipped bit: (refused|started) 1\n", done.stdout)


ITEM = Item("lada_niva_1999", "photos/1.jpg", "may", (("n", "1"), ("writer", "0")), half(1))
REPLY = {"label": "lada_niva_1999", "uri": "photos/1.jpg", "batch_id": "may", "attributes": {"writer": "0", "n": "1"}}


def test_an_item_is_compared_in_all_that_a_reply_tells_of_it():
    assert same(gallery_pb2.Item(**REPLY), ITEM)
    assert same(None, None)
    assert not same(None, ITEM)
    assert not same(gallery_pb2.Item(**REPLY), None)
    for field, other in {"label": "x", "uri": "", "batch_id": "", "attributes": {"n": "1"}}.items():
        assert not same(gallery_pb2.Item(**(REPLY | {field: other})), ITEM), field


def test_an_answer_must_have_numpy_s_scores_and_first_the_item_whose_vector_was_asked_for():
    items = {str(n): Item("misc", "", "", (), half(n)) for n in range(9)}
    items["twin"] = items["3"]
    query = vector(3).astype("<f2").astype(np.float32)
    scores, _ = best_scores(items, query, 3)
    best = sorted(scores, key=lambda name: (-scores[name], name))[:3]
    assert best[:2] == ["3", "twin"]

    def answer(*names, **changed):
        return [search_pb2.Neighbour(item_id=name, score=changed.get(name, scores.get(name, 0))) for name in names]

    assert right(answer(*best), items, query, 3, own="3")
    assert not right(answer(*best), items, query, 3, own="twin")
    assert not right(answer(*best[1:]), items, query, 3)
    assert not right(answer(*best[:2], "nobody", nobody=scores[best[2]]), items, query, 3)
    assert not right(answer(*best, twin=0.5), items, query, 3)
    assert not right(answer(*best[:2], *sorted(scores.keys() - set(best))[:1]), items, query, 3)
