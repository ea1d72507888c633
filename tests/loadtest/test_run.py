"""Load tests of real servers: what is measured is what happened."""

import json
import os
import signal
import time
from dataclasses import asdict
from threading import Barrier, Event, Lock

import grpc
import pytest
import trustme
from vmmr._channel import TLS
from vmmr._errors import UnavailableError
from vmmr.embedder.v1 import embedder_pb2
from vmmr.search.v1 import search_pb2

from loadtest import measure as measuring
from loadtest.knee import rounded
from loadtest.plan import Access, Closed, Open, Plan
from loadtest.prepare import CannotRunError
from loadtest.recorder import Record, record
from loadtest.result import Step
from loadtest.run import _is_unproven, run
from svckit.errors import Reason, ServiceError
from tests.client.conftest import FakeEmbedder, FakeSearch, abort, car

METHODS = {"embed": ["Embed"], "search": ["Search"], "classify": ["Classify"], "identify": ["Embed", "Classify"]}
STAGES = {
    "embed": {"decode": 1, "queue": 2, "infer": 3},
    "search": {"queue": 1, "search": 2, "vote": 0},
    "classify": {"queue": 1, "search": 2, "vote": 3},
    "identify": {"e.decode": 1, "e.queue": 2, "e.infer": 3, "s.queue": 1, "s.search": 2, "s.vote": 3},
}


def PASS(*_):  # noqa: N802
    """The usual reply: to GetIndex, which comes before all others."""


@pytest.mark.parametrize("target", METHODS)
def test_each_target_makes_as_many_calls_as_were_asked_for_and_says_where_their_time_went(target, one, services):
    step = one(target, Open(30), batch=2)
    assert (step.calls, step.answered, step.failed, step.refused, step.unsent) == (30, 30, 0, 0, 0)
    assert step.latency.count == step.service.count == 30
    assert {name: step.stages[name].p50_ms for name in STAGES[target]} == pytest.approx(STAGES[target], rel=1e-3)
    assert step.stages["elsewhere"].count == 30
    scripts = (services.embedder.script, services.search.script)
    received = [call for script in scripts for method in METHODS[target] for call in script.of(method)]
    assert len(received) == 36 * len(METHODS[target]), "the warm-up's are not in the figures"
    assert {len(getattr(call.request, "images", [1, 2])) for call in received} == {2}
    assert step.sent_bytes_per_s > 30
    assert step.received_bytes_per_s > 30


def test_identify_sends_the_embeddings_that_it_got_to_the_search_service(one, services):
    one("identify", Open(20))
    asked = {call.request.queries.data for call in services.search.script.of("Classify")}
    assert len(asked) == 6, "as many as there are photos"


def test_photos_are_looked_at_as_asked_and_the_search_service_told_what_was(one, services):
    services.embedder.cars = {n: [car(0.25, 0.75), car(0.375, 0.5)] for n in range(6)}
    assert one("identify", Open(20), subject="every_car").failed == 0
    embeds, classifies = services.embedder.script.of("Embed"), services.search.script.of("Classify")
    assert {image.subject for call in embeds for image in call.request.images} == {embedder_pb2.SUBJECT_EVERY_CAR}
    assert {tuple(cut.car_score for cut in call.request.cuts) for call in classifies} == {(0.75, 0.5)}


def test_queries_of_photos_are_embedded_once_beforehand_and_random_ones_are_of_the_index_s_model(one, services, photos):
    one("search", Open(20), photos=photos)
    assert len(services.embedder.script.of("Embed")) == 1
    one("search", Open(20))
    assert len(services.embedder.script.of("Embed")) == 1
    assert {call.request.queries.model for call in services.search.script.of("Search")} == {services.search.model}


def test_large_photos_are_embedded_beforehand_in_requests_that_the_embedder_accepts(one, services, tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.jpg").write_bytes(b"%d" % n + b" " * 900_000)
    one("search", Open(20), photos=folder, duration_s=0.5, warmup_s=0)
    calls = [call.request for call in services.embedder.script.of("Embed")]
    assert [len(request.images) for request in calls] == [2, 2, 1]
    assert all(request.ByteSize() <= services.embedder.limits.max_request_bytes for request in calls)


LONG_S = {Open: 1, Closed: 600}
"""A closed loop ends when it has made its calls."""


@pytest.mark.parametrize("load", [Open(40), Closed(4)], ids=str)
def test_processes_and_connections_share_the_load(one, services, load):
    peers = set()
    services.search.script.marked[b""] = lambda _, context: peers.add(context.peer())
    step = one("search", load, processes=2, connections=2, duration_s=LONG_S[type(load)], warmup_s=0, max_calls=40)
    assert (step.calls, step.answered) == (40, 40)
    assert len(step.generator.cpu_shares) == 2
    assert len(peers) == 1 + 2 * 2, "one that prepares, and two of each process"


def test_an_open_loop_of_several_processes_makes_the_calls_of_one(one):
    step = one("search", Open(40), processes=2, connections=2)
    assert (step.calls, step.answered) == (40, 40)


@pytest.mark.parametrize("callers", [1, 3])
def test_a_closed_loop_keeps_so_many_calls_under_way(serve, callers):
    search = Together(callers)
    loads = (Closed(callers),)
    plan = Plan(target="search", loads=loads, access=Access(search=serve(search)), distinct=3, **UNTIL_THEY_ARE_MADE)
    [step] = run(plan).steps
    assert (step.answered, search.most) == (30, callers)
    assert step.answered_per_s == pytest.approx(30 / step.window_s)
    assert step.answered_per_s * step.service.mean_ms / 1e3 <= callers * 1.01, "Little's law; figures have three digits"


UNTIL_THEY_ARE_MADE = {"duration_s": 600, "warmup_s": 0, "max_calls": 30, "timeout_s": 60}


class Together(FakeSearch):
    """Answers when so many calls are under way, all of them then; counts those under way."""

    def __init__(self, callers: int) -> None:
        super().__init__()
        self.now = self.most = 0
        self.lock = Lock()
        self.all_here = Barrier(callers, timeout=60)

    def Search(self, request, context):  # noqa: N802
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.all_here.wait()
        with self.lock:
            self.now -= 1
        return super().Search(request, context)


class Stalling(FakeSearch):
    """One call at a time; the 200th lasts until it is let go, and for so long at the least."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.stalls, self.go = Lock(), Event(), Event()
        self.calls = 0
        self.least_s = 0.0

    def Search(self, request, context):  # noqa: N802
        with self.turn:
            self.calls += 1
            if self.calls == 200:
                self.stalls.set()
                time.sleep(self.least_s)
                assert self.go.wait(60)
            return super().Search(request, context)


def all_have_started(told):
    return told[-1].started == 400


def anything_was_told(told):
    return bool(told)


def stalled(serve, load, duration_s, is_over, least_s=0.0) -> Step:
    """The step, in which the stall lasts until `is_over`, by what is told of the progress meanwhile."""
    search, told = Stalling(), []
    search.least_s = least_s

    def tell(_, __, progress):
        if search.stalls.is_set():
            told.append(progress)
            if is_over(told):
                search.go.set()

    times = {"duration_s": duration_s, "warmup_s": 0, "timeout_s": 60, "max_calls": 400}
    plan = Plan(target="search", loads=(load,), access=Access(search=serve(search)), distinct=3, **times)
    [step] = run(plan, tell).steps
    return step


def test_a_stall_shows_in_all_calls_that_were_to_start_meanwhile_which_a_closed_loop_hides(serve):
    corrected = stalled(serve, Open(200), 2, all_have_started).latency
    hidden = stalled(serve, Closed(1), 600, anything_was_told, least_s=1.0).latency
    assert (corrected.count, hidden.count) == (400, 400)
    assert corrected.max_ms > 990, "it was to start 1 s before the last"
    assert corrected.p99_ms > 970
    assert corrected.p90_ms > 790, "a tenth of the calls were to start in the stall's first 0.2 s"
    assert hidden.max_ms > 900
    assert hidden.p99_ms < corrected.p99_ms, "one call of 400 met with the stall"


def test_failures_are_counted_by_code_and_reason_and_refusals_have_percentiles_of_their_own(one, services, fail):
    refusal = lambda _, context: abort(context, ServiceError(Reason.QUEUE_FULL, "full", retry_after_s=1))  # noqa: E731
    services.search.script.then(PASS, *[refusal] * 7, *[fail("INTERNAL", "broken")] * 3)
    step = one("search", Open(40), warmup_s=0)
    assert [(each.code, each.reason, each.count, each.refused) for each in step.errors] == [
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL", 7, True),
        ("INTERNAL", "INTERNAL", 3, False),
    ]
    assert [each.message for each in step.errors] == ["full", "broken"]
    assert (step.calls, step.answered, step.refused, step.failed) == (40, 30, 7, 3)
    assert step.refusal.count == 7
    assert len(services.search.script.of("Search")) == 40, "nothing was tried again"


def test_a_call_that_is_late_is_a_failure_and_the_deadline_is_sent(one, services):
    one("search", Open(20), timeout_s=60)
    assert all(0 < call.time_left_s < 61 for call in services.search.script.of("Search"))
    leave = Event()
    services.search.script.then(PASS, lambda *_: leave.wait(60) and None)
    step = one("search", Open(1), timeout_s=0.4, warmup_s=0)
    leave.set()
    assert [(each.code, each.count) for each in step.errors] == [("DEADLINE_EXCEEDED", 1)]


def test_an_answer_to_another_number_of_questions_is_a_failure(one, services):
    # An empty message would be taken for no scripted reply.
    services.search.script.then(PASS, lambda *_: search_pb2.SearchResponse(times=search_pb2.SearchTimes(queue_ms=1)))
    [error] = one("search", Open(20), warmup_s=0).errors
    assert (error.code, error.count) == ("MALFORMED_REPLY", 1)
    assert "0 answers to 1 questions" in error.message


def test_calls_that_were_refused_or_failed_miss_the_slo(measure, services, fail):
    services.search.script.then(PASS, *[fail("INTERNAL")] * 2)
    result = measure("search", Open(40), slo_p99_ms=5000, max_errors=0.5, warmup_s=0)
    [step] = result.steps
    assert (step.within_slo, step.meets_slo) == (0.95, False)
    assert result.failures == ("40/s: 95.00% of calls were answered within 5000 ms, not 99 %",)


def test_more_failures_than_allowed_are_told(measure, services, fail):
    services.search.script.then(PASS, *[fail("INTERNAL")] * 2)
    assert measure("search", Open(40), warmup_s=0).failures == ("40/s: 5.00% of calls failed, more than 1.00%",)


def test_no_more_calls_are_made_than_allowed(measure, services):
    result = measure("search", Open(40), Open(50), max_calls=20)
    assert "20 calls of --max-calls" in result.ended_early
    assert len(services.search.script.of("Search")) == 20
    result = measure("search", Closed(3), max_calls=10, processes=2, warmup_s=0)
    assert result.steps[0].calls == 10
    assert len(services.search.script.of("Search")) == 30


def test_an_interrupt_at_whatever_moment_ends_it_with_what_there_is_and_a_second_one_at_once(serve):
    access = Access(search=serve(FakeSearch()))
    plan = Plan(target="search", loads=(Open(20), Open(30)), access=access, distinct=3, duration_s=30, warmup_s=0)
    interrupts = iter([True])
    result = run(plan, lambda *_: next(interrupts, False) and os.kill(os.getpid(), signal.SIGINT))
    assert result.ended_early == "interrupted"
    assert [step.window_s < plan.duration_s for step in result.steps] == [True]
    with pytest.raises(KeyboardInterrupt):
        run(plan, lambda *_: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])


def test_a_load_for_which_no_calls_were_left_does_not_pass_for_one_that_met_the_slo(measure):
    settings = {"slo_p99_ms": 9000, "max_errors": 1, "max_calls": 10}
    assert measure("search", Open(40), Closed(3), **settings).failures[-1] == "3 at once: not measured"


@pytest.mark.calls_are_left_out
def test_a_rate_that_no_process_can_make_is_confessed(measure):
    result = measure("search", Open(20_000), duration_s=0.5)
    [step] = result.steps
    assert step.unsent > 0
    assert any("never made, because" in doubt for doubt in result.doubts)
    assert step.calls == 10_000, "those that were not made are counted all the same"


def test_calls_that_start_late_count_from_when_they_were_to_start(one):
    step = one("search", Open(100_000), duration_s=0.01, warmup_s=0, timeout_s=600)
    assert (step.calls, step.answered) == (1000, 1000), step.errors
    assert step.generator.lag.mean_ms > 20
    assert step.latency.mean_ms == pytest.approx(step.service.mean_ms + step.generator.lag.mean_ms, rel=0.02)


def test_a_service_that_shuts_down_is_not_asked_again(one, services, fail):
    services.search.script.then(PASS, *[fail("SHUTTING_DOWN")] * 5)
    step = one("search", Open(20), warmup_s=0)
    assert [(each.code, each.reason, each.count) for each in step.errors] == [("UNAVAILABLE", "SHUTTING_DOWN", 5)]
    assert len(services.search.script.of("Search")) == 20


def test_a_search_for_the_knee_begins_with_a_closed_loop_and_offers_shares_of_what_that_got(serve):
    plan = Plan(target="search", access=Access(search=serve(FakeSearch())), distinct=3, **SHORT, max_steps=3)
    result = run(plan)
    first, *others = result.steps
    assert (first.mode, [step.mode for step in others]) == ("closed", ["open", "open"])
    assert [step.load for step in others] == [rounded(share * first.answered_per_s) for share in (0.2, 0.5)]
    assert result.knee.capacity_per_s == first.answered_per_s


SHORT = {"duration_s": 0.5, "warmup_s": 0.1, "timeout_s": 60}


def test_and_ends_when_it_is_found(serve, monkeypatch):
    monkeypatch.setattr("loadtest.run.Workers", Modelled)
    result = run(Plan(target="search", access=Access(search=serve(FakeSearch())), max_steps=20, slo_p99_ms=500))
    assert result.knee.capacity_per_s == Modelled.MOST
    assert result.knee.knee == result.knee.slo
    assert result.knee.knee.rate <= Modelled.MOST < result.knee.knee.fails_at
    assert result.knee.knee.fails_at / result.knee.knee.rate < 1.2
    assert 4 < len(result.steps) < 20


class Modelled:
    """Stands for the processes of the generator: calls of 50 ms; beyond so many a second, each takes a second."""

    MOST = 160
    interrupted = False

    def __init__(self, *_) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def run(self, load, *_) -> Record:
        calls = round(min(load.rate, self.MOST)) if isinstance(load, Open) else self.MOST
        fine = not isinstance(load, Open) or load.rate <= self.MOST
        found = Record(window_s=1.0, calls=calls, done=calls, within_slo=calls if fine else 0)
        for _ in range(calls):
            record(found.latency, 0.05 if fine else 1.0)
        return found


def test_what_every_call_would_be_refused_for_is_told_before_the_test(measure, services):
    with pytest.raises(CannotRunError, match="the embedder accepts 8 photos in a call, the plan has 9"):
        measure("embed", Open(10), batch=9)
    with pytest.raises(CannotRunError, match="accepts 16 queries"):
        measure("search", Open(10), batch=17)
    services.search.model = "cd" * 32
    with pytest.raises(CannotRunError, match=r"the embedder serves the model .*, but the index was built with"):
        measure("identify", Open(10))


def test_a_service_that_is_not_there_is_told_before_the_test(measure, services, attempts):
    attempts(1)
    with pytest.raises(UnavailableError, match=r"no vmmr server answers at 127\.0\.0\.1:1 "):
        measure("search", Open(10), access=Access(search="127.0.0.1:1"), timeout_s=60)


def test_an_embedder_alone_is_enough_for_embed(serve, photos):
    access = Access(embedder=serve(FakeEmbedder()), search="127.0.0.1:1")
    plan = Plan(target="embed", loads=(Open(20),), access=access, photos=photos, duration_s=0.5, warmup_s=0)
    [step] = run(plan).steps
    assert step.answered == 10


def test_an_slo_is_unproven_only_where_no_step_beyond_doubt_missed_it():
    plan = Plan(target="search", loads=(Open(1), Open(2)), slo_p99_ms=50)

    def step(load, *, meets, late):
        found = Record(window_s=10.0)
        for _ in range(100):
            record(found.latency, 0.02)
            record(found.lag, 0.009 if late else 0)
        found.within_slo = 100 if meets else 90
        return measuring.step(plan, load, found, None)

    for first, second, unproven in (
        ({"meets": True, "late": False}, {"meets": True, "late": False}, False),
        ({"meets": True, "late": False}, {"meets": True, "late": True}, True),
        ({"meets": True, "late": False}, {"meets": False, "late": True}, True),
        ({"meets": False, "late": False}, {"meets": False, "late": True}, False),
    ):
        assert _is_unproven(plan, (step(Open(1), **first), step(Open(2), **second))) == unproven


def test_tls_with_a_client_certificate_and_a_token(serve, services, tmp_path):
    ca = trustme.CA()
    server, caller = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.org")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    caller.private_key_pem.write_to_path(tmp_path / "key.pem")
    caller.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair = [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())]
    credentials = grpc.ssl_server_credentials(pair, ca.cert_pem.bytes(), require_client_auth=True)
    tls = TLS(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    access = Access(search=serve(services.search, credentials), tls=tls, token="secret")
    result = run(Plan(target="search", loads=(Open(20),), access=access, distinct=3, duration_s=0.5, warmup_s=0))
    assert result.steps[0].answered == 10
    tokens = {call.metadata["authorization"] for call in services.search.script.received}
    assert tokens == {"Bearer secret"}
    assert "secret" not in json.dumps(asdict(result)) + repr(access)
