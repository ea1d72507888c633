"""`POST /v1/identify`: photos in every form, answers in every form."""

import base64
import csv
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import vmmr
from vmmr import _fetch
from vmmr._addresses import is_public

JPEG = {"Content-Type": "image/jpeg"}


def form(*photos: bytes) -> list:
    return [("photo", (f"{n}.jpg", content)) for n, content in enumerate(photos)]


def years(reply) -> list[int]:
    assert reply.status_code == 200, reply.text
    return [answer["identification"]["answer"]["year"] for answer in reply.json()["answers"]]


@pytest.mark.parametrize(
    "sent",
    [
        {"files": form(b"7")},
        {"content": b"7", "headers": JPEG},
        {"content": b"7", "headers": {"Content-Type": "application/octet-stream"}},
        {"json": {"base64": base64.b64encode(b"7").decode()}},
        {"json": {"photos": [{"base64": base64.b64encode(b"7").decode()}]}},
        {"json": {"base64": base64.b64encode(b"7").decode(), "name": "photos"}},
    ],
    ids=["form", "raw", "octets", "json", "json-list", "json-named-photos"],
)
def test_a_photo_may_come_in_any_form(door, sent):
    assert years(door.http.post("/v1/identify", **sent)) == [2007]


def test_a_photo_is_fetched_from_its_url_by_the_rules_of_the_sdk(opened, web_server):
    url = web_server({"/car.jpg": b"7"})
    public = opened().http.post("/v1/identify", json={"url": f"{url}/car.jpg"})
    assert (public.status_code, public.json()["reason"]) == (400, "URL_NOT_FETCHED")
    assert public.json()["detail"].endswith("leads to 127.0.0.1, which is not a public address")
    reply = opened(allow_private=True).http.post("/v1/identify", json={"url": f"{url}/car.jpg"})
    assert years(reply) == [2007]
    assert reply.json()["answers"][0]["name"] == f"{url}/car.jpg"


@pytest.mark.parametrize(
    "redirect",
    [
        ("http://127.0.0.2:{port}/car.jpg", "leads to 127.0.0.2, which is not a public address"),
        ("http://169.254.169.254/latest/meta-data/", "leads to 169.254.169.254, which is not a public address"),
        ("http://[::1]/", "leads to ::1, which is not a public address"),
        ("http://[::ffff:127.0.0.2]:{port}/car.jpg", "which is not a public address"),
        ("http://10.0.0.1/", "leads to 10.0.0.1, which is not a public address"),
        ("//127.0.0.2:{port}/car.jpg", "leads to 127.0.0.2, which is not a public address"),
        ("file:///etc/passwd", "not an http:// or https:// URL"),
        ("gopher://127.0.0.2:{port}/", "not an http:// or https:// URL"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/identify", "/v1/embed"])
def test_a_redirect_does_not_lead_to_a_private_address(opened, services, monkeypatch, path, redirect):
    """The server that redirects, at 127.0.0.1, is taken for a public one; whatever else it names is what it is."""
    target, says = redirect
    with secret_server() as (port, asked), redirecting(target.format(port=port)) as url:
        monkeypatch.setattr(_fetch, "is_public", lambda address: str(address) == "127.0.0.1" or is_public(address))
        reply = opened().http.post(path, json={"url": url})
    assert (reply.status_code, reply.json()["reason"]) == (400, "URL_NOT_FETCHED")
    assert reply.json()["detail"].endswith(says)
    assert asked == []
    assert not services.embedder.script.of("Embed")


@contextmanager
def secret_server():
    """A server at 127.0.0.2; gives its port, and a list of what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    with serving(ThreadingHTTPServer(("127.0.0.2", 0), Handler)) as port:
        yield port, asked


@contextmanager
def redirecting(target):
    """A server that sends whoever asks to the target; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/car.jpg"


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_answer_is_the_sdks(door, services):
    with vmmr.Client(*services.targets) as client:
        found = client.identify(b"7")
    told = door.http.post("/v1/identify", files=form(b"7")).json()["answers"][0]
    assert told["text"] == str(found)
    own = told["identification"]
    assert own["answer"] == vars(found.answer)
    assert own["verdict"] == found.verdict
    assert own["neighbours"] == [{**vars(n), "label": vars(n.label)} for n in found.neighbours]
    assert own["provenance"] == vars(found.provenance)
    assert [own[f"{level}_confidence"] for level in ("make", "model", "years", "label")] == [
        found.make_confidence,
        found.model_confidence,
        found.years_confidence,
        found.label_confidence,
    ]


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape"])
@pytest.mark.parametrize(
    "part", ['name="photo"; filename="%s"\r\n\r\n7', 'name="label"\r\n\r\n%s', 'name="%s"\r\n\r\nx']
)
def test_text_that_is_none_is_refused_whatever_character_set_it_is_said_to_be_in(door, charset, part):
    half = {"utf-7": "+2AA-", "unicode_escape": "\\ud800"}[charset]
    body = f"--b\r\nContent-Disposition: form-data; {part % half}\r\n--b--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    reply = door.http.post("/v1/identify", content=body, headers=kind)
    assert (reply.status_code, reply.json()["reason"]) == (400, "INVALID_REQUEST")
    assert "the form can't be read" in reply.json()["detail"]


def test_options_reach_the_services(door, services):
    asked = "k=3&make=honda&make=kia&min_year=2001&exact=true&min_confidence=0.5&crop=0.1,0.2,0.9,0.8"
    assert years(door.http.post(f"/v1/identify?{asked}", files=form(b"7"))) == [2007]
    image = services.embedder.script.of("Embed")[0].request.images[0]
    assert [round(getattr(image.crop, side), 3) for side in ("left", "top", "right", "bottom")] == [0.1, 0.2, 0.9, 0.8]
    request = services.search.script.of("Classify")[0].request
    options = request.options
    assert (options.k, list(options.filter.makes), options.filter.min_year, options.exact) == (
        3,
        ["honda", "kia"],
        2001,
        True,
    )
    assert request.min_confidence == pytest.approx(0.5)


def test_every_car_of_a_photo_has_an_answer(door, services):
    services.embedder.cars = {7: [scripted_car(0.1), scripted_car(0.3)]}
    reply = door.http.post("/v1/identify?subject=every_car", files=form(b"7"))
    assert years(reply) == [2007, 2008]
    boxes = [answer["identification"]["cut"]["box"]["left"] for answer in reply.json()["answers"]]
    assert boxes == pytest.approx([0.1, 0.3])


def scripted_car(left: float):
    from tests.client.conftest import car

    return car(left, 0.9)


def test_several_photos_have_an_answer_each_and_a_bad_one_its_problem(door):
    reply = door.http.post("/v1/identify", files=form(b"1", b"no photo", b"3"))
    first, bad, last = reply.json()["answers"]
    assert (first["text"], last["text"]) == ("honda pilot 2001", "honda pilot 2003")
    assert bad["identification"] is None
    assert (bad["photo"], bad["name"], bad["problem"]["reason"], bad["problem"]["status"]) == (
        1,
        "1.jpg",
        "INVALID_IMAGE",
        400,
    )


def test_a_single_bad_photo_is_the_problem_of_the_request(door):
    reply = door.http.post("/v1/identify", files=form(b"no photo"))
    problem = reply.json()
    assert reply.status_code == problem["status"] == 400
    assert reply.headers["content-type"] == "application/problem+json"
    assert (problem["reason"], problem["grpc_status"], problem["title"]) == (
        "INVALID_IMAGE",
        "INVALID_ARGUMENT",
        "Bad Request",
    )
    assert problem["violations"] == [
        {"field": "images[0].content", "reason": "IMAGE_FORMAT", "description": "not an image"}
    ]


def test_several_photos_of_one_car_have_one_answer(door, services):
    reply = door.http.post("/v1/identify?one_car=true", files=form(b"1", b"2"))
    assert years(reply) == [2001]
    assert reply.json()["answers"][0]["photo"] is None
    assert services.search.script.of("Classify")[0].request.fuse


def test_csv_is_a_row_a_photo_and_no_formula(door):
    files = [("photo", ("=cmd.jpg", b"1")), ("photo", ("b.jpg", b"no photo"))]
    reply = door.http.post("/v1/identify?format=csv", files=files)
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    good, bad = csv.DictReader(io.StringIO(reply.text))
    assert (good["name"], good["label"], good["first_year"]) == ("'=cmd.jpg", "honda_pilot_2001", "2001")
    assert (bad["label"], bad["problem"]) == ("", "INVALID_IMAGE")


def test_ndjson_has_the_first_answers_before_the_last_photos_are_embedded(opened, services):
    """The embedder takes a photo a call; the second call waits until the first line has been read."""
    read = threading.Event()
    services.embedder.limits.max_images = 1
    services.embedder.script.marked[b"2222"] = lambda *_: (
        None if read.wait(60) else pytest.fail("the first line did not come")
    )
    door = opened()
    with door.http.stream("POST", "/v1/identify?format=ndjson", files=form(b"1", b"2222", b"3")) as reply:
        assert reply.headers["content-type"] == "application/x-ndjson"
        lines = reply.iter_lines()
        first = json.loads(next(lines))
        read.set()
        rest = [json.loads(line) for line in lines]
    assert [line["photo"] for line in (first, *rest)] == [0, 1, 2]
    assert first["text"] == "honda pilot 2001"


@pytest.mark.parametrize(
    ("query", "sent", "status", "says"),
    [
        ("", {"files": {"other": b"7"}}, 400, "parts named photo, got 'other'"),
        ("", {"content": b"", "headers": JPEG}, 400, "has no photo"),
        ("", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "text/plain"),
        ("", {"content": b"x"}, 415, "no Content-Type"),
        ("", {"json": {"url": "http://x/", "base64": "Nw=="}}, 400, "give one of url and base64"),
        ("", {"json": {}}, 400, "body: give one of url and base64"),
        ("", {"json": {"base64": "!!!!"}}, 400, "body.base64: is not base64: "),
        ("", {"json": {"base64": "data:image/jpeg;base64,Nw=="}}, 400, "body.base64: is not base64: "),
        ("", {"json": {"url": "ftp://x/1.jpg"}}, 400, "not an http:// or https:// URL"),
        ("", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "body: EOF"),
        ("", {"content": b"[]", "headers": {"Content-Type": "application/json"}}, 400, "body: "),
        ("", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ("?crop=0.5,0,0.4,1", {"files": form(b"7")}, 400, "left < right"),
        ("?crop=nan,0,1,1", {"files": form(b"7")}, 400, "crop"),
        ("?crop=0,0,1,1&subject=whole", {"files": form(b"7")}, 400, "give one of them"),
        ("?subject=every_car", {"files": form(b"7", b"8")}, 400, "takes one photo"),
        ("?k=0", {"files": form(b"7")}, 400, "query.k"),
        ("?max_yaer=3", {"files": form(b"7")}, 400, "query.max_yaer"),
        ("?one_car=true", {"files": form(*[b"7"] * 9)}, 400, "got more than 8"),
    ],
)
def test_what_makes_no_sense_is_refused_with_words_that_say_what(door, query, sent, status, says):
    reply = door.http.post(f"/v1/identify{query}", **sent)
    assert reply.status_code == status
    assert says in reply.json()["detail"]
