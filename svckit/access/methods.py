"""What each RPC asks of its caller, in one table, and what it counts as."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from svckit.access.callers import Role
from svckit.access.facts import Facts, first, of_labels

_NO_FACTS: Facts = MappingProxyType({})


def _none(_: Any) -> int:
    return 0


@dataclass(frozen=True)
class Method:
    """What one RPC asks of its caller, and what its messages say to those who count and note."""

    role: Role
    photos: Callable[[Any], int] = _none
    """How many photos, queries or items a request has."""
    k: Callable[[Any], int] = _none
    """How many neighbours of each query a request asks for; 0 if it leaves that to the service."""
    asked: Callable[[Any], Facts] | None = None
    """What a request to change the gallery is about, for the audit log; None if the RPC changes nothing."""
    done: Callable[[Any], Facts] = lambda _: _NO_FACTS
    """What came of it, from the response."""


def _images(request: Any) -> int:
    return len(request.images)


def _queries(request: Any) -> int:
    queries = request.queries
    return len(queries.data) // (4 * queries.dimension) if queries.dimension else 0


def _k(request: Any) -> int:
    return int(request.options.k)


def _tensor(request: Any) -> int:
    """Return how many photos a request of KServe says it has, and at most as many as its bytes can be."""
    told = max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=0)
    sent = sum(len(tensor.contents.bytes_contents) for tensor in request.inputs)
    sent += sum(len(raw) // 4 for raw in request.raw_input_contents)
    return max(0, min(told, sent))


def _add_asked(request: Any) -> Facts:
    batches = dict.fromkeys(item.batch_id for item in request.items if item.batch_id)
    ids = first(item.item_id for item in request.items)
    facts = {"items": len(request.items), "item_ids": ids, **of_labels(item.label for item in request.items)}
    return {**facts, "batch_ids": first(batches)} if batches else facts


def _delete_asked(request: Any) -> Facts:
    match request.WhichOneof("selector"):
        case "label":
            return of_labels([request.label])
        case "batch_id":
            return {"batch_ids": first([request.batch_id])}
    ids = request.item_ids.item_ids
    return {"items": len(ids), "item_ids": first(ids)}


def _add_done(response: Any) -> Facts:
    counts = {"added": response.added, "replaced": response.replaced, "unchanged": response.unchanged}
    return {**counts, "journal_sequence": response.journal_sequence}


def _delete_done(response: Any) -> Facts:
    return {"deleted": response.deleted, "journal_sequence": response.journal_sequence}


def _compact_done(response: Any) -> Facts:
    return {"index_version": response.index_version, "journal_sequence": response.journal_sequence}


_READ = Method(Role.QUERY)
UNKNOWN = Method(Role.ADMIN)
"""An RPC that is not in the table: nobody has thought about who may call it."""

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "/vmmr.embedder.v1.EmbedderService/Embed": Method(Role.QUERY, photos=_images),
        "/vmmr.embedder.v1.EmbedderService/Detect": Method(Role.QUERY, photos=_images),
        "/vmmr.embedder.v1.EmbedderService/GetModel": _READ,
        "/vmmr.search.v1.SearchService/Search": Method(Role.QUERY, photos=_queries, k=_k),
        "/vmmr.search.v1.SearchService/Classify": Method(Role.QUERY, photos=_queries, k=_k),
        "/vmmr.search.v1.SearchService/GetIndex": _READ,
        "/vmmr.search.v1.SearchService/ListLabels": _READ,
        "/vmmr.gallery.v1.GalleryService/AddItems": Method(
            Role.ENROL, photos=lambda request: len(request.items), asked=_add_asked, done=_add_done
        ),
        "/vmmr.gallery.v1.GalleryService/DeleteItems": Method(Role.ENROL, asked=_delete_asked, done=_delete_done),
        "/vmmr.gallery.v1.GalleryService/GetItem": _READ,
        "/vmmr.gallery.v1.GalleryService/ListItems": _READ,
        "/vmmr.gallery.v1.GalleryService/ListVersions": _READ,
        "/vmmr.gallery.v1.GalleryService/Compact": Method(Role.ADMIN, asked=lambda _: _NO_FACTS, done=_compact_done),
        "/inference.GRPCInferenceService/ServerLive": _READ,
        "/inference.GRPCInferenceService/ServerReady": _READ,
        "/inference.GRPCInferenceService/ModelReady": _READ,
        "/inference.GRPCInferenceService/ServerMetadata": _READ,
        "/inference.GRPCInferenceService/ModelMetadata": _READ,
        "/inference.GRPCInferenceService/ModelConfig": _READ,
        "/inference.GRPCInferenceService/ModelInfer": Method(Role.QUERY, photos=_tensor),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _READ,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READ,
    }
)
"""Every RPC of the services, by its full name, but those of `grpc.health.v1.Health`, which anybody may call."""
