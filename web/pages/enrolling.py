"""Add a car to the gallery: check its photos, show what was found, and add them only then."""

import asyncio
import difflib
import hashlib
import re
from dataclasses import dataclass, field, replace

import numpy as np
import vmmr
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from vmmr.near_copies import NEARLY_THE_SAME

from web.api.gallery import new_batch_id
from web.door.door import Admitted, Door, MayWrite, TheDoor
from web.door.gone import unless_gone
from web.door.photos import SentPhoto
from web.door.problems import DoorError, Reason
from web.pages.photo_files import kind_of, photo_reply
from web.pages.site import page, see_other
from web.pages.texts import T

router = APIRouter(include_in_schema=False)

_NEAR_LABELS = 3
_LABEL_CUTOFF = 0.8
_YEAR = re.compile(r"(?:^|_)(?:19|20)\d\d$")
_BYTES_OF_PHOTO = 2**15


@dataclass(frozen=True)
class Checked:
    """A photo that may be added, and what was found about it."""

    name: str
    content: bytes
    item_id: str
    vector: np.ndarray | None
    """None: it can't be used."""
    cut: vmmr.Cut | None = None
    nearest: vmmr.Neighbour | None = None
    why: str = ""
    """Why it can't be used."""

    @property
    def duplicate(self) -> bool:
        return self.nearest is not None and self.nearest.score >= NEARLY_THE_SAME

    @property
    def no_car(self) -> bool:
        return self.cut is not None and self.cut.no_car_found


@dataclass
class Draft:
    """Photos of a car that were checked, and are not in the gallery yet."""

    label: str
    model: str = ""
    photos: list[Checked] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(len(each.content) + _BYTES_OF_PHOTO for each in self.photos)

    def twin(self, n: int) -> int | None:
        """Return the place of an earlier photo that is nearly the same as that one; None if there is none."""
        vector = self.photos[n].vector
        if vector is None:
            return None
        for place, other in enumerate(self.photos[:n]):
            if other.vector is not None and float(vector @ other.vector) >= NEARLY_THE_SAME:
                return place
        return None


@dataclass(frozen=True)
class Batch:
    """Photos that were added."""

    batch_id: str
    label: str
    added: int
    unchanged: int


@router.get("/enrol")
async def form(request: Request, door: TheDoor) -> Response:
    """Return the form, or the way to it for those who have not signed in."""
    if door.access.writes and not door.access.signed_in(request):
        return see_other("/sign-in", next="enrol")
    return page(request, "enrol.html", limits=door.settings)


@router.post("/enrol", dependencies=[MayWrite, Admitted])
async def check(request: Request, door: TheDoor) -> Response:
    """Check photos of a car; `draft` adds them to those that were checked before. Nothing is written to the gallery."""
    sent = await door.read(request)
    before = _draft_or_new(door, sent.one("draft"), sent.one("label"))
    if len(before.photos) + len(sent.photos) > door.settings.max_photos:
        raise DoorError(Reason.INVALID_REQUEST, f"at most {door.settings.max_photos} photos are added at once")
    draft = await unless_gone(request, _checked(door, before, sent.photos))
    door.kept.forget(sent.one("draft"))
    name = door.kept.keep(draft, draft.size)
    if request.headers.get("accept") == "application/json":
        return JSONResponse({"draft": name, "photos": len(draft.photos)})
    return see_other(f"/enrol/{name}")


@router.get("/enrol/{name}", dependencies=[MayWrite])
async def review(request: Request, door: TheDoor, name: str) -> Response:
    """Return what was found: copies, photos without a car, labels that are nearly there."""
    draft = _draft(door, name)
    counts = {count.label.label: count.items async for count in door.client.labels()}
    return page(
        request,
        "review.html",
        name=name,
        draft=draft,
        there=counts.get(draft.label, 0),
        near=[] if draft.label in counts else near_labels(draft.label, counts),
        has_year=bool(_YEAR.search(draft.label)),
        twins=[draft.twin(n) for n in range(len(draft.photos))],
    )


@router.get("/enrol/{name}/photo", dependencies=[MayWrite])
async def draft_photo(door: TheDoor, name: str, n: int = 0) -> Response:
    """Return a photo of a draft."""
    photos = _draft(door, name).photos
    if not 0 <= n < len(photos) or (kind := kind_of(photos[n].content)) is None:
        return RedirectResponse("/photo?id=")
    return photo_reply(photos[n].content, kind)


@router.post("/enrol/{name}", dependencies=[MayWrite])
async def add(request: Request, door: TheDoor, name: str) -> Response:
    """Add the chosen photos of a draft, with the chosen label, in a batch of their own."""
    draft, sent = _draft(door, name), await door.read_form(request)
    chosen = {number for number in sent.fields.get("keep", []) if number.isdecimal()}
    photos = {each.item_id: each for n, each in enumerate(draft.photos) if str(n) in chosen and each.vector is not None}
    if not photos:
        raise DoorError(Reason.INVALID_REQUEST, T.review_none)
    label = _label(sent.one("label"))
    batch_id = new_batch_id()
    items = [vmmr.Item(each.item_id, label, batch_id=batch_id, cut=each.cut) for each in photos.values()]
    vectors = np.stack([each.vector for each in photos.values() if each.vector is not None])
    result = await door.client.add_items(items, vmmr.Embeddings(draft.model, vectors))
    door.kept.forget(name)
    batch = Batch(batch_id, label, result.added + result.replaced, result.unchanged)
    return see_other(f"/enrol/added/{door.kept.keep(batch, _BYTES_OF_PHOTO)}")


@router.get("/enrol/added/{name}", dependencies=[MayWrite])
async def added(request: Request, door: TheDoor, name: str) -> Response:
    """Say what was added, and offer to undo it."""
    return page(request, "added.html", name=name, batch=_batch(door, name), gone=None)


@router.post("/enrol/added/{name}", dependencies=[MayWrite])
async def undo(request: Request, door: TheDoor, name: str) -> Response:
    """Remove a batch that was added."""
    batch = _batch(door, name)
    gone = await door.client.delete_items(batch_id=batch.batch_id)
    return page(request, "added.html", name=name, batch=batch, gone=gone.deleted)


def near_labels(label: str, known: dict[str, int]) -> list[str]:
    """Return labels that are nearly this one, nearest first: other case, other separators, a letter more or less."""
    plain = {_plain(each): each for each in known}
    if same := plain.get(_plain(label)):
        return [same]
    return [plain[each] for each in difflib.get_close_matches(_plain(label), plain, _NEAR_LABELS, _LABEL_CUTOFF)]


def _plain(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", label).strip().lower()


def _label(text: str) -> str:
    label = text.strip()
    try:
        # What labels may be is the SDK's to say, and at last the service's.
        vmmr.NewItem(b"", label=label)
    except ValueError as error:
        raise DoorError(Reason.INVALID_REQUEST, str(error)) from error
    return label


async def _checked(door: Door, draft: Draft, photos: list[SentPhoto]) -> Draft:
    """Return a copy of the draft, with further photos. A photo that can't be used is told as such, and stops no other."""
    draft = replace(draft, photos=list(draft.photos))
    for photo in photos:
        content = photo.source if isinstance(photo.source, bytes) else await _fetched(photo.source)
        draft.photos.append(await _look(door, draft, photo.name, content))
    return draft


async def _fetched(url: vmmr.URL) -> bytes:
    return await asyncio.to_thread(url.read)


async def _look(door: Door, draft: Draft, name: str, content: bytes) -> Checked:
    item_id = hashlib.sha256(content).hexdigest()
    try:
        embeddings = await door.client.embed([content])
    except vmmr.InvalidPhotoError as error:
        return Checked(name, content, item_id, None, why="; ".join(v.description for v in error.violations))
    draft.model = embeddings.model
    found = await door.client.search(embeddings, options=vmmr.SearchOptions(k=1))
    cut = embeddings.parts[0].cut if embeddings.parts else None
    nearest = found.neighbours[0][0] if found.neighbours[0] else None
    return Checked(name, content, item_id, embeddings.vectors[0], cut, nearest)


def _draft_or_new(door: Door, name: str, label: str) -> Draft:
    return _draft(door, name) if name else Draft(_label(label))


def _draft(door: Door, name: str) -> Draft:
    draft = door.kept.get(name)
    if not isinstance(draft, Draft):
        raise DoorError(Reason.NOT_FOUND, "there is no such draft")
    return draft


def _batch(door: Door, name: str) -> Batch:
    batch = door.kept.get(name)
    if not isinstance(batch, Batch):
        raise DoorError(Reason.NOT_FOUND, "there is no such batch")
    return batch
