"""Draw boxes and answers into photos, for `vmmr identify --save-boxes`. Needs Pillow, which the SDK does not: the extra `draw`."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from vmmr._cli import report
from vmmr._deadlines import unlimited
from vmmr._photos import Photo, PhotoSource, load
from vmmr._types import Identification

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
_MISSING = "--save-boxes needs Pillow: pip install './client[draw]', in a checkout of vmmr"


class _Kept:
    """A photo that is read once and kept, as a file that is open: standard input and URLs can't be read again."""

    def __init__(self, source: PhotoSource) -> None:
        self._source = source
        self.content = b""

    def read(self, size: int = -1, /) -> bytes:
        # The reader asks for one byte more than it takes, and tells by that byte that there are too many.
        most = size if size > 0 else 2**62
        self.content = load(Photo(self._source), most, unlimited).content
        return self.content


@dataclass
class Album:
    """A folder that photos are written to, with their boxes and answers drawn, numbered in the order of the command line."""

    folder: Path
    _saved: int = 0

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Make the folder if it isn't there. Raise ValueError if Pillow is not installed, OSError if the folder can't be made."""
        try:
            import PIL  # noqa: F401, PLC0415 (the SDK does without it)
        except ModuleNotFoundError as error:
            raise ValueError(_MISSING) from error
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def kept(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """Yield photos that `save` takes once they were identified."""
        return (replace(photo, source=_Kept(photo.source)) for photo in photos)

    def save(self, name: str, photo: Photo, answers: Sequence[Identification]) -> str:
        """Write a photo with its answers. Return why it can't be; empty if it was written."""
        self._saved += 1
        stem = re.sub(r"[^\w.-]+", "_", "stdin" if name == "-" else PurePosixPath(name).stem)
        assert isinstance(photo.source, _Kept)
        try:
            drawn = _drawn(photo.source.content, answers)
            drawn.save(self.folder / f"{self._saved:04}-{stem[:100]}.jpg", "JPEG", quality=90)
        except (OSError, ValueError) as error:
            return str(error)
        return ""


def _drawn(content: bytes, answers: Sequence[Identification]) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageOps  # noqa: PLC0415 (the SDK does without it)

    with Image.open(io.BytesIO(content)) as file:
        picture = ImageOps.exif_transpose(file).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    for answer, colour in zip(answers, _COLOURS * (1 + len(answers) // len(_COLOURS)), strict=False):
        _draw(canvas, picture.size, answer, colour)
    return picture


def _draw(canvas: "ImageDraw.ImageDraw", size: tuple[int, int], answer: Identification, colour: str) -> None:
    """Draw the box, and the answer within it, at its top."""
    width, height = size
    line = max(2, min(size) // 200)
    left, top, right, bottom = 0, 0, width - 1, height - 1
    if answer.cut:
        box = answer.cut.box
        left, top = int(box.left * width), int(box.top * height)
        right, bottom = min(right, int(box.right * width)), min(bottom, int(box.bottom * height))
    canvas.rectangle((left, top, right, bottom), outline=colour, width=line)
    font = _font(max(10, min(size) // 25))
    place = (left + 2 * line, top + 2 * line)
    text = report.drawn_text(answer)
    canvas.rectangle(canvas.textbbox(place, text, font=font), fill=colour)
    canvas.text(place, text, fill="white", font=font)


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont  # noqa: PLC0415 (the SDK does without it)

    return ImageFont.load_default(size)
