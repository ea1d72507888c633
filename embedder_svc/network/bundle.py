"""A model on disk: a directory with `model.onnx`, `model.json` and perhaps `detector.onnx`, and the fingerprint that names them together.

`model.onnx` maps `images`, uint8 `(N, size, size, 3)` RGB, to `embeddings`, float32 `(N, dimension)`. Normalisation and
layout are inside it; `model.json` says what happens to a photo before it. `detector.onnx` maps `images` of its own size to `boxes`,
float32 `(N, A, 4)`: left, top, right, bottom, as fractions; and to `scores`, float32 `(N, A)`: 0 to 1, for being a car.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from embedder_svc.network.cars import DetectorInfo
from embedder_svc.photos import preprocess
from embedder_svc.photos.resize import Resize, Rule
from svckit import artifact
from svckit.artifact import ArtifactError

GRAPH = "model.onnx"
DETECTOR = "detector.onnx"
DESCRIPTION = "model.json"

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """The description of a model, as it is in `model.json`."""

    name: str
    """For people, for example `resnet50-cars-int8`."""
    fingerprint: str
    """The model's identity: sha256 over the graph and everything that decides which pixels it is shown."""
    resize: Rule
    input_size: int
    """Side of the square input, in pixels."""
    dimension: int
    """Floats in one embedding."""
    precision: Precision
    normalized: bool
    """Whether embeddings have unit length."""
    flip: bool = False
    """Whether an embedding is the mean of those of the photo and of its mirror image; the graph computes both."""
    source: str
    """The origin of the weights."""
    licence: str
    training_data: str
    parity: Mapping[str, Any] = field(default_factory=dict)
    """How the embeddings compare with those of the network it was exported from."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """The recipe of the head that was fitted to the features at export; empty if there is none."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Figures measured of the weights before export, at the size and resize rule that they were trained with."""

    detector: DetectorInfo | None = None
    """What finds the cars; None if the model has none."""

    @property
    def resizing(self) -> Resize:
        return Resize(self.resize, self.input_size, fine=self.detector is not None)


_OPTIONAL = {"flip": BundleInfo.flip, "head": {}, "detector": None}
"""Values of fields that older bundles do not have."""
_FOR_PEOPLE = ("name", "source", "licence")
"""Fields of a detector's description that decide nothing."""


def write(path: Path, onnx: bytes, detector_onnx: bytes | None = None, **fields: Any) -> BundleInfo:
    """Write a bundle, whole or not at all. `fields` are those of BundleInfo, without the fingerprint.

    `detector_onnx` is the graph of the detector that the field `detector` describes. Raise ArtifactError if `path` exists.
    """
    graphs = {GRAPH: onnx} if detector_onnx is None else {GRAPH: onnx, DETECTOR: detector_onnx}
    assert (DETECTOR in graphs) == (fields.get("detector") is not None), "a detector has a graph and a description"
    info = BundleInfo(fingerprint="", **fields)
    identity = _fingerprint({name: hashlib.sha256(graph).hexdigest() for name, graph in graphs.items()}, info)
    info = dataclasses.replace(info, fingerprint=identity)
    with artifact.atomic_directory(path) as directory:
        for name, graph in graphs.items():
            (directory / name).write_bytes(graph)
        described = {**dataclasses.asdict(info), "preprocess": preprocess.VERSION}
        artifact.write_manifest(directory, described, DESCRIPTION)
    return info


def read(path: Path) -> BundleInfo:
    """Read and verify a bundle. Raise ArtifactError naming the file that is wrong."""
    description = path / DESCRIPTION
    if not description.exists():
        raise ArtifactError(description, "missing: no model bundle here; `vmmr-embedder export` makes one")
    content = artifact.read_manifest(path, DESCRIPTION)
    info = _parse(description, content)
    for name in (GRAPH, DETECTOR) if info.detector else (GRAPH,):
        if name not in content["files"]:
            raise ArtifactError(description, f"`files` does not list {name}")
    if content.get("preprocess") != preprocess.VERSION:
        raise ArtifactError(
            description, f"is for preprocessing {content.get('preprocess')}, this vmmr does {preprocess.VERSION}"
        )
    actual = _fingerprint({name: entry["sha256"] for name, entry in content["files"].items()}, info)
    if info.fingerprint != actual:
        raise ArtifactError(description, f"says fingerprint {info.fingerprint}, its content has {actual}")
    return info


def _fingerprint(sha256s: Mapping[str, str], info: BundleInfo) -> str:
    """Return the sha256 over the graphs and everything that decides which pixels they are shown.

    Without a detector it is over nothing of one, so that a bundle made before there were detectors keeps its fingerprint.
    """
    pixels = {"input_size": info.input_size, "preprocess": preprocess.VERSION, "resize": info.resize}
    parts = [sha256s[GRAPH], _canonical(pixels)]
    if info.detector:
        decides = {k: v for k, v in dataclasses.asdict(info.detector).items() if k not in _FOR_PEOPLE}
        parts += [sha256s[DETECTOR], _canonical(decides)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _parse(path: Path, content: Mapping[str, Any]) -> BundleInfo:
    try:
        fields = _fields(BundleInfo, {**_OPTIONAL, **content})
    except ValueError as error:
        raise ArtifactError(path, str(error)) from error
    return BundleInfo(**fields)


def _fields(kind: type, found: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Return the values of a dataclass's fields. Raise ValueError naming one that is not of its type."""
    return {name: _checked(within + name, kind, found.get(name)) for name, kind in get_type_hints(kind).items()}


def _checked(name: str, kind: Any, value: Any) -> Any:
    """Return the value of a field. Raise ValueError if it is not of the field's type."""
    if kind == DetectorInfo | None:
        return (
            DetectorInfo(**_fields(DetectorInfo, value, f"{name}.")) if isinstance(value, dict) else _none(name, value)
        )
    if get_origin(kind) is Literal:
        good = value in get_args(kind)
    elif kind is int:
        good = type(value) is int and value >= 1
    elif kind is float:
        good = type(value) in (int, float) and math.isfinite(value) and value >= 0
    else:
        good = isinstance(value, get_origin(kind) or kind)
    if not good:
        raise ValueError(f"`{name}` is {value!r}")
    return value


def _none(name: str, value: object) -> None:
    if value is not None:
        raise ValueError(f"`{name}` is {value!r}")
