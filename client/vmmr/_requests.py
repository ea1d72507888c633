"""Turn plain values into request messages."""

import math
from collections.abc import Sequence

from vmmr import wire
from vmmr._types import Box, Cut, Embeddings, Filter, Image, Item, SearchOptions, Subject
from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.gallery.v1 import gallery_pb2
from vmmr.search.v1 import search_pb2

_SUBJECTS: dict[Subject | None, embedder_pb2.Subject] = {
    None: embedder_pb2.SUBJECT_UNSPECIFIED,
    "whole": embedder_pb2.SUBJECT_WHOLE,
    "main_car": embedder_pb2.SUBJECT_MAIN_CAR,
    "every_car": embedder_pb2.SUBJECT_EVERY_CAR,
}


def embed(images: Sequence[Image]) -> embedder_pb2.EmbedRequest:
    return embedder_pb2.EmbedRequest(images=map(_image, images))


def detect(images: Sequence[Image]) -> embedder_pb2.DetectRequest:
    return embedder_pb2.DetectRequest(images=map(_image, images))


def embeddings(embeddings: Embeddings) -> embedding_pb2.Embeddings:
    """Raise TypeError if they are something else, such as vectors of an unknown model."""
    if not isinstance(embeddings, Embeddings):
        raise TypeError(f"embeddings must be vmmr.Embeddings, as embed() gives them, got {type(embeddings).__name__}")
    return wire.pack(embeddings.model, embeddings.vectors)


def cuts(embeddings: Embeddings) -> list[embedding_pb2.Cut]:
    """Return the part that each is of; nothing if that is not known."""
    return [_cut(part.cut) for part in embeddings.parts or ()]


def options(options: SearchOptions) -> search_pb2.SearchOptions:
    return search_pb2.SearchOptions(
        k=options.k,
        filter=filtered(options.filter),
        exact=options.exact,
        nprobe=options.nprobe,
        ef_search=options.ef_search,
        rerank=options.rerank,
        allow_partial=options.allow_partial,
        shard_timeout_ms=None if options.shard_timeout_s is None else math.ceil(1e3 * options.shard_timeout_s),
        min_sequence=options.min_sequence or None,
    )


def filtered(chosen: Filter) -> search_pb2.Filter:
    return search_pb2.Filter(
        makes=chosen.makes,
        models=chosen.models,
        labels=chosen.labels,
        min_year=chosen.min_year,
        max_year=chosen.max_year,
    )


def item(item: Item) -> gallery_pb2.Item:
    return gallery_pb2.Item(
        item_id=item.item_id,
        label=item.label,
        uri=item.uri,
        batch_id=item.batch_id,
        attributes=item.attributes,
        cut=None if item.cut is None else _cut(item.cut),
    )


def _image(image: Image) -> embedder_pb2.Image:
    crop = None if image.crop is None else _box(image.crop)
    return embedder_pb2.Image(content=image.content, crop=crop, subject=_SUBJECTS[image.subject])


def _cut(cut: Cut) -> embedding_pb2.Cut:
    box = cut.box
    return embedding_pb2.Cut(
        left=box.left,
        top=box.top,
        right=box.right,
        bottom=box.bottom,
        car_score=cut.car_score,
        no_car_found=cut.no_car_found,
    )


def _box(crop: Box) -> embedder_pb2.Box:
    return embedder_pb2.Box(left=crop.left, top=crop.top, right=crop.right, bottom=crop.bottom)
