"""What a small training begins with: photos that are easy to tell apart, and a network that has seen none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from safetensors.torch import save_file

from embedder_svc.exporting import resnet
from embedder_svc.exporting.resnet import ResNet50

SMALL_FEATURES = 256


@contextmanager
def small_resnet() -> Iterator[None]:
    """Makes each ResNet-50 of the block a small one: one block a stage, few channels, and an eighth of the features."""
    stages = ((8, 1, 1), (8, 1, 2), (16, 1, 2), (SMALL_FEATURES // 4, 1, 2))
    with patch.object(resnet, "_STAGES", stages), patch.object(resnet, "FEATURES", SMALL_FEATURES):
        yield


def save_photo(path: Path, colour: ArrayLike, rng: np.random.Generator) -> None:
    """Writes a photo, 60 x 40, of one colour (of each channel, or one for all) and some noise."""
    pixels = np.clip(colour + rng.normal(0, 20, (40, 60, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def save_checkpoint(path: Path, **more: str) -> None:
    """Writes the weights of a ResNet-50 that has learned nothing, always the same, with more to say of them."""
    torch.manual_seed(0)
    state = {name: value for name, value in ResNet50().state_dict().items() if not name.endswith("tracked")}
    save_file(state, path, {"strides": "v1", "pixels": "caffe", "source": "chance"} | more)
