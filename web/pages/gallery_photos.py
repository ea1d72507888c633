"""The photos of gallery items: in the folder of `--photos`, on the web, or nowhere."""

import asyncio
from pathlib import Path

import vmmr
from fastapi import APIRouter, Request
from starlette.responses import Response

from web.door.door import Door, TheDoor
from web.pages.photo_files import kind_of, photo_reply
from web.pages.site import static_address

router = APIRouter(include_in_schema=False)

_AN_HOUR = "private, max-age=3600"


@router.get("/photo")
async def photo(request: Request, door: TheDoor, id: str) -> Response:  # noqa: A002 (the word in the address)
    """Return the photo of an item, or a drawing where it isn't at hand: a page need not know which."""
    del request
    try:
        content = await photo_of(door, await door.client.get_item(id))
    except vmmr.ItemNotFoundError:
        content = None
    kind = kind_of(content) if content else None
    if content is None or kind is None:
        return Response(status_code=302, headers={"location": static_address("car.svg"), "cache-control": _AN_HOUR})
    return photo_reply(content, kind, {"cache-control": _AN_HOUR})


async def photo_of(door: Door, item: vmmr.Item) -> bytes | None:
    """Return the bytes of an item's photo; None if it isn't at hand, or larger than photos may be."""
    settings = door.settings
    if item.uri.startswith(("http://", "https://")):
        url = vmmr.URL(item.uri, max_bytes=settings.max_photo_bytes, allow_private=settings.allow_private)
        async with door.gallery_reads:
            return await asyncio.to_thread(_fetched, url)
    if settings.photos is None or not item.uri:
        return None
    async with door.gallery_reads:
        return await asyncio.to_thread(_read_below, settings.photos, item.uri, settings.max_photo_bytes)


def _fetched(url: vmmr.URL) -> bytes | None:
    try:
        return url.read()
    except vmmr.FetchError:
        return None


def _read_below(folder: Path, name: str, max_bytes: int) -> bytes | None:
    """Return the bytes of a file in the folder; None for a path that leads out of it, by whatever way, links included."""
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > max_bytes:
            return None
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        return None
