"""Plain values to request messages."""

import math

from vmmr import wire
from vmmr._types import Box, Embeddings, SearchOptions
from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2


def image(content: bytes, crop: Box | None) -> embedder_pb2.Image:
    return embedder_pb2.Image(content=content, crop=None if crop is None else _box(crop))


def queries(embeddings: Embeddings) -> embedding_pb2.Embeddings:
    """Raises TypeError if they are something else, such as vectors of an unknown model."""
    if not isinstance(embeddings, Embeddings):
        raise TypeError(f"embeddings must be vmmr.Embeddings, as embed() gives them, got {type(embeddings).__name__}")
    return wire.pack(embeddings.model, embeddings.vectors)


def options(options: SearchOptions) -> search_pb2.SearchOptions:
    chosen = options.filter
    return search_pb2.SearchOptions(
        k=options.k,
        filter=search_pb2.Filter(
            makes=chosen.makes,
            models=chosen.models,
            labels=chosen.labels,
            min_year=chosen.min_year,
            max_year=chosen.max_year,
        ),
        exact=options.exact,
        nprobe=options.nprobe,
        ef_search=options.ef_search,
        rerank=options.rerank,
        allow_partial=options.allow_partial,
        shard_timeout_ms=None if options.shard_timeout_s is None else math.ceil(1e3 * options.shard_timeout_s),
    )


def _box(crop: Box) -> embedder_pb2.Box:
    return embedder_pb2.Box(left=crop.left, top=crop.top, right=crop.right, bottom=crop.bottom)
