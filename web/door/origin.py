"""Refuse what a page of another site has a visitor's browser send (CSRF).

Browsers say from where a request comes: in `Sec-Fetch-Site`, or, older ones, in `Origin`. A program that is no browser says neither, and
has no cookies that another site could abuse.
"""

from starlette.requests import Request

from web.door.problems import DoorError, Reason

_SAFE = {"GET", "HEAD", "OPTIONS"}
_OURS = {"same-origin", "none"}


async def check_origin(request: Request) -> None:
    """Raise DoorError if the request may change something, and comes from a page of another site."""
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        ours = site in _OURS
    else:
        host = request.headers.get("host")
        ours = request.headers.get("origin") in (None, f"http://{host}", f"https://{host}")
    if not ours:
        raise DoorError(Reason.CROSS_SITE, "the request comes from a page of another site")
