"""How many connections a client has, and what goes over which."""

import threading
from collections import Counter

import pytest
import vmmr


@pytest.fixture
def peers(services) -> list[str]:
    """Where the embedder's calls came from, in order."""
    seen: list[str] = []
    services.embedder.script.marked[b""] = lambda _, context: seen.append(context.peer())
    return seen


@pytest.mark.parametrize(("connections", "calls"), [(1, [12]), (3, [4, 4, 4])])
def test_calls_take_the_connections_in_turn(connect, services, peers, connections, calls):
    client = connect(*services.targets, connections=connections)
    for n in range(12):
        assert client.identify(b"%d" % n).answer.year == 2000 + n
    assert sorted(Counter(peers).values()) == calls


def test_batches_of_many_photos_do_too(connect, services, peers):
    list(connect(*services.targets, connections=2).identify_many([b"1"] * 8, batch=1))
    assert len(set(peers)) == 2


def test_as_many_batches_wait_at_the_embedder_as_there_are_connections(connect, services):
    at_once = threading.Barrier(4, timeout=60)
    services.embedder.script.then(lambda *_: None, *[lambda *_: at_once.wait() and None] * 4)
    outcomes = connect(*services.targets, connections=2).identify_many([b"1"] * 4, batch=1)
    assert [outcome.error for outcome in outcomes] == [None] * 4


def test_all_connections_end_with_the_client(services):
    with vmmr.Client(*services.targets, connections=3) as client:
        for _ in range(3):
            client.identify(b"1")
        channels = client._connection._channels
        assert len(channels) == 6
    for channel in channels:
        with pytest.raises(ValueError, match="closed channel"):
            channel.unary_unary("/any")(b"")


def test_a_fraction_of_a_connection_is_refused(connect):
    for connections in (0, 1.5):
        with pytest.raises(ValueError, match=r"^connections must be a whole number "):
            connect(connections=connections)
