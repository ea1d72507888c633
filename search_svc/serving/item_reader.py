"""Reads writes: from the message of a call to the write that it asks for, or to all that is wrong with the call."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.gallery.v1 import gallery_pb2
from vmmr.label_names import canonical, label_fault

from search_svc.index.journal import StoredItem
from search_svc.index.version import VersionManifest
from search_svc.index.writes import Add, Delete
from search_svc.serving.cut_messages import read_cut
from search_svc.serving.embedding_checks import check_lengths, check_model, dimension_violation
from svckit.access.callers import check_label
from svckit.errors import Reason, Violation, rejected

MOST_ITEMS = 10_000
LONGEST_NAME, LONGEST_URI = 512, 2048
MOST_ATTRIBUTES = 32
_MOST_NAMED = 100
"""Faults of items that an error names; a call may have ten thousand bad items."""


def read_add(
    request: gallery_pb2.AddItemsRequest,
    index: VersionManifest,
    deadline: float | None,
    label_prefixes: tuple[str, ...] = (),
) -> Add:
    """Return the write that adds the items, with the beginnings of the labels that its caller may add.

    Raises ServiceError, with everything that is wrong with the call.
    """
    if request.embeddings.ByteSize():
        check_model(request.embeddings, index, what="items")
    faults = _item_faults(request.items)
    matrix, problem = _matrix(request.embeddings, len(request.items), index)
    violations = [
        *([problem] if problem else ()),
        *(fault for _, fault in zip(range(_MOST_NAMED), faults, strict=False)),
    ]
    if violations:
        raise rejected(violations)
    rows = [row.tobytes() for row in matrix]
    items = {item.item_id: _stored(item, row) for item, row in zip(request.items, rows, strict=True)}
    return Add(items, _end(deadline), index.model, label_prefixes)


def read_delete(
    request: gallery_pb2.DeleteItemsRequest, deadline: float | None, label_prefixes: tuple[str, ...] = ()
) -> Delete:
    """Return the write that deletes what is selected, with the beginnings of the labels that its caller may delete.

    Raises ServiceError, with everything that is wrong with the call; LABEL_NOT_ALLOWED if it selects another label.
    """
    if violations := list(_selector_faults(request)):
        raise rejected(violations)
    label = canonical(request.label)
    if label:
        check_label(label_prefixes, label)
    return Delete(
        tuple(request.item_ids.item_ids), label, request.batch_id, _end(deadline), label_prefixes=label_prefixes
    )


def _item_faults(items: Sequence[gallery_pb2.Item]) -> Iterator[Violation]:
    if not 1 <= len(items) <= MOST_ITEMS:
        yield _fault("items", f"must be 1 to {MOST_ITEMS} items, got {len(items)}")
    first: dict[str, int] = {}
    for place, item in enumerate(items):
        path = f"items[{place}]"
        yield from _name_faults(f"{path}.item_id", item.item_id)
        yield from _name_faults(f"{path}.label", item.label)
        if any(unicodedata.category(character) == "Cc" for character in item.item_id):
            yield _fault(f"{path}.item_id", f"must have no control characters, got {item.item_id[:40]!r}")
        if item.label and (fault := label_fault(item.label)):
            yield _fault(f"{path}.label", f"{fault}, got {item.label[:40]!r}")
        yield from _length_faults(f"{path}.uri", item.uri, LONGEST_URI)
        yield from _length_faults(f"{path}.batch_id", item.batch_id, LONGEST_NAME)
        yield from _attribute_faults(f"{path}.attributes", item.attributes)
        if item.HasField("cut") and (problem := read_cut(item.cut).problem):
            yield _fault(f"{path}.cut", problem)
        if (before := first.setdefault(item.item_id, place)) != place and item.item_id:
            yield _fault(f"{path}.item_id", f"is that of items[{before}] too: an item can be added once in a call")


def _attribute_faults(path: str, attributes: Any) -> Iterator[Violation]:
    if len(attributes) > MOST_ATTRIBUTES:
        yield _fault(path, f"must be at most {MOST_ATTRIBUTES} entries, got {len(attributes)}")
    for name, value in attributes.items():
        if (size := len(name.encode()) + len(value.encode())) > LONGEST_NAME:
            yield _fault(f"{path}[{name[:40]!r}]", f"must be at most {LONGEST_NAME} bytes, name and value, got {size}")


def _name_faults(path: str, text: str) -> Iterator[Violation]:
    size = len(text.encode())
    if not 1 <= size <= LONGEST_NAME:
        yield _fault(path, f"must be 1 to {LONGEST_NAME} bytes, got {size}")


def _length_faults(path: str, text: str, longest: int) -> Iterator[Violation]:
    if (size := len(text.encode())) > longest:
        yield _fault(path, f"must be at most {longest} bytes, got {size}")


def _selector_faults(request: gallery_pb2.DeleteItemsRequest) -> Iterator[Violation]:
    match request.WhichOneof("selector"):
        case None:
            yield _fault("selector", "must be given: item_ids, label or batch_id")
        case "item_ids":
            ids = request.item_ids.item_ids
            if not 1 <= len(ids) <= MOST_ITEMS:
                yield _fault("item_ids.item_ids", f"must be 1 to {MOST_ITEMS} ids, got {len(ids)}")
            for place, item_id in enumerate(ids):
                yield from _name_faults(f"item_ids.item_ids[{place}]", item_id)
        case field:
            yield from _name_faults(field, getattr(request, field))


def _matrix(
    embeddings: embedding_pb2.Embeddings, items: int, index: VersionManifest
) -> tuple[NDArray[np.float16], Violation | None]:
    """Return the embeddings (items, dimension) and None; or none of them, and what is wrong."""
    none = np.empty((0, index.dimension), np.float16)
    if violation := dimension_violation(embeddings, index, "embeddings"):
        return none, violation
    try:
        matrix = _to_float16(wire.unpack(embeddings))
        if len(matrix) != items:
            raise ValueError(f"must be a row an item, got {len(matrix)} rows for {items} items")  # noqa: TRY301
    except ValueError as error:
        return none, Violation("embeddings.data", Reason.MALFORMED_EMBEDDINGS, str(error))
    return matrix, None


def _to_float16(matrix: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the embeddings as a gallery keeps them. Raises ValueError if float16 cannot hold one, or a length is not sensible."""
    with np.errstate(over="ignore"):
        half = matrix.astype(np.dtype("<f2"))
    if len(odd := np.flatnonzero(~np.isfinite(half).all(axis=1))):
        raise ValueError(f"row {odd[0]} has a value that is too large for float16")
    check_lengths(half.astype(np.float32))
    return half


def _stored(item: gallery_pb2.Item, embedding: bytes) -> StoredItem:
    cut = read_cut(item.cut) if item.HasField("cut") else None
    return StoredItem(canonical(item.label), item.uri, item.batch_id, dict(item.attributes), embedding, cut)


def _fault(path: str, text: str) -> Violation:
    return Violation(path, Reason.INVALID_ITEM, text)


def _end(deadline: float | None) -> float:
    return math.inf if deadline is None else deadline
