"""Answers as JSON."""

from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from web.door.problems import Problem

PROBLEM = "application/problem+json"


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Return what turns values of a class into JSON: made once, for making one takes longer than using it."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def reply(value: Any, status: int = 200) -> Response:
    """Return a value of one of our shapes as JSON."""
    return Response(adapter(type(value)).dump_json(value), status, media_type="application/json")


def refusal(problem: Problem) -> Response:
    """Return a problem as the answer."""
    headers = {"retry-after": str(max(1, round(problem.retry_after_s)))} if problem.retry_after_s is not None else {}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(adapter(Problem).dump_json(problem), problem.status, headers, media_type=PROBLEM)


def request_id(request: Request) -> str:
    """Return the request's id, which goes with all calls that are made for it."""
    name: str = request.state.request_id
    return name
