"""From weights to a model bundle: the network becomes a graph, in the wanted precision, and is compared with the original."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray

from embedder_svc.exporting import graph, half, parity, quantize
from embedder_svc.exporting.checkpoints import Checkpoint
from embedder_svc.exporting.graph import Embedder
from embedder_svc.network import bundle
from embedder_svc.network.bundle import BundleInfo, Precision
from embedder_svc.network.model import Model
from embedder_svc.photos import photo_files
from embedder_svc.photos.resize import Resize
from svckit.cli import CommandError, progress

_BATCH = 8
_PARITY_PHOTOS = 64


@dataclass(frozen=True)
class Photos:
    """Photos on which int8 is calibrated, and others on which parity is measured."""

    calibration: list[Path]
    parity: list[Path]

    @classmethod
    def choose(cls, source: Path, folder: Path | None, count: int) -> Self:
        """Choose `count` photos for the calibration, spread over those of `source`, and others for parity.

        If the calibration takes all photos, parity is measured on the same ones.
        """
        paths = photo_files.find(source, folder)
        calibration = photo_files.spread(paths, count)
        chosen = set(calibration)
        others = [path for path in paths if path not in chosen]
        return cls(calibration, photo_files.spread(others or calibration, _PARITY_PHOTOS))


@dataclass(frozen=True)
class Plan:
    """The bundle to make."""

    name: str
    precision: Precision
    normalize: bool
    photos: Photos | None
    """If None, parity is measured on drawn images, and int8 can't be made."""
    flip: bool = False

    def __post_init__(self) -> None:
        if self.precision == "int8" and self.photos is None:
            raise CommandError("--precision int8 needs --calibration: photos such as the model will see")


def export(checkpoint: Checkpoint, out: Path, plan: Plan) -> BundleInfo:
    """Write the bundle `out`, and return its description. Raise CommandError, or ArtifactError if `out` exists."""
    embedder = Embedder(checkpoint.network, checkpoint.pixels, normalize=plan.normalize, flip=plan.flip)
    model = _graph(embedder, plan, checkpoint.traits.resizing)
    fields = _fields(checkpoint, plan, graph.dimension(model))
    content = model.SerializeToString()
    return bundle.write(out, content, **fields, parity=_parity(embedder, content, plan, fields))


def _graph(embedder: Embedder, plan: Plan, resize: Resize) -> onnx.ModelProto:
    exported = graph.export(embedder, resize.size)
    if plan.precision == "fp32":
        return exported
    if plan.precision == "fp16":
        return half.with_stored_matrices(half.to_float16(exported))
    assert plan.photos is not None  # as Plan has checked
    batches = _batches(plan.photos.calibration, resize, "calibrate")
    return half.with_stored_matrices(quantize.to_int8(exported, batches))


def _fields(checkpoint: Checkpoint, plan: Plan, dimension: int) -> dict[str, Any]:
    return {
        "name": plan.name,
        "resize": checkpoint.traits.resize,
        "input_size": checkpoint.traits.input_size,
        "dimension": dimension,
        "precision": plan.precision,
        "normalized": plan.normalize,
        "flip": plan.flip,
        "source": checkpoint.source,
        "licence": checkpoint.traits.licence,
        "training_data": checkpoint.traits.training_data,
        "metrics": checkpoint.metrics,
    }


def _parity(embedder: Embedder, content: bytes, plan: Plan, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the graph, as the server would run it on the CPU, with the network; return the entry `parity` of model.json."""
    with tempfile.TemporaryDirectory() as directory:
        draft = Path(directory) / plan.name
        bundle.write(draft, content, **fields)
        model = Model.open(draft, device="cpu")
        found = parity.cosines(embedder, model, _parity_batches(plan, model.info.resizing))
    return {
        "reference": "torch float32",
        "images": f"{len(found)} {'photos' if plan.photos else 'drawn images'}",
        "cosine_mean": round(float(found.mean()), 7),
        "cosine_min": round(float(found.min()), 7),
    }


def _parity_batches(plan: Plan, resize: Resize) -> Iterable[NDArray[np.uint8]]:
    if plan.photos is None:
        return parity.drawn(resize.size, _PARITY_PHOTOS)
    return _batches(plan.photos.parity, resize, "parity")


def _batches(paths: Sequence[Path], resize: Resize, step: str) -> Iterator[NDArray[np.uint8]]:
    with progress(total=len(paths), desc=step, unit="photo") as bar:
        for batch in photo_files.batches(paths, resize, _BATCH):
            yield batch
            bar.update(len(batch))
