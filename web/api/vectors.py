"""`POST /v1/detect`, `/v1/embed` and `/v1/search`: the steps of an identification, one by one."""

import base64
from typing import Annotated

import numpy as np
import vmmr
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from web.api.documented import PHOTOS, PROBLEMS
from web.api.identify import to_photo
from web.api.options import Looking, Options, Timeout
from web.api.replies import reply, request_id
from web.api.shapes import DetectReply, EmbedReply, SearchReply
from web.door.body import read_body
from web.door.door import Admitted, TheDoor
from web.door.gone import unless_gone
from web.door.photos import invalid
from web.door.problems import DoorError, Reason

router = APIRouter(tags=["photos"])


class SearchBody(BaseModel):
    """Embeddings, as `/v1/embed` gives them."""

    model_config = ConfigDict(extra="ignore")
    model: str = Field(min_length=1, max_length=512, description="The fingerprint of the model that made them.")
    dimension: int = Field(ge=1, le=2**16)
    data: str = Field(
        min_length=1, description="The embeddings one after the other, as base64 of little-endian float32."
    )

    @property
    def embeddings(self) -> vmmr.Embeddings:
        """Return them. Raise DoorError if the data are not as many numbers as the dimension says."""
        try:
            content = base64.b64decode(self.data, validate=True)
        except ValueError as error:
            raise DoorError(Reason.INVALID_REQUEST, f"body.data: {error}") from error
        if not content or len(content) % (4 * self.dimension):
            raise DoorError(
                Reason.INVALID_REQUEST,
                f"body.data: {len(content)} bytes are not embeddings of {self.dimension} float32 numbers",
            )
        return vmmr.Embeddings(self.model, np.frombuffer(content, "<f4").reshape(-1, self.dimension))


_SEARCH_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SearchBody.model_json_schema()}}}
}


@router.post(
    "/v1/detect", response_model=DetectReply, openapi_extra=PHOTOS, responses=PROBLEMS, dependencies=[Admitted]
)
async def detect(request: Request, door: TheDoor, options: Annotated[Timeout, Query()]) -> Response:
    """Return where the cars of each photo are."""
    photos = [photo.source for photo in (await door.read(request)).photos]
    found = await unless_gone(request, door.client.detect(photos, timeout_s=door.within(options.timeout_s)))
    return reply(DetectReply(found, request_id(request)))


@router.post("/v1/embed", response_model=EmbedReply, openapi_extra=PHOTOS, responses=PROBLEMS, dependencies=[Admitted])
async def embed(request: Request, door: TheDoor, options: Annotated[Looking, Query()]) -> Response:
    """Return the embedding of each photo, or of each car of photos with `subject=every_car`."""
    options.check_looking()
    photos = [to_photo(photo, options) for photo in (await door.read(request)).photos]
    found = await unless_gone(request, door.client.embed(photos, timeout_s=door.within(options.timeout_s)))
    data = base64.b64encode(found.vectors.astype("<f4").tobytes()).decode()
    dimension = found.vectors.shape[1]
    return reply(EmbedReply(found.model, dimension, data, list(found.parts or ()), request_id(request)))


@router.post(
    "/v1/search", response_model=SearchReply, openapi_extra=_SEARCH_BODY, responses=PROBLEMS, dependencies=[Admitted]
)
async def search(request: Request, door: TheDoor, options: Annotated[Options, Query()]) -> Response:
    """Return the gallery photos nearest to embeddings."""
    limits = door.settings
    body = await read_body(request, max_bytes=limits.max_upload_bytes, timeout_s=limits.upload_timeout_s)
    try:
        embeddings = SearchBody.model_validate_json(body).embeddings
    except ValidationError as error:
        raise invalid(error, "body") from None
    asked = door.client.search(embeddings, options=options.search, timeout_s=door.within(options.timeout_s))
    found = await unless_gone(request, asked)
    return reply(SearchReply(list(found.neighbours), found.provenance, found.times, request_id(request)))
