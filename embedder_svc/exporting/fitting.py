"""Fits a head to the features that a graph gives in the precision in which it is served: what int8 rounds away is in the fit."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from embedder_svc.exporting import graph, heads, whitening, worn
from embedder_svc.exporting.photos import Photos, batches
from embedder_svc.exporting.whitening import Head, Whitening
from embedder_svc.network import bundle
from embedder_svc.network.cutter import Cutter
from embedder_svc.network.model import Model
from svckit.cli import CommandError

_COPIED = 4
"""Photos of a batch of which a worn copy is made: one of each kind."""
_SEED = 8


@contextmanager
def opened(model: onnx.ModelProto, fields: Mapping[str, Any], detector: bytes | None = None) -> Iterator[Model]:
    """Open a graph as the server would on a CPU. `fields` are those of its bundle; the dimension is the graph's."""
    with tempfile.TemporaryDirectory() as directory:
        draft = Path(directory) / "draft"
        bundle.write(draft, model.SerializeToString(), detector, **{**fields, "dimension": graph.dimension(model)})
        yield Model.open(draft, device="cpu")


def fitted(
    model: onnx.ModelProto,
    recipe: Whitening,
    photos: Photos,
    fields: Mapping[str, Any],
    detector: bytes | None = None,
) -> Head:
    """Fit a head to the features of all the photos, and of worn copies of half of them; with a detector, to those of their main cars.

    Raise CommandError if they don't suffice.
    """
    copied = _COPIED if recipe.worn else 0
    with opened(heads.without_length(model), {**fields, "normalized": False}, detector) as network:
        found = list(_features(network, photos, copied))
    features, copies = (np.concatenate(of) for of in zip(*found, strict=True))
    try:
        return whitening.fit(features, photos.labels, recipe, copies)
    except ValueError as error:
        raise CommandError(f"--head {error}") from error


def _features(network: Model, photos: Photos, copied: int) -> Iterator[tuple[Any, Any]]:
    """Yield the features of the photos (B, F), some at a time, and those of worn copies of the first `copied` of them."""
    rng, cutter = np.random.default_rng(_SEED), Cutter(network, whole=False)
    for batch in batches(photos.all, lambda content: cutter.part(content)[0], "head"):
        found = network.embed(np.concatenate([batch, worn.copies(batch[:copied], rng)]))
        yield found[: len(batch)], found[len(batch) :]


def described(recipe: Whitening, head: Head, photos: Photos) -> dict[str, Any]:
    """Return the entry `head` of model.json: the recipe, and on how many photos and labels it was fitted."""
    labels = len(set(photos.labels)) if photos.labels else None
    used = {"directions": head.matrix.shape[1], "photos": len(photos.all), "labels": labels}
    return {"kind": "whitened", **asdict(recipe), **used}
