"""`/v1/labels` and `/v1/items`: what the gallery knows, and changing it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import vmmr
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from web.api.documented import PROBLEMS, TABLES, photos_body
from web.api.options import Format, Name, Timeout
from web.api.replies import adapter, reply, request_id
from web.api.shapes import Added, AddReply, DeleteReply, ItemsReply, LabelsReply
from web.api.tables import each, lines, table
from web.door.door import Admitted, Door, MayWrite, TheDoor
from web.door.gone import unless_gone
from web.door.photos import Sent, SentPhoto
from web.door.problems import DoorError, Reason, problem_of

T = TypeVar("T")

router = APIRouter(tags=["gallery"])

_LABEL_COLUMNS = ("label", "make", "model", "year", "items")
_ITEM_COLUMNS = ("item_id", "label", "uri", "batch_id")
_FIELD = {"type": "string", "maxLength": 512}
_ADD = photos_body(
    {
        "label": {
            **_FIELD,
            "minLength": 1,
            "description": "The class of car that the photos show, for example honda_pilot_2011.",
        },
        "batch_id": {**_FIELD, "description": "A name to delete them by again. Default: a new one."},
        "item_id": {**_FIELD, "description": "The id of a single photo. Default: the SHA-256 of its bytes."},
        "uri": {
            "type": "string",
            "maxLength": 2048,
            "description": "Where a single photo is. Default: the URL that it was fetched from.",
        },
    },
    required=("label",),
)


class LabelsQuery(Timeout):
    q: str = Field(default="", max_length=512, description="Only labels with these words in them.")
    format: Format = Field(default="json", description="The form of the answer.")


class ItemsQuery(Timeout):
    label: list[Name] = Field(default=[], max_length=100, description="Only items with these labels.")
    make: list[Name] = Field(default=[], max_length=100, description="Only items of these makes.")
    model: list[Name] = Field(default=[], max_length=100, description="Only items of these models.")
    batch_id: str = Field(default="", max_length=512, description="Only items of this batch.")
    limit: int = Field(
        default=100, ge=1, le=10_000, description="The most items of an answer as JSON; other forms have all."
    )
    format: Format = Field(default="json", description="The form of the answer.")


class DeleteQuery(Timeout):
    """Which items to delete: give one of the three."""

    item_id: list[Name] = Field(default=[], max_length=10_000)
    label: str = Field(default="", max_length=512)
    batch_id: str = Field(default="", max_length=512)


@router.get("/v1/labels", response_model=LabelsReply, responses=TABLES)
async def labels(request: Request, door: TheDoor, query: Annotated[LabelsQuery, Query()]) -> Response:
    """Return the gallery's labels, and how many photos each has."""
    counts = door.client.labels(timeout_s=door.within(query.timeout_s))
    found = [entry async for entry in matching(counts, query.q)]
    if query.format == "ndjson":
        return lines(adapter(vmmr.LabelCount), each(found))
    if query.format == "csv":
        return table(_LABEL_COLUMNS, each({**vars(entry.label), "items": entry.items} for entry in found))
    return reply(LabelsReply(found, request_id(request)))


@router.get("/v1/items", response_model=ItemsReply, responses=TABLES)
async def items(request: Request, door: TheDoor, query: Annotated[ItemsQuery, Query()]) -> Response:
    """Return items of the gallery."""
    chosen = vmmr.Filter(makes=tuple(query.make), models=tuple(query.model), labels=tuple(query.label))
    wanted = door.client.list_items(chosen, batch_id=query.batch_id, timeout_s=door.within(query.timeout_s))
    if query.format == "ndjson":
        return lines(adapter(vmmr.Item), await started(wanted))
    if query.format == "csv":
        entries = await started(wanted)
        return table(_ITEM_COLUMNS, ({name: getattr(item, name) for name in _ITEM_COLUMNS} async for item in entries))
    found = await first(wanted, query.limit + 1)
    return reply(ItemsReply(found[: query.limit], len(found) > query.limit, request_id(request)))


@router.post(
    "/v1/items", response_model=AddReply, openapi_extra=_ADD, responses=PROBLEMS, dependencies=[MayWrite, Admitted]
)
async def add(request: Request, door: TheDoor, query: Annotated[Timeout, Query()]) -> Response:
    """Add photos of a car to the gallery: a form with its label. Each photo is added, or has its problem."""
    sent = await door.read(request)
    batch_id = sent.one("batch_id") or new_batch_id()
    work = add_photos(door, sent, batch_id, door.within(query.timeout_s), request_id(request))
    added, sequence = await unless_gone(request, work)
    return reply(AddReply(batch_id, sequence, added, request_id(request)))


@router.delete("/v1/items", response_model=DeleteReply, responses=PROBLEMS, dependencies=[MayWrite])
async def delete(request: Request, door: TheDoor, query: Annotated[DeleteQuery, Query()]) -> Response:
    """Delete the items with these ids, with this label, or of this batch. They are gone for good."""
    given = [name for name in ("item_id", "label", "batch_id") if getattr(query, name)]
    if len(given) != 1:
        raise DoorError(
            Reason.INVALID_REQUEST, f"give one of item_id, label and batch_id, got {' and '.join(given) or 'none'}"
        )
    gone = await door.client.delete_items(
        query.item_id or None,
        label=query.label or None,
        batch_id=query.batch_id or None,
        timeout_s=door.within(query.timeout_s),
    )
    return reply(DeleteReply(gone.deleted, gone.journal_sequence, request_id(request)))


async def add_photos(
    door: Door, sent: Sent, batch_id: str, timeout_s: float, request_id: str
) -> tuple[list[Added], int]:
    """Return what became of each photo, and the last entry of the journal. Raise DoorError if the fields make no sense."""
    new = _new_items(sent, batch_id)
    added, sequence = [], 0
    async for outcome in door.client.add_photos(new, timeout_s=timeout_s):
        problem = problem_of(outcome.error, request_id) if outcome.error else None
        added.append(Added(outcome.position, sent.photos[outcome.position].name, outcome.item, problem))
        sequence = max(sequence, outcome.journal_sequence)
    return added, sequence


def _new_items(sent: Sent, batch_id: str) -> list[vmmr.NewItem]:
    known = {"label", "batch_id", "item_id", "uri"}
    if strangers := sorted(sent.fields.keys() - known):
        raise DoorError(Reason.INVALID_REQUEST, f"the form has no field {strangers[0][:100]!r}")
    if not sent.one("label"):
        raise DoorError(Reason.INVALID_REQUEST, "the form needs a label")
    if len(sent.photos) > 1 and sent.fields.keys() & {"item_id", "uri"}:
        raise DoorError(Reason.INVALID_REQUEST, "item_id and uri are of a single photo, and the form has several")
    try:
        return [_new_item(photo, sent, batch_id) for photo in sent.photos]
    except ValueError as error:
        # What labels may be is the SDK's to say.
        raise DoorError(Reason.INVALID_REQUEST, str(error)) from error


def _new_item(photo: SentPhoto, sent: Sent, batch_id: str) -> vmmr.NewItem:
    return vmmr.NewItem(
        photo.source,
        photo.crop,
        label=sent.one("label"),
        item_id=sent.one("item_id"),
        uri=sent.one("uri") or (photo.source.url if isinstance(photo.source, vmmr.URL) else ""),
        batch_id=batch_id,
    )


def new_batch_id() -> str:
    """Return a name for a batch: when it was, and by which program, so that people can tell it from others."""
    return datetime.now(UTC).strftime("web-%Y%m%d-%H%M%S-%f")


async def matching(counts: AsyncIterator[vmmr.LabelCount], text: str) -> AsyncIterator[vmmr.LabelCount]:
    """Yield the labels with all words of a text in them."""
    words = text.lower().replace("_", " ").split()
    async for count in counts:
        label = count.label.label.lower().replace("_", " ")
        if all(word in label for word in words):
            yield count


async def first(entries: AsyncIterator[T], most: int) -> list[T]:
    """Return the first entries, without fetching pages that are not needed for them."""
    found: list[T] = []
    async for entry in entries:
        found.append(entry)
        if len(found) == most:
            break
    return found


async def started(entries: AsyncIterator[T]) -> AsyncIterator[T]:
    """Return the entries, after the first of them has come: what goes wrong until then is a problem with a status."""
    head = await first(entries, 1)

    async def all_of_them() -> AsyncIterator[T]:
        for entry in head:
            yield entry
        async for entry in entries:
            yield entry

    return all_of_them()
