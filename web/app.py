"""The application: all routes, what each request passes before them, and what becomes of errors."""

import logging
from typing import TYPE_CHECKING, Any

import vmmr
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from web.api import gallery, identify, service, vectors
from web.api.documented import body_schemas
from web.api.replies import refusal
from web.door.door import Door
from web.door.envelope import Envelope
from web.door.metrics import WebMetrics
from web.door.origin import check_origin
from web.door.problems import DoorError, Reason, Violation, problem_of
from web.pages import asking, browsing, enrolling, gallery_photos, session, site

if TYPE_CHECKING:
    from svckit.spans import Tracing

_log = logging.getLogger(__name__)

_ABOUT = "Make, model and year of a car from a photo, by reverse image search. Errors are problem details (RFC 9457) with a `reason`."
_PROGRAMS = ("/v1", "/healthz", "/readyz")
_HTTP_REASONS = {404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED}


def build(door: Door, metrics: WebMetrics, tracing: "Tracing | None" = None) -> ASGIApp:
    """Return the application. `door` may be opened later, as `app.state.door`."""
    app = FastAPI(
        title="vmmr",
        version=vmmr.__version__,
        summary=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        dependencies=[Depends(check_origin)],
        separate_input_output_schemas=False,
        redirect_slashes=False,
        # The envelope traces requests; FastAPI's own spans would tell their paths, which may hold an answer's secret name.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.door = door
    for part in (identify, vectors, gallery, service, asking, browsing, enrolling, gallery_photos, session, site):
        app.include_router(part.router)
    _handle_errors(app, metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return Envelope(app, metrics, tracing)


def _handle_errors(app: FastAPI, metrics: WebMetrics) -> None:
    """Answer every error with a problem, unless the caller has gone."""

    async def refuse(request: Request, error: Exception) -> Response:
        problem = problem_of(_as_ours(error), getattr(request.state, "request_id", None))
        metrics.failed(problem.reason)
        answer = refusal(problem) if _is_program(request) else site.refused(request, problem)
        if isinstance(error, HTTPException) and error.headers:
            answer.headers.update(error.headers)
        return answer

    async def gone(request: Request, error: Exception) -> Response:
        del request, error
        return Response(status_code=499)  # for the log and the metrics: nobody is left to read it

    app.add_exception_handler(ClientDisconnect, gone)
    for kind in (DoorError, vmmr.VmmrError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)


def _is_program(request: Request) -> bool:
    """Return whether an answer is for a program: of `/v1` and of health, or where JSON was asked for."""
    return request.url.path.startswith(_PROGRAMS) or request.headers.get("accept") == "application/json"


def _as_ours(error: Exception) -> Exception:
    """Return what the framework raises as a DoorError; any other error as it is."""
    if isinstance(error, RequestValidationError):
        violations = tuple(Violation(".".join(map(str, e["loc"])), e["type"].upper(), e["msg"]) for e in error.errors())
        detail = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
        return DoorError(Reason.INVALID_REQUEST, detail, violations=violations)
    if isinstance(error, HTTPException):
        return DoorError(_HTTP_REASONS.get(error.status_code, Reason.INVALID_REQUEST), str(error.detail))
    return error


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the description of `/v1`, made once: from the routes, and from the schemas that they can't tell it."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schemas = app.openapi_schema["components"]["schemas"]
        schemas |= body_schemas()
    return app.openapi_schema
