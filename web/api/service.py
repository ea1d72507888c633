"""What is served, and whether it can answer."""

from typing import Annotated

import vmmr
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from web.api.documented import PROBLEMS
from web.api.options import Timeout
from web.api.replies import reply, request_id
from web.api.shapes import Health, InfoReply
from web.door.door import TheDoor
from web.door.problems import problem_of

router = APIRouter(tags=["service"])

_READY_S = 2.0


@router.get("/v1/info", response_model=InfoReply, responses=PROBLEMS)
async def info(request: Request, door: TheDoor, query: Annotated[Timeout, Query()]) -> Response:
    """Return which model and which index are served, and what they accept."""
    found = await door.client.info(timeout_s=door.within(query.timeout_s))
    return reply(InfoReply(found.model, found.index, request_id(request)))


@router.get("/healthz", response_model=Health)
async def alive() -> Response:
    """Return 200 as long as the program runs."""
    return reply(Health("alive"))


@router.get("/readyz", response_model=Health, responses={503: {"model": Health}})
async def ready(door: TheDoor) -> Response:
    """Return 200 if photos can be identified: both services answer, with one model, and the program is not about to stop."""
    problems = ["the program is about to stop"] if door.stopping else await _problems(door)
    return reply(Health("not ready", problems), 503) if problems else reply(Health("ready"))


async def _problems(door: TheDoor) -> list[str]:
    try:
        found = await door.client.info(timeout_s=_READY_S)
    except vmmr.VmmrError as error:
        return [problem_of(error).detail]
    if not found.same_model:
        return ["the index is of another model than the embedder's"]
    return []
