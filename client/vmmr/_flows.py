"""Operations of several calls, written once for both clients.

A flow is a generator: it yields the calls to make, is sent their replies, is thrown their errors, and returns its
result. It neither waits nor sends, so a thread and an event loop can drive the same flow.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from vmmr import _calls
from vmmr._batches import Entry, Limits, Outcome
from vmmr._calls import Call
from vmmr._errors import InvalidPhotoError, VmmrError
from vmmr._gallery import AddOutcome, NewItem, content_id
from vmmr._served import Info
from vmmr._types import ClassifyResult, Embeddings, Identification, Image, Item, Neighbour, SearchOptions, Times
from vmmr.label_names import canonical

T = TypeVar("T")


@dataclass(frozen=True)
class Reply(Generic[T]):
    """The answer to a call."""

    value: T
    round_trip_ms: float
    request_id: str


Flow: TypeAlias = Generator[Call[Any], Reply[Any], T]
Classify: TypeAlias = Callable[[Embeddings], Call[ClassifyResult]]
"""Makes the call that classifies embeddings, with the options of an operation."""
_NEAR = SearchOptions(k=2, allow_partial=True)
"""How photos that are to be added are compared with the gallery: two, as the photo itself may be there with another label."""


def ask(call: Call[T]) -> Flow[Reply[T]]:
    """Make a call. This gives its reply the type that a bare `yield` would lose."""
    return (yield call)


def value(call: Call[T]) -> Flow[T]:
    return (yield from ask(call)).value


def info() -> Flow[Info]:
    model = yield from value(_calls.get_model())
    index = yield from value(_calls.get_index())
    return Info(model, index)


def batch_limits(options: SearchOptions, max_message_bytes: int, batch: int | None = None) -> Flow[Limits]:
    """Return limits of at most `batch` photos and `max_message_bytes` in a request, and no more than the services accept."""
    served = yield from info()
    k = options.k or served.index.k
    most = min(served.model.limits.max_images, served.index.limits.max_queries)
    return Limits(
        # At least one photo: if even one has too many neighbours, the service says so.
        photos=max(1, min(batch or most, most, served.index.limits.max_neighbours // k)),
        bytes_in_request=min(max_message_bytes, served.model.limits.max_request_bytes),
        bytes_in_photo=served.model.limits.max_image_bytes,
    )


def add_limits(max_message_bytes: int, batch: int) -> Flow[Limits]:
    """Return the limits of photos that are to be added, which are compared with the gallery before: those of AddItems are wider."""
    return (yield from batch_limits(_NEAR, max_message_bytes, batch))


def identify_car(images: Sequence[Image], classify: Classify) -> Flow[Identification]:
    """Identify one car by one or several photos of it."""
    [identification] = yield from _identify(images, classify)
    return identification


def identify_every_car(image: Image, classify: Classify) -> Flow[list[Identification]]:
    """Identify each car of a photo, the main one first."""
    return (yield from _identify([image], classify))


def identify_batch(entries: Sequence[Entry], classify: Classify) -> Flow[list[Outcome]]:
    """Identify the photos of a batch. Return one outcome for each entry."""
    found = yield from _each(entries, lambda good: _identify(_images(good), classify))
    return [_outcome(e, found[e.position]) for e in entries]


def add_batch(entries: Sequence[Entry]) -> Flow[list[AddOutcome]]:
    """Add the photos of a batch, each a NewItem, to the gallery. Return one outcome for each entry."""
    found = yield from _each(entries, _add)
    return [_add_outcome(e, found[e.position]) for e in entries]


def _each(
    entries: Sequence[Entry], answer: Callable[[Sequence[Entry]], Flow[Sequence[T]]]
) -> Flow[dict[int, T | VmmrError]]:
    """Return, by position, the answer to each photo, or the error that it has instead.

    The embedder refuses a request for its bad photos and names all of them: send the good ones again.
    """
    found: dict[int, T | VmmrError] = {e.position: e.error for e in entries if e.error is not None}
    waiting = [e for e in entries if e.image is not None]
    while waiting:
        try:
            answers = yield from answer(waiting)
        except VmmrError as error:
            refused = _blamed(error, waiting)
        else:
            found |= zip((e.position for e in waiting), answers, strict=True)
            break
        found |= refused
        waiting = [e for e in waiting if e.position not in refused]
    return found


def _images(entries: Sequence[Entry]) -> list[Image]:
    return [e.image for e in entries if e.image is not None]


@dataclass(frozen=True)
class _Added:
    """An item that was added, and what was near it before."""

    item: Item
    journal_sequence: int
    nearest: Neighbour | None
    not_compared: VmmrError | None


def _add(entries: Sequence[Entry]) -> Flow[list[_Added]]:
    """Look for what is near the photos, and add them. If several photos have one id, the last counts."""
    items = [_item(e) for e in entries]
    last = {item.item_id: row for row, item in enumerate(items)}
    embedded = (yield from ask(_calls.embed(_images(entries)))).value
    rows = list(last.values())
    vectors = Embeddings(embedded.model, embedded.vectors[rows])
    if embedded.parts is not None:
        items = [replace(item, cut=part.cut) for item, part in zip(items, embedded.parts, strict=True)]
    near, not_compared = yield from _near(embedded)
    added = yield from ask(_calls.add_items([items[row] for row in rows], vectors))
    return [
        _Added(item, added.value.journal_sequence, _nearest(item, found), not_compared)
        for item, found in zip(items, near, strict=True)
    ]


def _near(embedded: Embeddings) -> Flow[tuple[Sequence[Sequence[Neighbour]], VmmrError | None]]:
    """Return the two nearest gallery photos of each photo, or none of any, and why: what is near is told, and is no reason not to add."""
    try:
        found = yield from value(_calls.search(embedded, _NEAR))
    except VmmrError as error:
        return [()] * len(embedded), error
    return found.neighbours, None


def _nearest(item: Item, found: Sequence[Neighbour]) -> Neighbour | None:
    return next((each for each in found if each.item_id != item.item_id), None)


def _item(entry: Entry) -> Item:
    new, image = entry.photo, entry.image
    assert isinstance(new, NewItem)
    assert image is not None
    item_id = new.item_id or content_id(image.content)
    return Item(item_id, canonical(new.label), new.uri, new.batch_id, new.attributes)


def _identify(images: Sequence[Image], classify: Classify) -> Flow[list[Identification]]:
    embedded = yield from ask(_calls.embed(images))
    classified = yield from ask(classify(embedded.value))
    assert embedded.value.times is not None
    answers, parts = classified.value.classifications, embedded.value.parts
    cuts = [part.cut for part in parts] if parts and len(parts) == len(answers) else [None] * len(answers)
    return [
        Identification(
            **vars(classification),
            provenance=classified.value.provenance,
            times=Times(
                embed=embedded.value.times,
                search=classified.value.times,
                round_trip_ms=embedded.round_trip_ms + classified.round_trip_ms,
            ),
            request_id=classified.request_id,
            cut=cut,
        )
        for classification, cut in zip(answers, cuts, strict=True)
    ]


def _blamed(error: VmmrError, entries: Sequence[Entry]) -> dict[int, VmmrError]:
    """Return the error by position: for the photos that it names, or for all photos if it names none."""
    if isinstance(error, InvalidPhotoError) and error.photos and error.photos[-1] < len(entries):
        return {entries[index].position: error.of(index) for index in error.photos}
    return {entry.position: error for entry in entries}


def _outcome(entry: Entry, found: Identification | VmmrError) -> Outcome:
    if isinstance(found, VmmrError):
        return Outcome(entry.position, entry.photo, None, found)
    return Outcome(entry.position, entry.photo, found, None)


def _add_outcome(entry: Entry, found: _Added | VmmrError) -> AddOutcome:
    assert isinstance(entry.photo, NewItem)
    if isinstance(found, VmmrError):
        return AddOutcome(entry.position, entry.photo, None, 0, found)
    return AddOutcome(
        entry.position, entry.photo, found.item, found.journal_sequence, None, found.nearest, found.not_compared
    )
