"""What a small training begins with: photos that are easy to tell apart, and a network that has seen none."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from safetensors.torch import save_file

from embedder_svc.exporting.resnet import ResNet50


def save_photo(path: Path, colour: ArrayLike, rng: np.random.Generator) -> None:
    """Writes a photo, 60 x 40, of one colour (of each channel, or one for all) and some noise."""
    pixels = np.clip(colour + rng.normal(0, 20, (40, 60, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def save_checkpoint(path: Path, **more: str) -> None:
    """Writes the weights of a ResNet-50 that has learned nothing, with more to say of them."""
    state = {name: value for name, value in ResNet50().state_dict().items() if not name.endswith("tracked")}
    save_file(state, path, {"strides": "v1", "pixels": "caffe", "source": "chance"} | more)
