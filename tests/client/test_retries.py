"""What is tried again, when, and for how long: with real services, and a clock that tests move."""

import random
import socket
import threading
from dataclasses import dataclass, field

import grpc
import pytest
import vmmr
from grpc import StatusCode
from vmmr import _retries
from vmmr._deadlines import Deadline
from vmmr._retries import Retries

from svckit.errors import STATUS, Reason


def test_unavailable_is_tried_again_with_a_photo_of_any_size_and_one_request_id(client, services, fail):
    services.embedder.script.then(fail("SHUTTING_DOWN"), fail("SHUTTING_DOWN"))
    services.search.script.then(fail("SHUTTING_DOWN"))
    assert client.identify(b"1".rjust(2**20)).answer.year == 2001
    assert len(services.embedder.script.received) == 3
    assert len({call.metadata["x-request-id"] for call in services.embedder.script.received}) == 1


TEMPORARY = {Reason.NOT_READY, Reason.SHUTTING_DOWN}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in TEMPORARY])
def test_what_does_not_pass_by_itself_is_tried_once(client, services, fail, reason):
    """A full disk, a folder that is read-only, a call that alone is too much: the service does not say when to come again."""
    services.embedder.script.then(fail(reason))
    with pytest.raises(vmmr.CallError):
        client.identify(b"1")
    assert len(services.embedder.script.received) == 1


WAITED_FOR = [
    reason for reason in Reason if STATUS.get(reason) in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)
]
OPERATIONS = {
    "identify": (lambda client: client.identify(b"1"), "Embed"),
    "identify_every_car": (lambda client: client.identify_every_car(b"1"), "Embed"),
    "identify_car": (lambda client: client.identify_car([b"1"]), "Embed"),
    "identify_many": (lambda client: [each.result() for each in client.identify_many([b"1"])], "Embed"),
    "detect": (lambda client: client.detect([b"1"]), "Detect"),
    "embed": (lambda client: client.embed([b"1"]), "Embed"),
    "info": (lambda client: client.info(), "GetModel"),
}


@pytest.mark.parametrize("reason", WAITED_FOR)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_waits_as_long_as_the_service_says(client, services, fail, operation, reason):
    ask, method = OPERATIONS[operation]
    services.embedder.cars = {}
    refuse = fail(reason, retry_after_s=0.01)
    left = [refuse] * 3
    play = services.embedder.script.play

    def refuse_thrice(name, request, context):
        reply = play(name, request, context)
        return left.pop()(request, context) if name == method and left else reply

    services.embedder.script.play = refuse_thrice
    ask(client)
    assert len(services.embedder.script.of(method)) == 4


def test_what_may_be_under_way_is_not_begun_again(client, services, fail):
    services.search.script.then(fail("SHUTTING_DOWN"))
    with pytest.raises(vmmr.UnavailableError):
        client.compact()
    assert len(services.search.script.of("Compact")) == 1


def test_who_is_to_wait_beyond_the_deadline_is_told_at_once(client, services, fail):
    services.embedder.script.then(fail("QUEUE_FULL", retry_after_s=60))
    with pytest.raises(vmmr.OverloadedError) as caught:
        client.identify(b"1", timeout_s=30)
    assert caught.value.retry_after_s == 60
    assert len(services.embedder.script.received) == 1


def test_another_server_behind_the_name_takes_over(connect, serve, services, fail):
    dead = type(services.embedder)()
    dead.script.then(*[fail("SHUTTING_DOWN")] * 100)
    both = f"ipv4:{serve(dead)},{services.embedder_target}"
    client = connect(both, services.search_target)
    assert {client.identify(b"1").answer.year for _ in range(4)} == {2001}
    assert dead.script.received


@dataclass
class Clock:
    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """A clock that stands still but for pauses, and pauses without chance."""
    clock = Clock()
    monkeypatch.setattr("vmmr._deadlines.time.monotonic", lambda: clock.now)
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    return clock


GONE = vmmr.UnavailableError("gone", status="UNAVAILABLE")


def attempts_until(clock: Clock, works_at: float, patience_s: float, reconnect_s: float | None = None) -> float:
    """Call a service that is back at a time; when the attempt was made that found it. Raise what the last one does."""
    retries = Retries(patience_s, repeatable=True, reconnect_s=reconnect_s)
    while clock.now < works_at:
        clock.pause(retries.pause_s(GONE))
    return clock.now


def test_a_restart_is_waited_for_as_long_as_the_deadline_and_looked_for_every_second(clock):
    assert 8.0 <= attempts_until(clock, 8.0, patience_s=10) <= 9.0
    assert clock.pauses[:5] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert max(clock.pauses) == 1.0


def test_beyond_the_deadline_there_is_no_attempt(clock):
    with pytest.raises(vmmr.UnavailableError, match="gone"):
        attempts_until(clock, 60.0, patience_s=10)
    assert 8.5 < clock.now < 10


def test_a_service_that_can_not_be_reached_is_given_up_earlier_if_so_wished(clock):
    with pytest.raises(vmmr.UnavailableError, match="gone"):
        attempts_until(clock, 60.0, patience_s=30, reconnect_s=3)
    assert 2 < clock.now < 3
    overloaded = vmmr.OverloadedError("busy", status="RESOURCE_EXHAUSTED", retry_after_s=5.0)
    assert Retries(30, repeatable=True, reconnect_s=3).pause_s(overloaded) == 5


def test_a_server_that_takes_connections_and_says_nothing_can_not_be_reached(services):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        vmmr.Client(
            f"127.0.0.1:{silent.getsockname()[1]}", services.search_target, timeout_s=60, reconnect_s=0.2
        ) as client,
        pytest.raises(vmmr.UnavailableError),
    ):
        client.model_info()


def test_attempts_of_callers_who_failed_together_are_spread(monkeypatch):
    drawn = []
    monkeypatch.setattr(_retries.random, "uniform", lambda *between: drawn.append(between) or 1.25)
    assert Retries(10, repeatable=True).pause_s(GONE) == 0.125
    assert drawn == [(1.0, 1.5)]


def test_a_wait_is_logged_once_for_callers_who_wonder(client, services, fail, caplog, monkeypatch):
    monkeypatch.setattr(Deadline, "left_s", lambda _: 10.0)
    services.embedder.script.then(*[fail("NOT_READY", "the server is warming up", retry_after_s=0.01)] * 3)
    with caplog.at_level("INFO", "vmmr"):
        client.embed([b"1"])
    [record] = caplog.records
    assert record.getMessage() == (
        f"embedder at {services.embedder_target}: the server is warming up; trying again for up to 10.0 s"
    )


def test_waiting_ends_with_the_client(services, fail):
    refused = threading.Event()
    refuse = fail("NOT_READY", retry_after_s=0.05)
    services.embedder.script.marked[b""] = lambda *call: refused.set() or refuse(*call)
    ended = []

    def ask():
        with pytest.raises(vmmr.CallError) as caught:
            client.embed([b"1"], timeout_s=3600)
        ended.append(caught.value.status)

    with vmmr.Client(*services.targets) as client:
        asking = threading.Thread(target=ask)
        asking.start()
        assert refused.wait(60)
    asking.join(60)
    assert ended == ["CANCELLED"]


def test_a_call_that_came_as_the_server_stopped_is_sent_again(client, services):
    services.search.script.then(lambda _, context: context.abort(grpc.StatusCode.CANCELLED, "CANCELLED"))
    assert client.identify(b"1").answer.year == 2001
    assert len(services.search.script.of("Classify")) == 2
