"""What every request passes: limits, tokens, origins, rates, ids, deadlines, and what the log and metrics say of it."""

import queue
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import vmmr

from tests.web.conftest import TOKEN
from tests.web.test_identify import form
from web.config import WebConfig
from web.door import door as doors
from web.door import envelope, process
from web.door.access import SESSION_S, Access
from web.door.kept import Kept
from web.door.problems import DoorError, problem_of
from web.door.rates import Rates
from web.pages.asking import KeptAnswer


def talk(door, *pieces: bytes, end: bool = False) -> bytes:
    """Sends raw bytes; what the server answered until it closed the connection, or until there is a whole head and body."""
    with socket.create_connection(("127.0.0.1", door.port), 60) as sock:
        for piece in pieces:
            sock.sendall(piece)
        answer = b""
        while chunk := sock.recv(2**16):
            answer += chunk
            if not end and b'"request_id"' in answer:
                break
    return answer


@contextmanager
def in_the_background(door):
    """Identifies a photo in a thread, which ends with the block; the list that will have the answer."""
    answers = []
    asking = threading.Thread(target=lambda: answers.append(door.http.post("/v1/identify", files=form(b"7"))))
    asking.start()
    try:
        yield answers
    finally:
        asking.join(60)


def head(length: int | str, *more: str) -> bytes:
    lines = ("POST /v1/identify HTTP/1.1", "Host: x", "Content-Type: image/jpeg", f"Content-Length: {length}", *more)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


# --- uploads ---


def test_an_upload_that_is_told_to_be_too_large_is_refused_before_any_of_it_is_sent(opened, services):
    answer = talk(opened(max_upload_bytes=1000, max_photo_bytes=1000), head(1001))
    assert b" 413 " in answer.splitlines()[0]
    assert b'"reason":"UPLOAD_TOO_LARGE"' in answer
    assert services.embedder.script.received == []


def test_an_upload_of_untold_length_is_refused_as_soon_as_it_is_too_large(opened):
    door = opened(max_upload_bytes=1000, max_photo_bytes=1000)
    chunk = b"200\r\n" + b"x" * 512 + b"\r\n"
    lines = b"POST /v1/identify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in talk(door, lines, chunk, chunk).splitlines()[0]


def test_an_upload_that_does_not_arrive_is_refused(opened):
    answer = talk(opened(upload_timeout_s=0.05), head(1000), b"x")
    assert b" 408 " in answer.splitlines()[0]
    assert b'"reason":"UPLOAD_TOO_SLOW"' in answer


def test_a_photo_of_several_that_is_too_large_is_named(opened):
    reply = opened(max_photo_bytes=100).http.post("/v1/identify", files=form(b"1", b"2" * 101))
    assert (reply.status_code, reply.json()["reason"]) == (413, "UPLOAD_TOO_LARGE")
    assert "photos[1]: 101 bytes" in reply.json()["detail"]


def test_more_photos_than_are_taken_are_refused(opened):
    reply = opened(max_photos=2).http.post("/v1/identify", files=form(b"1", b"2", b"3"))
    assert (reply.status_code, reply.json()["reason"]) == (400, "INVALID_REQUEST")


def test_a_connection_that_never_sends_the_head_of_a_request_is_closed(monkeypatch, opened):
    monkeypatch.setattr(process, "_HEAD_S", 0.05)
    door = opened()
    assert talk(door, b"GET / HT", end=True) == b""
    # Also after an answer, on the same connection, which has all the time that it takes until then.
    monkeypatch.setattr(process, "_HEAD_S", 600)
    complete = process.PatientProtocol.on_response_complete

    def answered(protocol):
        process._HEAD_S = 0.05
        complete(protocol)

    monkeypatch.setattr(process.PatientProtocol, "on_response_complete", answered)
    answer = talk(door, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", end=True)
    assert answer.count(b"HTTP/1.1 200") == 1


def test_a_request_that_takes_longer_than_its_head_may_is_not_closed(monkeypatch, opened, stuck):
    timers, waits = [], process.PatientProtocol._wait_for_head

    def kept(protocol):
        waits(protocol)
        timers.append(protocol._timer)

    monkeypatch.setattr(process, "_HEAD_S", 600)
    monkeypatch.setattr(process.PatientProtocol, "_wait_for_head", kept)
    door = opened()
    with in_the_background(door) as answer:
        assert stuck.waits.wait(60)
        assert timers
        assert all(timer.cancelled() for timer in timers), "each would close the connection"
        stuck.leave.set()
    assert answer[0].status_code == 200


def test_a_caller_who_does_not_read_the_answer_is_left(monkeypatch, door, ended):
    """The photo is more than the buffers of both ends hold."""
    monkeypatch.setattr(process, "_READ_S", 0.05)
    photo = bytes(16_000_000)
    path = f"/answers/{door.door.kept.keep(KeptAnswer([photo], []), len(photo))}"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", door.port))
        sock.sendall(f"GET {path}/photo HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert ended.get(timeout=60) == 200
    monkeypatch.undo()
    assert door.http.get(f"{path}/photo").content == photo


@pytest.mark.parametrize(
    "lines", [b"NONSENSE\r\n\r\n", head("x"), head(5, "Transfer-Encoding: chunked", "Connection: close") + b"0\r\n\r\n"]
)
def test_nonsense_in_place_of_http_is_refused_and_closed(door, lines):
    answer = talk(door, lines, end=True)
    assert answer.startswith(b"HTTP/1.1 4")


def test_the_body_of_an_answer_does_not_wait_for_its_head_to_be_acknowledged():
    with (
        process._listen(WebConfig(port=0)) as listening,
        socket.create_connection(listening.getsockname(), 60),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- who may ---


def test_nobody_changes_the_gallery_without_the_token(opened, services, bearer):
    door = opened()
    for request in (
        door.http.build_request("POST", "/v1/items", files=form(b"1"), data={"label": "a"}),
        door.http.build_request("DELETE", "/v1/items?label=a"),
    ):
        for wrong in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic dGhlLXRva2Vu"},
            {"Cookie": "vmmr_session=x"},
        ):
            request.headers.update(wrong)
            reply = door.http.send(request)
            assert (reply.status_code, reply.json()["reason"]) == (401, "TOKEN_WANTED")
            assert reply.headers["www-authenticate"] == "Bearer"
    off = opened(token=None).http.delete("/v1/items?label=a", headers=bearer)
    assert (off.status_code, off.json()["reason"]) == (403, "WRITES_OFF")
    assert services.search.script.received == []


def test_a_session_ends(monkeypatch):
    now = [0.0]
    access = Access("t", clock=lambda: now[0])
    with pytest.raises(DoorError, match="not the token"):
        access.sign_in("T")
    name = access.sign_in("t")

    class Request:
        cookies = {"vmmr_session": name}  # noqa: RUF012
        headers = {}  # noqa: RUF012

    access.check(Request())
    now[0] = SESSION_S
    with pytest.raises(DoorError, match="needs the token"):
        access.check(Request())
    again = Access("t")
    Request.cookies = {"vmmr_session": again.sign_in("t")}
    again.sign_out(Request())
    assert not again.signed_in(Request())


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Origin": "http://127.0.0.1:PORT"}, True),
    ],
)
def test_what_a_page_of_another_site_sends_is_refused(door, services, headers, allowed):
    headers = {name: value.replace("PORT", str(door.port)) for name, value in headers.items()}
    reply = door.http.post("/v1/identify", files=form(b"7"), headers=headers)
    assert reply.status_code == (200 if allowed else 403)
    assert bool(services.embedder.script.received) == allowed


# --- how much ---


def test_an_address_may_send_so_many_requests_and_more_by_and_by():
    now = [0.0]
    rates = Rates(2, clock=lambda: now[0])
    rates.take("10.0.0.1")
    rates.take("10.0.0.1")
    rates.take("10.0.0.2")
    with pytest.raises(DoorError) as caught:
        rates.take("10.0.0.1")
    assert caught.value.retry_after_s == 30.0
    now[0] = 30.0
    rates.take("10.0.0.1")
    with pytest.raises(DoorError):
        rates.take("10.0.0.1")


def test_the_addresses_of_one_ipv6_network_count_as_one():
    rates = Rates(1, clock=lambda: 0.0)
    rates.take("2001:db8:1:2::1")
    rates.take("2001:db8:1:3::1")
    with pytest.raises(DoorError):
        rates.take("2001:db8:1:2:ffff::9")


@pytest.mark.parametrize("address", ["203.0.113.9", "::ffff:203.0.113.9"])
def test_an_ipv4_address_counts_by_itself_however_it_is_written(address):
    rates = Rates(1, clock=lambda: 0.0)
    rates.take(address)
    rates.take("::ffff:203.0.113.10")
    with pytest.raises(DoorError):
        rates.take("203.0.113.9")


def test_tokens_cannot_be_tried_without_end(opened, bearer):
    """The right token, too, is refused then: what is tried must not be told apart."""
    door = opened(calls_per_minute=2)
    wrong = {"Authorization": "Bearer wrong"}
    assert [door.http.delete("/v1/items?label=a", headers=wrong).status_code for _ in range(2)] == [401, 401]
    assert door.http.delete("/v1/items?label=a", headers=bearer).status_code == 429
    assert door.http.get("/enrol/x", headers=bearer).status_code == 429


def test_a_request_with_a_photo_and_a_token_counts_once(opened, bearer):
    door = opened(calls_per_minute=1)
    reply = door.http.post("/v1/items", files=form(b"1"), data={"label": "a"}, headers=bearer)
    assert reply.status_code == 200


def test_the_pages_of_a_session_do_not_count(opened):
    door = opened(calls_per_minute=1)
    assert door.http.post("/sign-in", data={"token": TOKEN}).status_code == 303
    assert [door.http.get("/enrol/x").status_code for _ in range(3)] == [404, 404, 404]


def test_too_many_requests_are_refused_with_the_time_to_wait(opened, services):
    door = opened(calls_per_minute=1)
    assert door.http.post("/v1/identify", files=form(b"7")).status_code == 200
    reply = door.http.post("/v1/identify", files=form(b"7"))
    assert (reply.status_code, reply.json()["reason"]) == (429, "TOO_MANY_CALLS")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert len(services.embedder.script.of("Embed")) == 1
    assert door.http.get("/v1/labels").status_code == 200


@pytest.mark.parametrize(("trusted", "second"), [("", 429), ("127.0.0.1", 200), ("10.0.0.0/8", 429)])
def test_only_a_trusted_proxy_says_whom_a_request_is_of(opened, trusted, second):
    door = opened(calls_per_minute=1, trusted_proxies=trusted)
    for n, status in ((1, 200), (2, second)):
        reply = door.http.post("/v1/identify", files=form(b"7"), headers={"X-Forwarded-For": f"203.0.113.{n}"})
        assert reply.status_code == status


def test_a_request_beyond_those_that_may_be_served_at_once_is_refused_at_once(opened, stuck):
    door = opened(max_concurrent_calls=1)
    with in_the_background(door) as answer:
        assert stuck.waits.wait(60)
        with httpx.Client(base_url=door.url) as other:
            reply = other.post("/v1/identify", files=form(b"7"))
        stuck.leave.set()
    assert (reply.status_code, reply.json()["reason"]) == (503, "BUSY")
    assert answer[0].status_code == 200
    assert door.http.post("/v1/identify", files=form(b"7")).status_code == 200


class SlowSite(dict):
    """Photos that a web server holds back until it is `let_go`; `asked` counts the requests for them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let_go = threading.Semaphore(0), threading.Event()

    def __missing__(self, path: str) -> bytes:
        self.asked.release()
        assert self.let_go.wait(60)
        return b"7"


@contextmanager
def many(send, count):
    """Sends so many requests at once, each over a connection of its own; the list of the answers so far."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(send())) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        for thread in threads:
            thread.join(60)


def test_every_request_that_may_run_can_fetch_its_photo_at_once(opened, web_server):
    """There are more of them than asyncio has threads, which is 32 at the most."""
    site = SlowSite()
    url = web_server(site)
    door = opened(allow_private=True, max_concurrent_calls=33)
    with many(lambda: httpx.post(f"{door.url}/v1/identify", json={"url": f"{url}/a"}, timeout=60), 33) as answers:
        try:
            assert all(site.asked.acquire(timeout=60) for _ in range(33))
            assert answers == []
        finally:
            site.let_go.set()
    assert {answer.status_code for answer in answers} == {200}


def test_photos_of_the_gallery_on_a_slow_web_server_hold_up_no_request(opened, services, web_server):
    site = SlowSite()
    site["/good"] = b"7"
    url = web_server(site)
    with vmmr.Client(*services.targets) as client:
        client.add_items([vmmr.Item("slow", "a", uri=f"{url}/slow")], client.embed([b"7"]))
    door = opened(allow_private=True, max_concurrent_calls=1)
    with many(lambda: httpx.get(f"{door.url}/photo?id=slow", timeout=60), 12) as answers:
        try:
            assert all(site.asked.acquire(timeout=60) for _ in range(8))
            assert door.http.post("/v1/identify", json={"url": f"{url}/good"}).status_code == 200
            assert answers == []
        finally:
            site.let_go.set()


# --- ids, deadlines, callers who leave ---


def test_the_request_id_and_the_deadline_go_with_the_calls(door, services):
    reply = door.http.post("/v1/identify?timeout_s=30", files=form(b"7"), headers={"X-Request-ID": "order 4711"})
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "order 4711"
    for call in (services.embedder.script.of("Embed")[0], services.search.script.of("Classify")[0]):
        assert call.metadata["x-request-id"] == "order 4711"
        assert 0 < call.time_left_s <= 30


@pytest.mark.parametrize("bad", ["a" * 129, "caf\xe9"])
def test_a_request_id_that_the_services_would_not_take_is_replaced(door, bad):
    reply = door.http.get("/healthz", headers={"X-Request-ID": bad.encode("latin-1")})
    assert len(reply.headers["x-request-id"]) == 32


def test_a_deadline_that_passes_is_a_504_of_the_services_reason(door, stuck):
    timeout_s = 0.05
    while not stuck.waits.is_set():  # on a busy machine the deadline may pass before the call has come
        reply = door.http.post(f"/v1/identify?timeout_s={timeout_s}", files=form(b"7"))
        assert (reply.status_code, reply.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
        timeout_s *= 2
    assert stuck.left.wait(60)


@pytest.fixture
def ended(door, monkeypatch):
    """The statuses of requests, as they end."""
    statuses = queue.Queue()
    monkeypatch.setattr(door.metrics, "ended", lambda _, __, status, *___: statuses.put(status))
    return statuses


def test_the_work_of_a_caller_who_leaves_is_dropped(door, stuck, ended):
    with socket.create_connection(("127.0.0.1", door.port), 60) as sock:
        sock.sendall(head(1) + b"7")
        assert stuck.waits.wait(60)
        assert not stuck.left.is_set()
    assert stuck.left.wait(60)
    assert ended.get(timeout=60) == 499


def test_a_caller_who_leaves_in_the_middle_of_an_upload_made_no_mistake(door, ended):
    with socket.create_connection(("127.0.0.1", door.port), 60) as sock:
        sock.sendall(head(2) + b"7")
    assert ended.get(timeout=60) == 499
    assert errors(door.metrics) == {}


def errors(metrics) -> dict[str, float]:
    """How often each reason was given."""
    [family] = [each for each in metrics.registry.collect() if each.name == "vmmr_errors"]
    return {each.labels["reason"]: each.value for each in family.samples if each.name.endswith("_total")}


# --- services that fail ---


def test_a_service_that_is_not_there_is_given_up_long_before_the_deadline(opened, services, monkeypatch):
    """What it is given here is a fifth of a second; httpx would wait 20 s for the answer, the deadline is ten minutes."""
    monkeypatch.setattr(doors, "_RECONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        door = opened(embedder=f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=600.0)
        reply = door.http.post("/v1/identify", files=form(b"7"), timeout=20)
    assert (reply.status_code, reply.json()["grpc_status"]) == (503, "UNAVAILABLE")


@pytest.mark.usefixtures("first_answer_counts")
def test_a_service_that_is_not_there_is_a_503_that_tells_no_address(opened):
    door = opened(embedder="127.0.0.1:1")
    reply = door.http.post("/v1/identify", files=form(b"7"))
    assert (reply.status_code, reply.json()["reason"]) == (503, "UNAVAILABLE")
    assert "embedder" in reply.json()["detail"]
    assert "no vmmr server answers (embedder)" in reply.json()["detail"]
    ready = door.http.get("/readyz")
    assert ready.status_code == 503
    assert "no vmmr server answers (embedder)" in ready.json()["problems"][0]


@pytest.mark.parametrize("target", ["10.0.0.7:50051", "embedder.internal:50051", "[fd00::7]:50051"])
def test_no_address_of_a_service_is_told(target):
    error = vmmr.UnavailableError(f"no vmmr server answers at {target} (embedder): refused", status="UNAVAILABLE")
    assert problem_of(error).detail == "no vmmr server answers (embedder): refused"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("QUEUE_FULL", 503),
        ("INTERNAL", 502),
        ("UNAUTHENTICATED", 502),
        ("ROLE_REQUIRED", 403),
        ("LABEL_NOT_ALLOWED", 403),
        ("QUOTA_EXCEEDED", 503),
        ("SHUTTING_DOWN", 503),
        ("NO_DETECTOR", 409),
        ("GALLERY_DAMAGED", 502),
    ],
)
def test_what_a_service_says_is_passed_on_with_its_reason(opened, services, fail, reason, status):
    services.embedder.script.marked[b""] = fail(reason, retry_after_s=3600.0)
    door = opened()
    reply = door.http.post("/v1/identify", files=form(b"7"))
    assert (reply.status_code, reply.json()["reason"]) == (status, reason)
    assert "127.0.0.1" not in reply.json()["detail"]
    assert reply.headers["retry-after"] == "3600"


def test_what_is_not_foreseen_is_a_500_that_tells_nothing(door, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("a secret")

    monkeypatch.setattr(door.door.client, "identify", fails)
    reply = door.http.post("/v1/identify", files=form(b"7"))
    assert (reply.status_code, reply.json()["reason"]) == (500, "INTERNAL")
    assert "secret" not in reply.text
    assert reply.headers["content-security-policy"]
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


# --- health, headers, metrics ---


def test_ready_is_who_reaches_both_services_of_one_model(opened, services, fail):
    door = opened()
    assert door.http.get("/readyz").json()["status"] == "ready"
    services.search.model = "cd" * 32
    other = door.http.get("/readyz")
    assert (other.status_code, other.json()["problems"]) == (503, ["the index is of another model than the embedder's"])
    services.search.script.marked[b""] = fail("NOT_READY", retry_after_s=3600)
    assert door.http.get("/readyz").status_code == 503
    door.door.stop()
    assert door.http.get("/readyz").json()["problems"] == ["the program is about to stop"]
    assert door.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/v1/labels?bad=1", "/v1/openapi.json"])
def test_every_answer_has_the_headers_of_security(door, path):
    headers = door.http.get(path).headers
    assert {name: headers.get(name) for name in envelope.HEADERS} == envelope.HEADERS
    assert "unsafe" not in headers["content-security-policy"]
    assert "server" not in headers


def test_strangers_cannot_make_up_series_of_metrics(door):
    door.http.get("/v1/labels?q=a")
    door.http.get("/nothing/1")
    door.http.get("/nothing/2")
    for method in ("BREW", "BREW2"):
        door.http.request(method, "/nothing/3")

    def counts():
        return {
            (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
            for family in door.metrics.registry.collect()
            if family.name == "http_requests"
            for sample in family.samples
            if sample.name == "http_requests_total"
        }

    end = time.monotonic() + 60
    while sum(counts().values()) < 5:  # a request is counted when its answer is on its way
        assert time.monotonic() < end, counts()
    assert counts() == {("GET", "/v1/labels", "200"): 1, ("GET", "none", "404"): 2, ("other", "none", "404"): 2}


def test_what_is_kept_longest_unread_goes_first():
    kept = Kept(100)
    first, second = kept.keep("a", 50), kept.keep("b", 50)
    assert kept.get(first) == "a"
    third = kept.keep("c", 50)
    assert (kept.get(first), kept.get(third)) == ("a", "c")
    with pytest.raises(DoorError, match="not kept any more"):
        kept.get(second)
    large = kept.keep("d", 500)
    assert kept.get(large) == "d"
    with pytest.raises(DoorError):
        kept.get(third)
    kept.forget(large)
    assert kept.get(kept.keep("e", 100)) == "e"
