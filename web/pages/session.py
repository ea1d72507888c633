"""Signing in and out, for those who may change the gallery."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from web.door.access import COOKIE, SESSION_S
from web.door.door import Admitted, TheDoor
from web.pages.site import page, see_other

router = APIRouter(include_in_schema=False)

_NEXT = {"enrol": "/enrol", "gallery": "/gallery"}


@router.get("/sign-in")
async def form(request: Request, next: str = "gallery") -> Response:  # noqa: A002 (the word in the address)
    """Return the form for the token."""
    return page(request, "sign_in.html", next=next)


@router.post("/sign-in", dependencies=[Admitted])
async def sign_in(request: Request, door: TheDoor) -> Response:
    """Sign a browser in with the token. The rate of an address limits how many it can try."""
    sent = await door.read_form(request)
    name = door.access.sign_in(sent.one("token"))
    answer = see_other(_NEXT.get(sent.one("next"), "/gallery"))
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, name, max_age=SESSION_S, secure=secure, httponly=True, samesite="strict")
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, door: TheDoor) -> Response:
    door.access.sign_out(request)
    answer = see_other("/")
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
