"""Photos from URLs: what a stranger's URL may cost, and where it may lead."""

import gc
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest
import trustme
import vmmr
from hypothesis import given
from hypothesis import strategies as st
from vmmr._addresses import is_public
from vmmr._fetch import _tls_context, fetch

Page = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A real web server on a loopback address."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[BaseHTTPRequestHandler] = []
        self.leave = threading.Event()
        pages, requests = self.pages, self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                requests.append(self)
                pages[self.path](self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # a client that gives up is what the tests are about
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = self._server.server_port

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        self.leave.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def answer(content: bytes = b"", status: int = 200, **headers: str) -> Page:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return page


def to(location: str, status: int = 302) -> Page:
    return answer(status=status, Location=location)


def drip(site: Site, start: bytes) -> Page:
    """Never silent for long, never done."""

    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while not site.leave.wait(0.05):
            handler.wfile.write(b"x")

    return page


def only_loopback_one(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """As if 127.0.0.1 were the internet, and all other addresses private."""
    return address == ipaddress.ip_address("127.0.0.1")


def read(url: str, **limits) -> bytes:
    return vmmr.URL(url, allow_private=True, **limits).read()


def test_a_photo_is_fetched(site):
    site.pages["/car.jpg"] = answer(b"photo")
    assert read(site.url("/car.jpg")) == b"photo"
    headers = site.requests[0].headers
    assert headers["Host"] == f"127.0.0.1:{site.port}"
    assert headers["User-Agent"].startswith("vmmr/")
    assert headers["Accept-Encoding"] == "identity"


def test_a_photo_without_a_length_or_in_chunks_is_fetched(site):
    def chunked(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npho\r\n2\r\nto\r\n0\r\n\r\n")

    site.pages["/until-closed"] = lambda handler: handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nphoto")
    site.pages["/chunked"] = chunked
    assert read(site.url("/until-closed")) == b"photo"
    assert read(site.url("/chunked")) == b"photo"


def test_paths_and_queries_are_sent_as_http_allows(site):
    site.pages["/caf%C3%A9%20car.jpg?size=a%20b&x=%2F"] = answer(b"photo")
    assert read(site.url("/café car.jpg?size=a b&x=%2F#fragment")) == b"photo"


def test_a_url_is_a_photo_like_any_other(site, client):
    site.pages["/7"] = answer(b"7")
    site.pages["/gone"] = answer(status=404)
    good, bad = (vmmr.URL(site.url(path), allow_private=True) for path in ("/7", "/gone"))
    assert client.identify(good).answer.year == 2007
    with pytest.raises(vmmr.FetchError, match="404 Not Found"):
        client.identify(bad)
    outcomes = list(client.identify_many([good, bad, good]))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), vmmr.FetchError, type(None)]


def test_urls_are_fetched_side_by_side_and_answered_in_order(site, client):
    together = threading.Barrier(4, timeout=60)

    def page(n):
        return lambda handler: together.wait() >= 0 and answer(b"%d" % n)(handler)

    site.pages |= {f"/{n}": page(n) for n in range(4)}
    urls = [vmmr.URL(site.url(f"/{n}"), allow_private=True, timeout_s=60) for n in range(4)]
    outcomes = list(client.identify_many([b"9", *urls, b"8"]))
    assert [outcome.result().answer.year for outcome in outcomes] == [2009, 2000, 2001, 2002, 2003, 2008]


@pytest.mark.parametrize("ask", ["embed", "identify_car"])
def test_urls_of_one_call_are_fetched_side_by_side_too(site, client, services, ask):
    together = threading.Barrier(4, timeout=60)

    def page(n):
        return lambda handler: together.wait() >= 0 and answer(b"%d" % n)(handler)

    site.pages |= {f"/{n}": page(n) for n in range(4)}
    urls = [vmmr.URL(site.url(f"/{n}"), allow_private=True, timeout_s=60) for n in range(4)]
    getattr(client, ask)([b"9", *urls, b"8"], timeout_s=60)
    [call] = services.embedder.script.of("Embed")
    assert [image.content for image in call.request.images] == [b"9", b"0", b"1", b"2", b"3", b"8"]


def test_of_several_urls_that_fail_the_first_is_the_error_and_nobody_complains_of_the_others(site, client, caplog):
    gone, others = answer(b"gone", status=404), threading.Semaphore(0)

    def first(handler):
        """It fails last: the others have failed by then, and nobody is going to ask."""
        assert all(others.acquire(timeout=60) for _ in range(2))
        gone(handler)

    def other(handler):
        gone(handler)
        others.release()

    site.pages |= {"/0": first, "/1": other, "/2": other}
    urls = [vmmr.URL(site.url(f"/{n}"), allow_private=True, timeout_s=60) for n in range(3)]
    with pytest.raises(vmmr.FetchError, match=rf"^photos\[1\]: {site.url('/0')}: the server answered 404"):
        client.embed([b"1", *urls], timeout_s=60)
    gc.collect()
    assert caplog.records == []


def test_and_no_further_ahead_than_three_batches(site, services):
    site.pages["/1"] = answer(b"1")
    with vmmr.Client(*services.targets) as client:
        endless = (vmmr.URL(site.url("/1"), allow_private=True) for _ in count())
        outcomes = client.identify_many(endless, batch=2)
        for seen in range(10):
            assert next(outcomes).result().answer.year == 2001
            assert len(site.requests) <= seen + 6
        outcomes.close()


def test_the_deadline_of_an_operation_ends_its_fetches(site, client):
    site.pages["/"] = drip(site, b"HTTP/1.1 200 OK\r\n\r\n")
    slow = vmmr.URL(site.url("/"), allow_private=True, timeout_s=60)
    with pytest.raises(vmmr.DeadlineExceededError, match=f"no time was left for {slow.url}") as caught:
        client.identify(slow, timeout_s=0.3)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    with pytest.raises(vmmr.DeadlineExceededError):
        client.embed([slow, slow], timeout_s=0.3)


def test_a_url_that_takes_longer_than_it_may_is_a_fetch_error_though_the_operation_has_time(site, client):
    site.pages["/"] = drip(site, b"HTTP/1.1 200 OK\r\n\r\n")
    slow = vmmr.URL(site.url("/"), allow_private=True, timeout_s=0.2)
    with pytest.raises(vmmr.FetchError, match=r"no complete answer within 0\.2 s"):
        client.identify(slow, timeout_s=60)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(site, status):
    site.pages["/a"] = to("/b/c?d", status)
    site.pages["/b/c?d"] = to("e", status)
    site.pages["/b/e"] = answer(b"photo")
    assert read(site.url("/a")) == b"photo"


def test_redirects_are_counted(site):
    site.pages["/loop"] = to("/loop")
    with pytest.raises(vmmr.FetchError, match="/loop: more than 3 redirects"):
        read(site.url("/loop"), max_redirects=3)
    assert len(site.requests) == 4


@pytest.mark.parametrize(
    ("sent", "asked"), [("/café à".encode(), "/caf%C3%A9%20%C3%A0"), (b"/caf\xe9", "/caf%E9"), (b"/a%20b", "/a%20b")]
)
def test_a_redirect_is_followed_to_the_bytes_that_were_sent(site, sent, asked):
    site.pages["/"] = to(sent.decode("latin-1"))
    site.pages[asked] = answer(b"photo")
    assert read(site.url("/")) == b"photo"


@pytest.mark.parametrize("page", [answer(status=302), to("")])
def test_a_redirect_without_a_location_is_refused_at_once(site, page):
    site.pages["/"] = page
    with pytest.raises(vmmr.FetchError, match="the server answered 302, a redirect, and no Location"):
        read(site.url("/"))
    assert len(site.requests) == 1


def test_a_redirect_to_another_scheme_is_refused(site):
    site.pages["/file"] = to("file:///etc/passwd")
    with pytest.raises(vmmr.FetchError, match="file:///etc/passwd: not an http:// or https:// URL"):
        read(site.url("/file"))


@pytest.mark.parametrize("target", ["http://127.0.0.2:{port}/", "http://10.0.0.1/", "http://[::1]:{port}/"])
def test_a_redirect_to_a_private_address_is_refused_without_connecting(site, target):
    site.pages["/"] = to(target.format(port=site.port))
    with pytest.raises(vmmr.FetchError, match="not a public address"):
        fetch(vmmr.URL(site.url("/")), only_loopback_one)
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0.0.0.0"],
)
def test_addresses_that_are_not_public_are_refused_however_they_are_written(host):
    with pytest.raises(vmmr.FetchError, match="which is not a public address"):
        vmmr.URL(f"http://{host}:1/").read()


@pytest.fixture
def names(monkeypatch):
    """Makes host names resolve to addresses, in turn, and counts how often each was asked for."""
    asked: dict[str, int] = {}

    def set_names(**answers: list[list[str]]) -> dict[str, int]:
        def getaddrinfo(host, port, **_):
            turn = asked.get(host, 0)
            asked[host] = turn + 1
            addresses = answers[host][min(turn, len(answers[host]) - 1)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return set_names


def test_a_name_with_one_private_address_among_its_public_ones_is_refused(site, names):
    site.pages["/"] = answer(b"photo")
    names(mixed=[["127.0.0.1", "10.0.0.1"]])
    with pytest.raises(vmmr.FetchError, match=r"mixed leads to 10\.0\.0\.1, which is not a public address"):
        fetch(vmmr.URL(site.url("/", "mixed")), only_loopback_one)
    assert site.requests == []


def test_a_name_that_is_rebound_after_the_check_leads_nowhere_else(site, names):
    site.pages["/"] = answer(b"photo")
    asked = names(rebound=[["127.0.0.1"], ["127.0.0.2"]])
    assert fetch(vmmr.URL(site.url("/", "rebound")), only_loopback_one) == b"photo"
    assert asked == {"rebound": 1}


def test_a_name_is_checked_again_when_a_redirect_leads_back_to_it(site, names):
    site.pages["/"] = to("/again")
    names(rebound=[["127.0.0.1"], ["127.0.0.2"]])
    with pytest.raises(vmmr.FetchError, match="not a public address"):
        fetch(vmmr.URL(site.url("/", "rebound")), only_loopback_one)
    assert len(site.requests) == 1


def test_an_address_that_does_not_answer_leaves_the_others(site, names):
    site.pages["/"] = answer(b"photo")
    names(both=[["127.0.0.2", "127.0.0.1"]])
    assert read(site.url("/", "both")) == b"photo"


def test_a_name_that_does_not_exist_is_a_fetch_error(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(vmmr.FetchError, match=r"http://nowhere/: .*Name or service not known"):
        vmmr.URL("http://nowhere/").read()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_site(ca, monkeypatch, tmp_path) -> Iterator[Site]:
    """A site with a certificate for `photos`, which the system trusts."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("photos").configure_cert(context)
    site = Site(context)
    _tls_context.cache_clear()
    yield site
    site.close()
    _tls_context.cache_clear()


def test_tls_is_verified_for_the_name_though_the_connection_is_to_an_address(secure_site, names):
    secure_site.pages["/"] = answer(b"photo")
    names(photos=[["127.0.0.1"]], others=[["127.0.0.1"]])
    assert read(secure_site.url("/", "photos", "https")) == b"photo"
    with pytest.raises(vmmr.FetchError, match="certificate"):
        read(secure_site.url("/", "others", "https"))
    assert len(secure_site.requests) == 1
    assert _tls_context.cache_info().misses == 1  # the certificates were read once


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_site, names, monkeypatch):
    names(photos=[["127.0.0.1"]])
    monkeypatch.delenv("SSL_CERT_FILE")
    _tls_context.cache_clear()
    with pytest.raises(vmmr.FetchError, match="certificate"):
        read(secure_site.url("/", "photos", "https"))


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_drip_of_bytes_does_not_stretch_the_time_limit(site, start):
    site.pages["/"] = drip(site, start)
    with pytest.raises(vmmr.FetchError, match=r"no complete answer within 0\.3 s"):
        read(site.url("/"), timeout_s=0.3)


def test_a_server_that_accepts_and_says_nothing_is_given_up(names):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for scheme in ("http", "https"):
            with pytest.raises(vmmr.FetchError, match=r"no complete answer within 0\.2 s"):
                read(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.2)


def test_a_resolver_that_hangs_is_given_up(monkeypatch):
    leave = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: leave.wait(60) and [])
    with pytest.raises(vmmr.FetchError, match=r"no complete answer within 0\.2 s"):
        vmmr.URL("http://slow/", timeout_s=0.2).read()
    leave.set()


def test_too_large_a_photo_is_refused_at_its_announcement(site):
    site.pages["/"] = answer(Content_Length="1001")
    with pytest.raises(vmmr.FetchError, match="larger than 1000 bytes"):
        read(site.url("/"), max_bytes=1000)


def test_and_unannounced_when_it_passes_the_limit(site):
    sent = []

    def endless(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(bytes(1000))
            sent.append(1000)

    site.pages["/"] = endless
    with pytest.raises(vmmr.FetchError, match="larger than 100000 bytes"):
        read(site.url("/"), max_bytes=100_000)
    assert sum(sent) < 50_000_000


def test_a_photo_of_exactly_the_limit_is_fetched(site):
    site.pages["/"] = answer(bytes(1000))
    assert read(site.url("/"), max_bytes=1000) == bytes(1000)
    assert vmmr.URL(site.url("/"), allow_private=True).read(10) == bytes(10)


def test_half_a_photo_is_none(site):
    site.pages["/"] = answer(b"pho", Content_Length="5")
    with pytest.raises(vmmr.FetchError, match="2 bytes early"):
        read(site.url("/"))


def test_a_compressed_answer_is_refused_for_it_could_be_a_bomb(site):
    site.pages["/"] = answer(b"photo", Content_Encoding="gzip")
    with pytest.raises(vmmr.FetchError, match="compressed, unasked: gzip"):
        read(site.url("/"))


@pytest.mark.parametrize(
    "garbage", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n" * 200]
)
def test_what_is_no_http_is_a_fetch_error_or_no_photo(site, garbage):
    site.pages["/"] = lambda handler: handler.wfile.write(garbage)
    with pytest.raises(vmmr.FetchError):
        read(site.url("/"), max_bytes=1000)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "file:///etc/passwd",
        "photo.jpg",
        "http://",
        "http:///path",
        "http://user:secret@host/",
        "http://[::1",
        "http://host:99999/",
        "http://a..b/",
        "http://a\x00b/",
    ],
)
def test_what_is_no_url_of_a_web_server_is_a_fetch_error(url):
    with pytest.raises(vmmr.FetchError):
        vmmr.URL(url).read()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("64:ff9b::5db8:d822", True),  # NAT64 of a public address
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("::ffff:93.184.216.34", True),
        ("::ffff:10.0.0.1", False),
        ("::127.0.0.1", False),
        ("2002:7f00:1::", False),  # 6to4
        ("2001:0:7f00:1::", False),  # Teredo
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),  # carrier-grade NAT
        ("169.254.169.254", False),  # metadata of cloud machines
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
    ],
)
def test_public_addresses_are_those_of_the_open_internet(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_is_no_more_public_than_the_ipv4_address_within_it(inner):
    for prefix in ("::ffff:", "64:ff9b::"):
        assert is_public(ipaddress.ip_address(f"{prefix}{inner}")) is is_public(inner)
    assert not is_public(ipaddress.ip_address(f"::{inner}"))
    assert not is_public(ipaddress.ip_address((0x2002 << 112) | (int(inner) << 80)))
