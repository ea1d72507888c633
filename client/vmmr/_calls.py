"""Each remote procedure as a value: what to send, where, and how to read the reply. Nothing is sent here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from vmmr import _replies, _requests
from vmmr._gallery import AddResult, Compaction, DeleteResult, IndexVersions
from vmmr._served import IndexInfo, LabelCount, ModelInfo
from vmmr._types import ClassifyResult, Detection, Embeddings, Filter, Image, Item, SearchOptions, SearchResult
from vmmr.embedder.v1 import embedder_pb2
from vmmr.gallery.v1 import gallery_pb2
from vmmr.search.v1 import search_pb2

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Service: TypeAlias = Literal["embedder", "search"]


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One RPC, ready to be sent."""

    service: Service
    method: str
    """The name of the method on the service's stub."""
    request: Any
    """The method's request message."""
    parse: Callable[[Any], T_co]
    """Turns the reply message into a plain value; may raise ProtocolError."""
    repeatable: bool = True
    """Whether it may be sent again if it is not known what became of it."""


@dataclass(frozen=True)
class Page(Generic[T_co]):
    """One page of a list, and where the next page is."""

    entries: Sequence[T_co]
    next_token: str | None
    """The token of the next page; None on the last one."""


def embed(images: Sequence[Image]) -> Call[Embeddings]:
    parse = partial(_replies.embeddings, subjects=[image.subject for image in images])
    return Call("embedder", "Embed", _requests.embed(images), parse)


def detect(images: Sequence[Image]) -> Call[list[tuple[Detection, ...]]]:
    return Call("embedder", "Detect", _requests.detect(images), partial(_replies.detections, photos=len(images)))


def get_model() -> Call[ModelInfo]:
    return Call("embedder", "GetModel", embedder_pb2.GetModelRequest(), _replies.model_info)


def search(embeddings: Embeddings, options: SearchOptions) -> Call[SearchResult]:
    request = search_pb2.SearchRequest(queries=_requests.embeddings(embeddings), options=_requests.options(options))
    return Call("search", "Search", request, partial(_replies.search_result, queries=len(embeddings)))


def classify(
    embeddings: Embeddings, *, options: SearchOptions, min_confidence: float, fuse: bool = False
) -> Call[ClassifyResult]:
    request = search_pb2.ClassifyRequest(
        queries=_requests.embeddings(embeddings),
        options=_requests.options(options),
        min_confidence=min_confidence,
        fuse=fuse,
        cuts=_requests.cuts(embeddings),
    )
    cars = 1 if fuse else len(embeddings)
    return Call("search", "Classify", request, partial(_replies.classify_result, cars=cars))


def get_index() -> Call[IndexInfo]:
    return Call("search", "GetIndex", search_pb2.GetIndexRequest(), _replies.index_info)


def list_labels(page_token: str) -> Call[Page[LabelCount]]:
    request = search_pb2.ListLabelsRequest(page_token=page_token)
    return Call("search", "ListLabels", request, partial(_page, _replies.label_counts))


def add_items(items: Sequence[Item], embeddings: Embeddings) -> Call[AddResult]:
    if embeddings.parts is not None:
        pairs = zip(items, embeddings.parts, strict=True)
        items = [item if item.cut else replace(item, cut=part.cut) for item, part in pairs]
    request = gallery_pb2.AddItemsRequest(items=map(_requests.item, items), embeddings=_requests.embeddings(embeddings))
    return Call("search", "AddItems", request, _replies.add_result)


def delete_items(item_ids: Sequence[str] | None, label: str | None, batch_id: str | None) -> Call[DeleteResult]:
    ids = gallery_pb2.ItemIds(item_ids=item_ids) if item_ids else None
    request = gallery_pb2.DeleteItemsRequest(item_ids=ids, label=label, batch_id=batch_id)
    return Call("search", "DeleteItems", request, _replies.delete_result)


def get_item(item_id: str) -> Call[Item]:
    request = gallery_pb2.GetItemRequest(item_id=item_id)
    return Call("search", "GetItem", request, lambda reply: _replies.item(reply.item))


def list_items(chosen: Filter, batch_id: str, page_token: str) -> Call[Page[Item]]:
    request = gallery_pb2.ListItemsRequest(filter=_requests.filtered(chosen), batch_id=batch_id, page_token=page_token)
    return Call("search", "ListItems", request, partial(_page, _replies.items))


def compact() -> Call[Compaction]:
    # If the connection is lost while it runs, the service goes on with it, and would refuse a second one.
    return Call("search", "Compact", gallery_pb2.CompactRequest(), _replies.compaction, repeatable=False)


def list_versions() -> Call[IndexVersions]:
    return Call("search", "ListVersions", gallery_pb2.ListVersionsRequest(), _replies.versions)


def _page(entries: Callable[[Any], Sequence[T]], reply: Any) -> Page[T]:
    return Page(entries(reply), reply.next_page_token or None)
