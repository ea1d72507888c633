"""What weights need to be run rightly and a state dict does not say.

A network built with other strides, or shown other pixels, gives quietly worse features, never an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self, get_args

from embedder_svc.resnet import StrideIn


@dataclass(frozen=True)
class PixelNorm:
    """What a network expects of its pixels: (value * scale - mean) / std for each channel of an 8-bit photo."""

    bgr: bool
    """Whether channels come blue first. `mean` and `std` are in the network's order."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float


PIXELS: Mapping[str, PixelNorm] = MappingProxyType(
    {
        "imagenet": PixelNorm(bgr=False, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255),
        "caffe": PixelNorm(bgr=True, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), scale=1.0),
    }
)
"""The two conventions of published ImageNet weights: torchvision's, and that of Caffe and Keras."""


@dataclass(frozen=True)
class Traits:
    """The defaults are torchvision's."""

    strides: StrideIn = "v1.5"
    eps: float = 1e-5
    """Of the batch norms."""
    pixels: str = "imagenet"
    """A key of PIXELS."""
    licence: str = "unknown"
    training_data: str = "unknown"

    def updated(self, given: Mapping[str, Any]) -> Self:
        """With the fields that are given and not None; eps may be given as text. Raises ValueError."""
        known = {name: given[name] for name in self.__dataclass_fields__ if given.get(name) is not None}
        if "eps" in known:
            known["eps"] = float(known["eps"])
        updated = replace(self, **known)
        if updated.strides not in get_args(StrideIn) or updated.pixels not in PIXELS or not updated.eps > 0:
            raise ValueError(
                f"strides {updated.strides!r}, pixels {updated.pixels!r} or eps {updated.eps} is not known"
            )
        return updated


IMAGENET = Traits(licence="BSD-3-Clause", training_data="ImageNet-1k")
"""torchvision's own weights."""
KERAS = Traits("v1", 1e-3, "caffe", licence="MIT", training_data="ImageNet-1k")
