"""The page for one car: ask, see the answer, look at another part of the photo, compare."""

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated

import vmmr
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from web.api.options import to_box
from web.door.door import Admitted, Door, TheDoor
from web.door.gone import unless_gone
from web.door.photos import SentPhoto
from web.door.problems import DoorError, Reason
from web.pages.photo_files import kind_of, photo_reply, shown_size
from web.pages.site import page, see_other
from web.pages.texts import T
from web.pages.views import view

router = APIRouter(include_in_schema=False)

_SHOWN = 12
"""Neighbours that are shown, of all that voted."""
_BYTES_OF_ANSWER = 2**15


@dataclass(frozen=True)
class KeptAnswer:
    """An answer, with its photos, for its link."""

    photos: list[bytes]
    cars: list[vmmr.Identification]
    """One for each car of a single photo, the main one first; one for several photos."""


@router.get("/")
async def ask(request: Request, door: TheDoor, url: str = "") -> Response:
    """Return the form. No service is asked for it."""
    return page(request, "ask.html", url=url, limits=door.settings)


@router.post("/", dependencies=[Admitted])
async def asked(request: Request, door: TheDoor) -> Response:
    """Identify the car of the photos that were sent, and show the answer under an address of its own."""
    sent = (await door.read(request)).photos
    photos = [await _content(photo, door.settings.timeout_s) for photo in sent]
    name = await unless_gone(request, _answer(door, photos))
    return see_other(f"/answers/{name}")


@router.get("/answers/{name}")
async def answer(request: Request, door: TheDoor, name: str, car: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Return the answer for a car of the photo: the same whenever it is asked for."""
    kept = _kept(door, name)
    chosen = _car(kept, car)
    return page(
        request,
        "answer.html",
        name=name,
        car=car,
        found=chosen,
        view=view(chosen),
        cars=[(view(each).heading, each.cut) for each in kept.cars],
        sizes=[shown_size(photo) for photo in kept.photos],
        shown=_SHOWN,
        link=str(request.url_for("answer", name=name)),
    )


@router.get("/answers/{name}/photo")
async def sent_photo(door: TheDoor, name: str, n: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Return a photo that was sent."""
    photos = _kept(door, name).photos
    if n >= len(photos):
        raise DoorError(Reason.NOT_FOUND, f"the answer has {len(photos)} photos")
    return photo_reply(photos[n], kind_of(photos[n]) or "application/octet-stream")


@router.post("/answers/{name}/crop", dependencies=[Admitted])
async def crop(request: Request, door: TheDoor, name: str) -> Response:
    """Identify what is in a box on the photo, and show that answer."""
    kept = _kept(door, name)
    sent = await door.read_form(request)
    try:
        percents = [float(sent.one(side)) for side in ("left", "top", "right", "bottom")]
        box = to_box(",".join(str(each / 100) for each in percents))
    except ValueError:
        raise DoorError(
            Reason.INVALID_REQUEST, "the edges of the box must be percents, left before right and top before bottom"
        ) from None
    found = await unless_gone(request, door.client.identify(kept.photos[0], crop=box))
    return see_other(f"/answers/{_keep(door, kept.photos[:1], [found])}")


@router.get("/answers/{name}/compare")
async def compare(
    request: Request,
    door: TheDoor,
    name: str,
    car: Annotated[int, Query(ge=0)] = 0,
    item: Annotated[list[str], Query()] = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """Return the photo that was sent beside two of its neighbours."""
    chosen = [near for near in view(_car(_kept(door, name), car)).neighbours if near.item_id in item]
    if len(chosen) != 2:
        raise DoorError(Reason.INVALID_REQUEST, T.compare_wants_two)
    return page(request, "compare.html", name=name, car=car, chosen=chosen)


async def _content(photo: SentPhoto, timeout_s: float) -> bytes:
    if isinstance(photo.source, bytes):
        return photo.source
    return await asyncio.to_thread(replace(photo.source, timeout_s=min(photo.source.timeout_s, timeout_s)).read)


async def _answer(door: Door, photos: list[bytes]) -> str:
    """Identify the car, or each car of a single photo; return the name that the answer is kept under."""
    if len(photos) > 1:
        try:
            found = [await door.client.identify_car(photos)]
        except ValueError as error:
            raise DoorError(Reason.INVALID_REQUEST, str(error)) from error
    else:
        found = await _every_car(door, photos[0])
    return _keep(door, photos, found)


async def _every_car(door: Door, photo: bytes) -> list[vmmr.Identification]:
    try:
        return await door.client.identify_every_car(photo)
    except vmmr.CallError as error:
        if error.reason != "NO_DETECTOR":
            raise
        return [await door.client.identify(photo)]


def _keep(door: Door, photos: list[bytes], cars: list[vmmr.Identification]) -> str:
    size = sum(map(len, photos)) + _BYTES_OF_ANSWER * len(cars)
    return door.kept.keep(KeptAnswer(photos, cars), size)


def _kept(door: Door, name: str) -> KeptAnswer:
    kept = door.kept.get(name)
    if not isinstance(kept, KeptAnswer):
        raise DoorError(Reason.NOT_FOUND, "there is no such answer")
    return kept


def _car(kept: KeptAnswer, car: int) -> vmmr.Identification:
    if car >= len(kept.cars):
        raise DoorError(Reason.NOT_FOUND, f"the photo has {len(kept.cars)} cars")
    return kept.cars[car]
