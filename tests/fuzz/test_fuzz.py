"""A short run of each target: its corpus, and inputs made of that by chance, the same ones each time."""

import random
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.fuzz.edits import edited, mutated
from tests.fuzz.messages import METHODS
from tests.fuzz.targets import TARGETS, corpus

EXECUTIONS = {
    "photo": 150,
    "crop": 300,
    "message": 200,
    "csv": 400,
    "calibration": 400,
    "model.json": 100,
    "index manifest": 100,
    "embeddings manifest": 100,
    "index": 10,
    "journal": 15,
}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """`target(name)`: the target, made once, for its servers stay."""
    with ExitStack() as stack:

        @cache
        def made(name):
            target = TARGETS[name](tmp_path_factory.mktemp("target") / "files")
            stack.callback(getattr(target, "close", lambda: None))
            return target

        yield made


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_answered_right_or_refused_by_name(name, target, tmp_path):
    attempt, inputs, chance = target(name), corpus(name), random.Random(18)
    for content in [*inputs, *(mutated(inputs, chance) for _ in range(EXECUTIONS[name]))]:
        try:
            attempt(content)
        except Exception as error:
            path = Path(tmp_path / "input")
            path.write_bytes(content)
            raise AssertionError(f"{type(error).__name__}: {error}, for the input in {path}") from error


def test_the_corpus_of_messages_has_one_that_is_answered_for_every_method(target):
    refused = [METHODS[content[0]] for content in corpus("message") if not target("message")(content)]
    assert refused == ["vmmr.gallery.v1.GalleryService/Compact"], "which the target itself refuses"
    assert {METHODS[content[0]] for content in corpus("message")} == set(METHODS)


def test_every_target_has_a_corpus_that_is_small():
    inputs = [content for name in TARGETS for content in corpus(name)]
    assert all(corpus(name) for name in TARGETS)
    assert sum(map(len, inputs)) < 200_000


def test_edits_do_what_they_say():
    def script(kind, place, length, more=b""):
        return bytes([kind]) + place.to_bytes(3, "little") + bytes([length - 1]) + more

    assert edited(b"abcdef", script(0, 2, 2, b"XY")) == b"abXYef"
    assert edited(b"abcdef", script(1, 2, 2, b"XY")) == b"abXYcdef"
    assert edited(b"abcdef", script(2, 2, 2)) == b"abef"
    assert edited(b"abcdef", script(3, 2, 2)) == b"ab\0\0ef"
    assert edited(b"abcdef", script(4, 0, 2, b"\x04\0\0")) == b"efcdef"
    assert edited(b"abcdef", script(5, 2, 1)) == b"abadef"
    assert edited(b"abcdef", script(5, 2, 32)) == b"ab"
