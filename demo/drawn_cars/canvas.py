"""A camera, and a canvas on which it paints polygons that stand in space."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float64]
Colour = tuple[int, ...]  # RGB, or RGBA to let through what is behind

_NEAREST_M = 0.3  # what is nearer, or behind the camera, is taken to be this far away


@dataclass(frozen=True)
class Camera:
    """A camera that looks level, along `forward`: so uprights stay upright and the horizon is the row `centre[1]`."""

    eye: Floats
    forward: Floats
    focal: float
    centre: tuple[float, float]

    def scaled(self, by: float) -> "Camera":
        """Return the camera with the same view in a picture `by` times as large."""
        return replace(self, focal=by * self.focal, centre=(by * self.centre[0], by * self.centre[1]))

    def depth(self, points: Floats) -> Floats:
        """Return metres in front of the camera, of points (..., 3)."""
        return np.asarray((points - self.eye) @ self.forward)

    def project(self, points: Floats) -> Floats:
        """Return pixels (..., 2) of points (..., 3)."""
        scale = self.focal / np.maximum(self.depth(points), _NEAREST_M)
        away = points - self.eye
        across = away[..., 0] * self.forward[1] - away[..., 1] * self.forward[0]
        return np.stack([self.centre[0] + scale * across, self.centre[1] - scale * away[..., 2]], axis=-1)


def aim(eye: Floats, box: Floats, size: tuple[int, int], fill: float, shift: tuple[float, float]) -> Camera:
    """Return the camera at `eye` whose picture of `size` shows the points `box` (n, 3), `fill` of its width or height wide.

    They are off its middle by `shift`, in parts of the picture.
    """
    forward = np.array([-eye[0], -eye[1], 0.0])
    forward /= np.linalg.norm(forward)
    seen = Camera(eye, forward, 1.0, (0.0, 0.0)).project(box)
    low, high = seen.min(axis=0), seen.max(axis=0)
    focal = fill * float((np.array(size) / (high - low)).min())
    x, y = np.array(size) * (0.5 + np.array(shift)) - focal * (low + high) / 2
    return Camera(eye, forward, focal, (float(x), float(y)))


class Canvas:
    """Paints on `image` what `camera` sees."""

    def __init__(self, image: Image.Image, camera: Camera) -> None:
        self.camera = camera
        self._pen = ImageDraw.Draw(image, "RGBA")

    def polygon(self, points: Floats, colour: Colour) -> None:
        """Paint a filled polygon of points (n, 3)."""
        self.flat(self.camera.project(points), colour)

    def flat(self, pixels: Floats, colour: Colour) -> None:
        """Paint a filled polygon of pixels (n, 2)."""
        self._pen.polygon(pixels.ravel().tolist(), fill=colour)

    def line(self, points: Floats, colour: Colour, width: float) -> None:
        """Paint a line through points (n, 3), as thick as `width` metres are where it begins."""
        pixels = self.camera.focal * width / float(self.camera.depth(points[0]))
        self._pen.line(self.camera.project(points).ravel().tolist(), fill=colour, width=max(1, round(pixels)))

    def shows(self, point: Floats, normal: Floats) -> bool:
        """Return whether a surface at `point`, whose outside is along the unit vector `normal`, shows its outside."""
        away = self.camera.eye - point
        return bool(away @ normal > 0.03 * np.linalg.norm(away))
