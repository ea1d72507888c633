"""Fetch photos from URLs, which strangers may have chosen, with limits on time, size, redirects and addresses.

A host is resolved once a hop. All its addresses must be allowed, and the connection is made to one of those very
addresses, so that a name that resolves differently a moment later (DNS rebinding) leads nowhere else. TLS still
verifies the host's name. Proxies of the environment are not used: what they connect to can't be checked.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from string import punctuation
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from vmmr._addresses import Endpoint, IPAddress, is_public, resolve
from vmmr._deadlines import Deadline
from vmmr._errors import FetchError
from vmmr._mistaken import shortened
from vmmr._sockets import DeadlineSocket, connect
from vmmr._version import __version__

_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class URL:
    """A photo on a web server, for any method of `Client` that takes a photo. It is fetched when it is read.

    Reading raises FetchError if it can't be had within the limits, or leads to an address that isn't public.
    """

    url: str
    """`http://` or `https://`."""
    timeout_s: float = 10.0
    """Seconds for everything: names, connections, redirects, the body."""
    max_bytes: int = 32 * 2**20
    max_redirects: int = 5
    allow_private: bool = False
    """Allow private, loopback and link-local addresses. Do not set it for URLs that others choose."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the photo's bytes, or the first `size` of them. Raise FetchError."""
        content = fetch(self, _anything if self.allow_private else is_public)
        return content if size < 0 else content[:size]


def fetch(wanted: URL, allowed: Callable[[IPAddress], bool]) -> bytes:
    """Return the content of the URL. Raise FetchError, also if it leads to an address that isn't allowed."""
    deadline = Deadline(wanted.timeout_s)
    url = wanted.url
    for _ in range(wanted.max_redirects + 1):
        try:
            with _request(url, allowed, deadline) as response:
                if response.status not in _REDIRECTS:
                    return _body(response, wanted.max_bytes)
                url = urljoin(url, _location(response))
        except TimeoutError:
            raise FetchError(f"{shortened(url)}: no complete answer within {wanted.timeout_s:g} s") from None
        except OSError as error:
            raise FetchError(f"{shortened(url)}: {error.strerror or error}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise FetchError(f"{shortened(url)}: {error}") from error
    raise FetchError(f"{shortened(wanted.url)}: more than {wanted.max_redirects} redirects")


@contextmanager
def _request(url: str, allowed: Callable[[IPAddress], bool], deadline: Deadline) -> Iterator[http.client.HTTPResponse]:
    parts = _parse(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    endpoints = _endpoints(host, port, allowed, deadline)
    with connect(endpoints, deadline) as plain, _secured(plain, parts.scheme, host, deadline) as sock:
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = _PORTS[parts.scheme]
        connection.sock = DeadlineSocket(sock, deadline)
        connection.request("GET", _target(parts), headers={"User-Agent": f"vmmr/{__version__}"})
        with connection.getresponse() as response:
            yield response


def _parse(url: str) -> SplitResult:
    """Return the parts of the URL. Raise ValueError if it can't be fetched."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("not an http:// or https:// URL")
    if not parts.hostname or parts.username is not None:
        raise ValueError("the URL must name a host, and no user")
    return parts


def _endpoints(host: str, port: int, allowed: Callable[[IPAddress], bool], deadline: Deadline) -> list[Endpoint]:
    endpoints = resolve(host, port, deadline.remaining_s())
    for endpoint in endpoints:
        if not allowed(endpoint.address):
            raise ValueError(
                f"{host} leads to {endpoint.address}, which is not a public address: allow_private=True permits it"
            )
    return endpoints


def _secured(sock: socket.socket, scheme: str, host: str, deadline: Deadline) -> socket.socket:
    """Return the socket, with TLS around it for https."""
    if scheme == "http":
        return sock
    sock.settimeout(deadline.remaining_s())
    return _tls_context().wrap_socket(sock, server_hostname=host)


@cache
def _tls_context() -> ssl.SSLContext:
    """Return one context for all fetches: reading the system's certificates takes longer than most of them."""
    return ssl.create_default_context()


def _target(parts: SplitResult) -> str:
    """Return path and query, with the characters percent-encoded that may not be sent as they are."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    return f"{path}?{query}" if query else path


def _location(response: http.client.HTTPResponse) -> str:
    """Return where a redirect leads. Raise ValueError if it doesn't say."""
    location = response.headers["Location"]
    if not location:
        raise ValueError(f"the server answered {response.status}, a redirect, and no Location")
    # http.client reads headers as Latin-1, so this encodes what is not ASCII as the bytes that the server sent.
    return quote(location, safe=punctuation, encoding="latin-1")


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """Return the photo in the response. Raise ValueError if there is none, or not all of it."""
    if response.status != http.HTTPStatus.OK:
        raise ValueError(f"the server answered {response.status} {response.reason}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError(f"the server sent it compressed, unasked: {response.headers['Content-Encoding']}")
    too_large = ValueError(f"larger than {max_bytes} bytes")
    if (response.length or 0) > max_bytes:
        raise too_large
    content = response.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise too_large
    if response.length:
        raise ValueError(f"the connection ended {response.length} bytes early")
    return content


def _anything(_: IPAddress) -> bool:
    return True
