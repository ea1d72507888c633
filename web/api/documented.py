"""Describe to OpenAPI the bodies of requests and the refusals, which it can't read from the code."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from web.door.photos import PhotoBody, PhotosBody
from web.door.problems import Problem

_REFERENCE = "#/components/schemas/{model}"
_FILE = {"type": "string", "format": "binary"}
_URL = {"type": "string", "description": "The URL of a photo, in place of a file."}

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request is refused; `reason` says why.", "content": PROBLEM},
    "5XX": {"description": "A service can't be reached, is busy, late or failing.", "content": PROBLEM},
}


TABLES: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"content": {"application/x-ndjson": {}, "text/csv": {}}},
}
"""The answers of a route that has a parameter `format`."""


def photos_body(fields: dict[str, Any] | None = None, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the body of a request with photos; the form may have further fields."""
    form = {
        "type": "object",
        "properties": {"photo": {"type": "array", "items": _FILE}, "url": _URL, **(fields or {})},
        "required": list(required),
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    if not fields:
        either = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in (PhotoBody, PhotosBody)]
        content |= {"application/json": {"schema": {"oneOf": either}}, "image/*": {"schema": _FILE}}
    return {"requestBody": {"required": True, "content": content}}


PHOTOS = photos_body()


def body_schemas() -> dict[str, Any]:
    """Return the schemas of JSON bodies and of problems, by name."""
    _, bodies = models_json_schema([(PhotoBody, "validation"), (PhotosBody, "validation")], ref_template=_REFERENCE)
    problem = TypeAdapter(Problem).json_schema(mode="serialization", ref_template=_REFERENCE)
    return {**bodies["$defs"], **problem.pop("$defs"), "Problem": problem}
