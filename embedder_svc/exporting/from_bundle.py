"""A model bundle made of another: its graph with another head, or with a detector beside it. It serves models whose checkpoint is gone."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from embedder_svc.exporting import fitting, graph, half, heads, parity, photos, pixels
from embedder_svc.exporting.detectors import Source
from embedder_svc.exporting.photos import Photos
from embedder_svc.exporting.whitening import Head, Whitening
from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo
from embedder_svc.photos import photo_files


def with_new_head(source: Path, out: Path, name: str, recipe: Whitening, chosen: Photos) -> BundleInfo:
    """Write the bundle `out`: the one in `source`, with a head fitted to its pooled features in place of a projection or head.

    Raise CommandError, or ArtifactError if `source` is no whole bundle or `out` exists.
    """
    info = bundle.read(source)
    body = pixels.cheapened(heads.without_products(onnx.load(source / bundle.GRAPH)))
    described = {field.name: getattr(info, field.name) for field in fields(info) if field.name != "fingerprint"}
    described |= {"name": name, "parity": {}}
    detector = (source / bundle.DETECTOR).read_bytes() if info.detector else None
    head = fitting.fitted(body, recipe, chosen, described, detector)
    model = heads.with_head(body, head)
    if info.precision != "fp32":
        model = half.with_stored_matrices(model)
    described |= {"head": fitting.described(recipe, head, chosen), "dimension": graph.dimension(model)}
    described["parity"] = _parity(body, head, model, {**described, "detector": None}, chosen)
    return bundle.write(out, model.SerializeToString(), detector, **described)


def with_detector(source: Path, out: Path, name: str, detector: Source, chosen: Photos | None) -> BundleInfo:
    """Write the bundle `out`: the one in `source`, its network as it is to the byte, with this detector.

    Raise CommandError, or ArtifactError if `source` is no whole bundle or `out` exists.
    """
    info = bundle.read(source)
    made = detector.made_for(info.precision, chosen)
    described = {field.name: getattr(info, field.name) for field in fields(info) if field.name != "fingerprint"}
    described |= {"name": name, "detector": made.info}
    return bundle.write(out, (source / bundle.GRAPH).read_bytes(), made.onnx, **described)


def _parity(
    body: onnx.ModelProto, head: Head, model: onnx.ModelProto, described: Mapping[str, Any], chosen: Photos
) -> dict[str, Any]:
    """Compare the graph with its two steps done apart; return the entry `parity` of model.json."""
    raw = {**described, "normalized": False}
    with fitting.opened(heads.without_length(body), raw) as features, fitting.opened(model, described) as whole:
        batches = photos.batches(chosen.parity, photo_files.whole(whole.info.resizing), "parity")
        found = [parity.between(head.apply(features.embed(batch)), whole.embed(batch)) for batch in batches]
    return parity.described(np.concatenate(found), "the features and the head, one after the other", "photos")
