"""From a photo's size to the network's input: the part to take, the size to scale it to, and how much smaller to decode it."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from svckit.photos.refusals import PhotoError, PhotoReason

Rule = Literal["squash", "pad", "crop"]

Size = tuple[int, int]
"""(width, height) in pixels."""
Region = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels."""

_PADDING = (124, 116, 104)
"""ImageNet's mean colour, which normalisation turns into zeros."""

_COMFORT = 2.0
"""A photo decoded at reduced scale stays at least this many times larger than its target: the decoder's box filter then smooths
away only details that the resize would lose too (Pillow's documentation of `reducing_gap`)."""


@dataclass(frozen=True)
class Box:
    """A rectangle in an upright photo, as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    def region(self, size: Size) -> Region:
        """Return the pixels that the box covers, edges rounded to whole pixels. Raise PhotoError if it covers none."""
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise PhotoError(
                PhotoReason.INVALID_CROP,
                f"must be 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got left {self.left:g}, right "
                f"{self.right:g}, top {self.top:g}, bottom {self.bottom:g}",
            )
        width, height = size
        left, right = round(self.left * width), round(self.right * width)
        top, bottom = round(self.top * height), round(self.bottom * height)
        if left == right or top == bottom:
            raise PhotoError(PhotoReason.INVALID_CROP, f"covers no whole pixel of this {width} x {height} photo")
        return left, top, right, bottom


@dataclass(frozen=True)
class Resize:
    """A rule by which a photo becomes the `size` x `size` pixels of the network's input.

    `squash` ignores proportions. `pad` keeps them and fills the rest. `crop` keeps them and loses the ends of the
    longer side: the short side becomes size * 256 / 224, then the centre is cut out (torchvision's Resize(256),
    CenterCrop(224)).
    """

    rule: Rule
    size: int
    fine: bool = False
    """Decode large photos at twice the scale that the whole needs, so that cars in them can be cut from the same decode."""

    def scaled(self, size: Size) -> Size:
        """Return the size that a photo of this size is scaled to."""
        if self.rule == "squash":
            return self.size, self.size
        width, height = size
        if self.rule == "pad":
            longer = max(width, height)
            return max(1, round(self.size * width / longer)), max(1, round(self.size * height / longer))
        short = round(self.size * 256 / 224)
        return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)

    def finish(self, image: Image.Image) -> Image.Image:
        """Pad or crop a scaled image to the square."""
        if self.rule == "pad":
            square = Image.new("RGB", (self.size, self.size), _PADDING)
            square.paste(image, _centred(square.size, image.size))
            return square
        left, top = _centred(image.size, (self.size, self.size))
        return image.crop((left, top, left + self.size, top + self.size))


def reductions(size: Size, target: Size) -> tuple[int, ...]:
    """Return the numbers by which sides of this size, to be scaled to `target`, may be divided in decoding; largest first."""
    factor = min(size[0] / target[0], size[1] / target[1])
    return tuple(divisor for divisor in (8, 4, 2) if divisor * _COMFORT <= factor)


def _centred(outer: Size, inner: Size) -> Size:
    """Return the offset that centres one size in the other, rounded as torchvision does."""
    return round((outer[0] - inner[0]) / 2.0), round((outer[1] - inner[1]) / 2.0)
