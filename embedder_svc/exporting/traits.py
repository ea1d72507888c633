"""The traits of weights that a state dict does not say, and without which they cannot be run rightly.

A network built with other strides, or shown other pixels, gives worse features, and no error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self, get_args

from embedder_svc.exporting.resnet import StrideIn
from embedder_svc.photos.resize import Resize, Rule


@dataclass(frozen=True)
class PixelNorm:
    """The normalisation of pixels that a network expects: (value * scale - mean) / std for each channel of an 8-bit photo."""

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


_MIN_INPUT_SIZE = 32  # at which the last stage of a ResNet is one pixel


@dataclass(frozen=True)
class Traits:
    """The traits of weights. The defaults are torchvision's, but for the resize rule: squashing cars beat cropping them by 3 to 5 points."""

    strides: StrideIn = "v1.5"
    eps: float = 1e-5
    """The number that batch norms add to the variance."""
    pixels: str = "imagenet"
    """A key of PIXELS."""
    resize: Rule = "squash"
    input_size: int = 224
    """Side of the square that photos are resized to."""
    licence: str = "unknown"
    training_data: str = "unknown"

    def __post_init__(self) -> None:
        """Raise ValueError if a field has no value that it may have."""
        for name, known in (("strides", get_args(StrideIn)), ("pixels", (*PIXELS,)), ("resize", get_args(Rule))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not self.eps > 0:
            raise ValueError(f"eps must be > 0, got {self.eps}")
        if self.input_size < _MIN_INPUT_SIZE:
            raise ValueError(f"input_size must be >= {_MIN_INPUT_SIZE}, got {self.input_size}")

    def updated(self, given: Mapping[str, Any]) -> Self:
        """Return these traits with the given fields that are not None; numbers may be given as text. Raise ValueError."""
        types = {"eps": float, "input_size": int}
        known = {name: given[name] for name in self.__dataclass_fields__ if given.get(name) is not None}
        return replace(self, **{name: types.get(name, str)(value) for name, value in known.items()})

    @property
    def resizing(self) -> Resize:
        return Resize(self.resize, self.input_size)


IMAGENET = Traits(licence="BSD-3-Clause", training_data="ImageNet-1k")
"""The traits of torchvision's own weights."""
KERAS = Traits("v1", 1e-3, "caffe", licence="MIT", training_data="ImageNet-1k")
"""The traits of Keras's weights."""
