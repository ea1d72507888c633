"""A model on disk: a directory with `model.onnx` and `model.json`, and the fingerprint that names the pair.

The graph maps `images`, uint8 `(N, size, size, 3)` RGB, to `embeddings`, float32 `(N, dimension)`. Normalisation and
layout are inside it; `model.json` says what happens to a photo before it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from embedder_svc.photos import preprocess
from embedder_svc.photos.resize import Resize, Rule
from svckit import artifact
from svckit.artifact import ArtifactError

GRAPH = "model.onnx"
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

    @property
    def resizing(self) -> Resize:
        return Resize(self.resize, self.input_size)


_OPTIONAL = {"flip": BundleInfo.flip, "head": {}}
"""Values of fields that older bundles do not have."""


def write(path: Path, onnx: bytes, **fields: Any) -> BundleInfo:
    """Write a bundle, whole or not at all. `fields` are those of BundleInfo, without the fingerprint.

    Raise ArtifactError if `path` exists.
    """
    identity = _fingerprint(hashlib.sha256(onnx).hexdigest(), fields["resize"], fields["input_size"])
    info = BundleInfo(fingerprint=identity, **fields)
    with artifact.atomic_directory(path) as directory:
        (directory / GRAPH).write_bytes(onnx)
        described = {**dataclasses.asdict(info), "preprocess": preprocess.VERSION}
        artifact.write_manifest(directory, described, DESCRIPTION)
    return info


def read(path: Path) -> BundleInfo:
    """Read and verify a bundle. Raise ArtifactError naming the file that is wrong."""
    description = path / DESCRIPTION
    if not description.exists():
        raise ArtifactError(description, "missing: no model bundle here; `vmmr-embedder export` makes one")
    content = artifact.read_manifest(path, DESCRIPTION)
    if GRAPH not in content["files"]:
        raise ArtifactError(description, f"`files` does not list {GRAPH}")
    info = _parse(description, content)
    if content.get("preprocess") != preprocess.VERSION:
        raise ArtifactError(
            description, f"is for preprocessing {content.get('preprocess')}, this vmmr does {preprocess.VERSION}"
        )
    actual = _fingerprint(content["files"][GRAPH]["sha256"], info.resize, info.input_size)
    if info.fingerprint != actual:
        raise ArtifactError(description, f"says fingerprint {info.fingerprint}, its content has {actual}")
    return info


def _fingerprint(graph_sha256: str, resize: str, input_size: int) -> str:
    pixels = {"input_size": input_size, "preprocess": preprocess.VERSION, "resize": resize}
    canonical = json.dumps(pixels, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{graph_sha256}\n{canonical}".encode()).hexdigest()


def _parse(path: Path, content: Mapping[str, Any]) -> BundleInfo:
    try:
        kinds, found = get_type_hints(BundleInfo), {**_OPTIONAL, **content}
        fields = {name: _checked(name, kind, found.get(name)) for name, kind in kinds.items()}
    except ValueError as error:
        raise ArtifactError(path, str(error)) from error
    return BundleInfo(**fields)


def _checked(name: str, kind: Any, value: Any) -> Any:
    """Return the value of a field. Raise ValueError if it is not of the field's type."""
    if get_origin(kind) is Literal:
        good = value in get_args(kind)
    elif kind is int:
        good = type(value) is int and value >= 1
    else:
        good = isinstance(value, get_origin(kind) or kind)
    if not good:
        raise ValueError(f"`{name}` is {value!r}")
    return value
