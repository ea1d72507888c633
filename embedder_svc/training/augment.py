"""Random views of decoded photos, a batch at a time, on the device that trains.

A car keeps its label when it is seen closer, mirrored, in other light or partly hidden; never when it is upside down.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedder_svc.exporting.traits import PixelNorm

_LUMA = (0.299, 0.587, 0.114)
_LONGEST_SIDES = 4 / 3  # largest ratio of a crop's sides, before it is squashed to a square
_GREY_PHOTOS = 0.05
_ERASED_AREA = (0.02, 0.15)
_FILL = 116.0


@dataclass(frozen=True)
class Augmentation:
    crop_area: float
    """Smallest share of the photo's area that a crop keeps."""
    colour: float
    """Brightness, contrast and saturation are multiplied by 1 - colour .. 1 + colour."""
    erase: float
    """Share of photos that lose a rectangle of 2 to 15 % of their area."""

    def view(self, photos: Tensor, size: int, rng: np.random.Generator) -> Tensor:
        """Photos (N, S, S, 3) uint8 -> (N, 3, size, size) float32, 0..255."""
        columns, rows = self._crops(photos, size, rng)
        views = resample(photos, rows, columns)
        self._change_colours(views, rng)
        self._erase(views, rng)
        return views

    def _crops(self, photos: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        count, side = photos.shape[:2]
        area = rng.uniform(self.crop_area, 1, count)
        ratio = np.exp(rng.uniform(-1, 1, count) * np.log(_LONGEST_SIDES))
        width, height = (side * np.minimum(1, np.sqrt(area * share)) for share in (ratio, 1 / ratio))
        left, top = ((side - length) * rng.random(count) for length in (width, height))
        mirrored = _on(photos.device, rng.random(count) < 0.5)
        left, top, width, height = (_on(photos.device, values) for values in (left, top, width, height))
        columns = filters(left, width, side=side, size=size)
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        return columns, filters(top, height, side=side, size=size)

    def _change_colours(self, views: Tensor, rng: np.random.Generator) -> None:
        """Change brightness, contrast and saturation of the views, in place."""
        shape = (3, len(views), 1, 1, 1)
        brightness, contrast, saturation = _on(views.device, rng.uniform(1 - self.colour, 1 + self.colour, shape))
        saturation[_on(views.device, rng.random(len(views)) < _GREY_PHOTOS)] = 0
        views.mul_(brightness).clamp_(0, 255)
        views.lerp_(_grey(views).mean((2, 3), keepdim=True), 1 - contrast).clamp_(0, 255)
        views.lerp_(_grey(views), 1 - saturation).clamp_(0, 255)

    def _erase(self, views: Tensor, rng: np.random.Generator) -> None:
        """Erase a rectangle of some of the views, in place."""
        size = views.shape[-1]
        for number in np.flatnonzero(rng.random(len(views)) < self.erase):
            area, ratio = rng.uniform(*_ERASED_AREA), np.exp(rng.uniform(-0.7, 0.7))
            width, height = int(size * np.sqrt(area * ratio)), int(size * np.sqrt(area / ratio))
            left, top = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
            views[number, :, top : top + height, left : left + width] = _FILL


def filters(start: Tensor, length: Tensor, *, side: int, size: int) -> Tensor:
    """Return matrices (N, size, side) that resample lines of `side` pixels to the `size` pixels of [start, start + length).

    The filter is the triangle of Pillow's antialiased BILINEAR, which reads past the interval but not past the line.
    """
    scale = (length / size)[:, None, None]
    pixels = torch.arange(side, device=start.device) + 0.5
    centres = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def resample(photos: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply filters (N or 1, size, S) to photos (N, S, S, 3) uint8, and return (N, 3, size, size) float32, 0..255."""
    planes = photos.permute(0, 3, 1, 2).float()
    return rows[:, None] @ planes @ columns[:, None].transpose(-1, -2)


def resize(photos: Tensor, size: int) -> Tensor:
    """Resize whole photos (N, S, S, 3) uint8, as at test time, and return (N, 3, size, size) float32, 0..255."""
    side = photos.shape[1]
    start = torch.zeros(1, device=photos.device)
    whole = filters(start, start + side, side=side, size=size)
    return resample(photos, whole, whole)


def normalised(views: Tensor, norm: PixelNorm) -> Tensor:
    """Normalise RGB views (N, 3, H, W), 0..255, as the network expects its pixels."""
    ordered = views.flip(1) if norm.bgr else views
    mean, std = (views.new_tensor(values)[:, None, None] for values in (norm.mean, norm.std))
    return (ordered * norm.scale - mean) / std


def _grey(views: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W) of RGB views."""
    weights = views.new_tensor(_LUMA)[:, None, None]
    return (views * weights).sum(1, keepdim=True)


def _on(device: torch.device, values: NDArray[Any]) -> Tensor:
    """Return float64 values as float32, and all others as they are."""
    single = values.astype(np.float32) if values.dtype == np.float64 else values
    return torch.from_numpy(single).to(device)
