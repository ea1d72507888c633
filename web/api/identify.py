"""`POST /v1/identify`."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import vmmr
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from web.api.documented import PHOTOS, TABLES
from web.api.options import IdentifyOptions, Looking, to_box
from web.api.replies import adapter, reply, request_id
from web.api.shapes import Answer, IdentifyReply
from web.api.tables import ANSWER_COLUMNS, answer_row, each, lines, table
from web.door.door import Admitted, Door, TheDoor
from web.door.gone import unless_gone
from web.door.photos import SentPhoto
from web.door.problems import DoorError, Reason, problem_of

router = APIRouter(tags=["photos"])


@router.post(
    "/v1/identify", response_model=IdentifyReply, openapi_extra=PHOTOS, responses=TABLES, dependencies=[Admitted]
)
async def identify(request: Request, door: TheDoor, options: Annotated[IdentifyOptions, Query()]) -> Response:
    """Return make, model and year of the cars that photos show.

    One photo that is bad is the problem of the request; of several, each has its answer or its problem.
    """
    photos = (await door.read(request)).photos
    options.check(len(photos))
    if options.format == "ndjson" and not options.one_car and options.subject != "every_car":
        return lines(adapter(Answer), many(door, photos, options, request_id(request)))
    answers = await unless_gone(request, answered(door, photos, options, request_id(request)))
    if options.format == "ndjson":
        return lines(adapter(Answer), each(answers))
    if options.format == "csv":
        return table(ANSWER_COLUMNS, each(map(answer_row, answers)))
    return reply(IdentifyReply(answers, request_id(request)))


async def answered(door: Door, photos: list[SentPhoto], options: IdentifyOptions, request_id: str) -> list[Answer]:
    """Return the answers for photos. Raise VmmrError if there is but one photo or one car, and it is bad."""
    how: dict[str, Any] = {
        "options": options.search,
        "min_confidence": options.min_confidence,
        "timeout_s": door.within(options.timeout_s),
    }
    if options.one_car:
        return [await _one_car(door, photos, options, how)]
    if len(photos) > 1:
        return [answer async for answer in many(door, photos, options, request_id)]
    [photo] = photos
    if options.subject == "every_car":
        cars = await door.client.identify_every_car(photo.source, **how)
        return [Answer(0, photo.name, str(car), car) for car in cars]
    found = await door.client.identify(
        photo.source, crop=_crop(photo, options), subject=_subject(photo, options), **how
    )
    return [Answer(0, photo.name, str(found), found)]


async def many(door: Door, photos: list[SentPhoto], options: IdentifyOptions, request_id: str) -> AsyncIterator[Answer]:
    """Yield the answer or the problem of each photo, in order, as they come."""
    outcomes = door.client.identify_many(
        [to_photo(photo, options) for photo in photos],
        options=options.search,
        min_confidence=options.min_confidence,
        timeout_s=door.within(options.timeout_s),
    )
    async for outcome in outcomes:
        name = photos[outcome.position].name
        if outcome.error is None:
            yield Answer(outcome.position, name, str(outcome.identification), outcome.identification)
        else:
            problem = problem_of(outcome.error, request_id)
            yield Answer(outcome.position, name, problem.detail, problem=problem)


async def _one_car(door: Door, photos: list[SentPhoto], options: IdentifyOptions, how: dict[str, Any]) -> Answer:
    try:
        found = await door.client.identify_car([to_photo(photo, options) for photo in photos], **how)
    except ValueError as error:
        # The client asks the services how many photos they take in one call.
        raise DoorError(Reason.INVALID_REQUEST, str(error)) from error
    return Answer(None, "", str(found), found)


def to_photo(photo: SentPhoto, options: Looking) -> vmmr.Photo:
    return vmmr.Photo(photo.source, _crop(photo, options), _subject(photo, options))


def _crop(photo: SentPhoto, options: Looking) -> vmmr.Box | None:
    return photo.crop or (to_box(options.crop) if options.crop else None)


def _subject(photo: SentPhoto, options: Looking) -> Any:
    """Return what to look at; a crop of the photo's own comes before what is said of all photos."""
    return None if photo.crop else options.subject
