"""From weights to a model bundle: the network becomes a graph, in the wanted precision, and is compared with the original."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from embedder_svc.exporting import detectors, fitting, graph, half, heads, parity, photos, pixels, quantize
from embedder_svc.exporting.checkpoints import Checkpoint
from embedder_svc.exporting.graph import Embedder
from embedder_svc.exporting.photos import PARITY_PHOTOS, Photos
from embedder_svc.exporting.whitening import Whitening
from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo, Precision
from embedder_svc.photos import photo_files
from embedder_svc.photos.resize import Resize
from svckit.cli import CommandError


@dataclass(frozen=True)
class Plan:
    """The bundle to make."""

    name: str
    precision: Precision
    normalize: bool
    photos: Photos | None
    """If None, parity is measured on drawn images, and int8 can't be made."""
    flip: bool = False
    head: Whitening | None = None
    """The head to fit to the pooled features; None leaves what the weights have."""
    detector: detectors.Source | None = None

    def __post_init__(self) -> None:
        if self.head and self.photos is None:
            raise CommandError("--head needs --calibration: the photos that it is fitted to")
        if self.precision == "int8" and self.photos is None:
            raise CommandError("--precision int8 needs --calibration: photos such as the model will see")


def export(checkpoint: Checkpoint, out: Path, plan: Plan) -> BundleInfo:
    """Write the bundle `out`, and return its description. Raise CommandError, or ArtifactError if `out` exists."""
    if plan.head:
        checkpoint = checkpoint.unprojected()
    embedder = Embedder(checkpoint.network, checkpoint.pixels, normalize=plan.normalize, flip=plan.flip)
    model = _graph(embedder, plan, checkpoint.traits.resizing)
    fields = _fields(checkpoint, plan)
    found = plan.detector.made_for(plan.precision, plan.photos) if plan.detector else None
    detector = (found.onnx, found.info) if found else (None, None)
    if plan.head and plan.photos:
        head = fitting.fitted(model, plan.head, plan.photos, {**fields, "detector": detector[1]}, detector[0])
        model, embedder.head = heads.with_head(model, head), graph.linear(head)
        fields["head"] = fitting.described(plan.head, head, plan.photos)
    if plan.precision != "fp32":
        model = half.with_stored_matrices(model)
    fields |= {"dimension": graph.dimension(model), "parity": _parity(embedder, model, plan, fields)}
    return bundle.write(out, model.SerializeToString(), detector[0], **fields, detector=detector[1])


def _graph(embedder: Embedder, plan: Plan, resize: Resize) -> onnx.ModelProto:
    exported = pixels.cheapened(graph.export(embedder, resize.size))
    if plan.precision == "fp32":
        return exported
    if plan.precision == "fp16":
        return half.to_float16(exported)
    assert plan.photos is not None  # as Plan has checked
    return quantize.to_int8(exported, photos.batches(plan.photos.calibration, photo_files.whole(resize), "calibrate"))


def _fields(checkpoint: Checkpoint, plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "resize": checkpoint.traits.resize,
        "input_size": checkpoint.traits.input_size,
        "precision": plan.precision,
        "normalized": plan.normalize,
        "flip": plan.flip,
        "source": checkpoint.source,
        "licence": checkpoint.traits.licence,
        "training_data": checkpoint.traits.training_data,
        "metrics": checkpoint.metrics,
    }


def _parity(embedder: Embedder, model: onnx.ModelProto, plan: Plan, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the graph, as the server would run it on the CPU, with the network; return the entry `parity` of model.json."""
    with fitting.opened(model, fields) as opened:
        found = parity.cosines(embedder, opened, _parity_batches(plan, opened.info.resizing))
    return parity.described(found, "torch float32", "photos" if plan.photos else "drawn images")


def _parity_batches(plan: Plan, resize: Resize) -> Iterable[NDArray[np.uint8]]:
    if plan.photos is None:
        return parity.drawn(resize.size, PARITY_PHOTOS)
    return photos.batches(plan.photos.parity, photo_files.whole(resize), "parity")
