"""The gallery: its labels, the photos of one, what looks like an item, and removing items."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import vmmr
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from web.api.gallery import first, matching
from web.door.door import Admitted, Door, MayWrite, TheDoor
from web.door.gone import unless_gone
from web.door.problems import DoorError, Reason
from web.pages.gallery_photos import photo_of
from web.pages.site import page, see_other
from web.pages.texts import T

router = APIRouter(include_in_schema=False)

_MOST_LABELS = 1000
_SIMILAR = 12
_MOST_REMOVED = 100
_BYTES_OF_ITEM = 2**14


@dataclass(frozen=True)
class Removed:
    """Items that were removed, as far as they can be brought back."""

    count: int
    items: list[vmmr.Item]
    embeddings: vmmr.Embeddings | None
    """A row for each item. None if there are none."""


@router.get("/gallery")
async def labels(request: Request, door: TheDoor, q: Annotated[str, Query(max_length=512)] = "") -> Response:
    """Return the labels with all words of `q` in them."""
    found = [count async for count in matching(door.client.labels(), q)]
    return page(
        request, "gallery.html", q=q, counts=found[:_MOST_LABELS], labels=len(found), items=sum(c.items for c in found)
    )


@router.get("/gallery/label")
async def label(
    request: Request,
    door: TheDoor,
    label: Annotated[str, Query(min_length=1, max_length=512)],
    n: Annotated[int, Query(ge=1, le=1000)] = 60,
) -> Response:
    """Return the photos of a label."""
    items = await _items_of(door, label, n + 1)
    return page(request, "label.html", label=label, items=items[:n], more=len(items) > n, n=n)


@router.get("/gallery/item", dependencies=[Admitted])
async def item(request: Request, door: TheDoor, id: Annotated[str, Query(min_length=1, max_length=512)]) -> Response:  # noqa: A002
    """Return an item, and what looks like it, which its photo is embedded anew for: no service tells an item's embedding."""
    shown = await door.client.get_item(id)
    embeddings = await unless_gone(request, _embedded(door, shown))
    found: list[vmmr.Neighbour] = []
    if embeddings is not None:
        result = await door.client.search(embeddings, options=vmmr.SearchOptions(k=_SIMILAR + 1))
        found = [near for near in result.neighbours[0] if near.item_id != id][:_SIMILAR]
    return page(request, "item.html", item=shown, similar=found, at_hand=embeddings is not None)


@router.post("/gallery/remove", dependencies=[MayWrite, Admitted])
async def remove(request: Request, door: TheDoor) -> Response:
    """Ask whether the chosen items are to go, or, once that was confirmed, delete them."""
    sent = await door.read_form(request)
    ids = sent.fields.get("item", [])
    if not ids:
        raise DoorError(Reason.INVALID_REQUEST, T.remove_none)
    if len(ids) > _MOST_REMOVED:
        raise DoorError(Reason.INVALID_REQUEST, T.remove_many.format(most=_MOST_REMOVED, n=len(ids)))
    items = [await door.client.get_item(each) for each in ids]
    kept = await unless_gone(request, _to_bring_back(door, items))
    if not sent.one("sure"):
        return page(request, "remove.html", items=items, back=len(kept.items))
    gone = await door.client.delete_items(ids)
    kept = Removed(gone.deleted, kept.items, kept.embeddings)
    return see_other(f"/gallery/removed/{door.kept.keep(kept, _BYTES_OF_ITEM * (1 + len(kept.items)))}")


@router.get("/gallery/removed/{name}", dependencies=[MayWrite])
async def removed(request: Request, door: TheDoor, name: str) -> Response:
    """Say what was removed, and offer to bring it back."""
    kept = _removed(door, name)
    return page(request, "removed.html", name=name, count=kept.count, back=len(kept.items), returned=False)


@router.post("/gallery/removed/{name}", dependencies=[MayWrite])
async def bring_back(request: Request, door: TheDoor, name: str) -> Response:
    """Add the items again that were removed."""
    kept = _removed(door, name)
    if kept.embeddings is not None:
        await door.client.add_items(kept.items, kept.embeddings)
    return page(request, "removed.html", name=name, count=kept.count, back=len(kept.items), returned=True)


async def _items_of(door: Door, label: str, most: int) -> list[vmmr.Item]:
    try:
        return await first(door.client.list_items(vmmr.Filter(labels=(label,))), most)
    except vmmr.CallError as error:
        if error.reason == "UNKNOWN_FILTER_VALUE":
            return []
        raise


async def _to_bring_back(door: Door, items: list[vmmr.Item]) -> Removed:
    found = [(each, await _embedded(door, each)) for each in items]
    at_hand = [(each, embeddings) for each, embeddings in found if embeddings is not None]
    if not at_hand:
        return Removed(0, [], None)
    vectors = np.concatenate([embeddings.vectors for _, embeddings in at_hand])
    return Removed(0, [each for each, _ in at_hand], vmmr.Embeddings(at_hand[0][1].model, vectors))


async def _embedded(door: Door, shown: vmmr.Item) -> vmmr.Embeddings | None:
    """Return the embedding of an item, made anew of the part of its photo that it is of; None if the photo isn't at hand."""
    content = await photo_of(door, shown)
    if content is None:
        return None
    try:
        if shown.cut is None:
            return await door.client.embed([content])
        return await door.client.embed([vmmr.Photo(content, crop=shown.cut.box)])
    except vmmr.InvalidPhotoError:
        return None


def _removed(door: Door, name: str) -> Removed:
    kept = door.kept.get(name)
    if not isinstance(kept, Removed):
        raise DoorError(Reason.NOT_FOUND, "there is no such removal")
    return kept
