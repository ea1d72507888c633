"""What all routes share, and how a route asks for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import vmmr
from fastapi import Depends, Request

from svckit.config import ConfigError
from web.config import WebConfig
from web.door.access import Access
from web.door.body import read_body
from web.door.kept import Kept
from web.door.photos import Sent, check_some, parse
from web.door.problems import DoorError, Reason
from web.door.rates import Rates

_GALLERY_READS = 8
_RECONNECT_S = 3.0
"""Seconds after which a service that can't be reached is told to be away: a person waits no longer, and a proxy has other doors."""


@dataclass
class Door:
    """The client of both services, the settings, and what is remembered between requests. One for the whole program."""

    settings: WebConfig
    client: vmmr.AsyncClient
    access: Access
    rates: Rates
    kept: Kept
    stopping: bool = False
    busy: int = 0
    """Requests with photos that are being served."""
    gallery_reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_GALLERY_READS))
    """Room for reading photos of the gallery, from files or the web: a slow web server must not hold up requests with photos."""

    def stop(self) -> None:
        """Have health checks fail from now until the end of the program."""
        self.stopping = True

    @contextmanager
    def room(self) -> Iterator[None]:
        """Count a request with photos. Raise DoorError if as many are being served as may be."""
        if self.busy >= self.settings.max_concurrent_calls:
            raise DoorError(Reason.BUSY, "too many requests with photos are being served", retry_after_s=1.0)
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def within(self, timeout_s: float | None) -> float:
        """Return the seconds that a call may take: what its caller asks for, and no more than the setting."""
        return min(timeout_s or self.settings.timeout_s, self.settings.timeout_s)

    async def read(self, request: Request) -> Sent:
        """Return the photos and fields that a request has sent. Raise DoorError, also if there is no photo."""
        return check_some(await self.read_form(request))

    async def read_form(self, request: Request) -> Sent:
        """Return the photos, if any, and fields that a request has sent. Raise DoorError."""
        limits = self.settings
        body = await read_body(request, max_bytes=limits.max_upload_bytes, timeout_s=limits.upload_timeout_s)
        return await parse(
            request.headers,
            body,
            max_photos=limits.max_photos,
            max_photo_bytes=limits.max_photo_bytes,
            allow_private=limits.allow_private,
        )


def door_of(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


# What routes depend on is asynchronous, though it waits for nothing: the framework runs plain functions in threads, at half a
# millisecond of every request.
async def _the_door(request: Request) -> Door:
    return door_of(request)


TheDoor = Annotated[Door, Depends(_the_door)]


async def admit(request: Request, door: TheDoor) -> AsyncIterator[None]:
    """Take a place among the requests with photos, before the body is read; leave it when the answer is sent."""
    _count(request, door)
    with door.room():
        yield


async def may_write(request: Request, door: TheDoor) -> None:
    """Raise DoorError unless whoever sent the request may change the gallery.

    A request without a session counts for its address, so that nobody can try tokens without end.
    """
    if not door.access.signed_in(request):
        _count(request, door)
    door.access.check(request)


def _count(request: Request, door: Door) -> None:
    """Count the request for its address, once. Raise DoorError if the address has sent too many."""
    if not getattr(request.state, "counted", False):
        request.state.counted = True
        door.rates.take(request.client.host if request.client else "")


Admitted = Depends(admit)
MayWrite = Depends(may_write)


@asynccontextmanager
async def connected(settings: WebConfig, services_token: str | None) -> AsyncIterator[vmmr.AsyncClient]:
    """Yield a client of both services.

    It reads URLs in threads of the loop's default executor: have one for every request that may run, and some for the gallery's photos.
    """
    threads = ThreadPoolExecutor(settings.max_concurrent_calls + _GALLERY_READS, "vmmr-web-read")
    asyncio.get_running_loop().set_default_executor(threads)
    try:
        client = vmmr.AsyncClient(
            settings.embedder,
            settings.search,
            timeout_s=settings.timeout_s,
            tls=_tls(settings),
            token=services_token,
            reconnect_s=_RECONNECT_S,
        )
    except ValueError as error:
        raise ConfigError(f"--embedder {settings.embedder}, --search {settings.search}: {error}") from error
    async with client:
        yield client


def _tls(settings: WebConfig) -> vmmr.TLS | None:
    if not (settings.services_tls or settings.services_tls_ca or settings.services_tls_cert):
        return None
    return vmmr.TLS(settings.services_tls_ca, settings.services_tls_cert, settings.services_tls_key)
