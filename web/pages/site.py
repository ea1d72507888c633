"""How a page is made: its template, its texts, its style and script, whose addresses change when they do."""

import hashlib
import mimetypes
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from web.door.door import door_of
from web.door.problems import DoorError, Problem, Reason
from web.pages.texts import REFUSALS, T, n_labels, n_photos
from web.pages.views import item_name

_HERE = Path(__file__).parent
_STATIC = {path.name: path.read_bytes() for path in sorted((_HERE / "static").iterdir()) if path.is_file()}
_HASHES = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _STATIC.items()}
_FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str) -> Response:
    """Return a file of the pages: those that this program has, by their names, and no others."""
    if name not in _STATIC:
        raise DoorError(Reason.NOT_FOUND, f"there is no file {name!r}")
    kind = mimetypes.guess_type(name)[0]
    fresh = digest == _HASHES[name]
    return Response(_STATIC[name], media_type=kind, headers={"cache-control": _FOREVER if fresh else "no-cache"})


def address(path: str, **query: Any) -> str:
    """Return the address of a page; what is None is left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def static_address(name: str) -> str:
    return f"/static/{_HASHES[name]}/{name}"


def percent(share: float) -> str:
    """Return a share in words: never 100 % of what is not certain, and never 0 of what got a vote."""
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


_environment = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= {"t": T, "n_photos": n_photos, "n_labels": n_labels}
_environment.globals |= {"address": address, "static": static_address, "item_name": item_name}
_environment.filters |= {"percent": percent}


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page."""
    access = door_of(request).access
    values |= {"writes": access.writes, "signed_in": access.signed_in(request), "path": request.url.path}
    return HTMLResponse(_environment.get_template(template).render(values), status)


def see_other(path: str, **query: Any) -> Response:
    """Send the browser on to a page after it has posted a form: reloading that page posts nothing again."""
    return RedirectResponse(address(path, **query), 303)


def refused(request: Request, problem: Problem) -> Response:
    """Return the page that says why a request was refused."""
    said = problem.detail
    if problem.reason == "INVALID_IMAGE":
        said = "; ".join(v.description for v in problem.violations)
        said = said[:1].upper() + said[1:]  # a sentence here, an item of a list elsewhere
    title = REFUSALS.get(problem.reason, T.refused_title)
    return page(request, "refused.html", problem.status, title=title, said=said, problem=problem)
