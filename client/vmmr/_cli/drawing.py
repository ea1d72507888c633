"""Draw boxes and answers into photos, for `vmmr identify --save-boxes`. Needs Pillow, which the SDK does not: the extra `draw`."""

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_LEAST_POINTS = 10
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
        """Make the folder if it isn't there.

        Raise ValueError if Pillow is not installed, or the folder is none, can't be made, or holds files: those of an earlier
        command would be taken for this one's.
        """
        try:
            import PIL  # noqa: F401, PLC0415 (the SDK does without it)
        except ModuleNotFoundError as error:
            raise ValueError(_MISSING) from error
        _make_empty(folder)
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


def _make_empty(folder: Path) -> None:
    """Make the folder if it isn't there. Raise ValueError if it is none, can't be made or read, or holds anything."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--save-boxes {folder}: that is a file; name a folder to write the photos to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        full = any(folder.iterdir())
    except OSError as error:
        raise ValueError(f"--save-boxes {folder}: {error.filename}: {error.strerror}") from error
    if full:
        raise ValueError(
            f"--save-boxes {folder}: there are files in it, with which these would mix; name an empty or a new folder"
        )


def _drawn(content: bytes, answers: Sequence[Identification]) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageFile, ImageOps  # noqa: PLC0415 (the SDK does without it)

    ImageFile.LOAD_TRUNCATED_IMAGES = (
        True  # what was answered has all its pixels: more than Pillow asks for may be missing
    )
    with contextlib.suppress(ImportError):  # HEIC can be drawn into where this is installed
        importlib.import_module("pillow_heif").register_heif_opener()
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
    _write(canvas, (left + 2 * line, top + 2 * line), report.drawn_text(answer), size, colour)


def _write(
    canvas: "ImageDraw.ImageDraw", place: tuple[int, int], text: str, size: tuple[int, int], colour: str
) -> None:
    """Write a text from that place on, or further left and up, and smaller, so that all of it is within the picture."""
    width, height = size
    points = max(_LEAST_POINTS, min(size) // 25)
    while points > _LEAST_POINTS and canvas.textlength(text, font=_font(points)) > width:
        points -= 1
    font = _font(points)
    lines = _wrapped(text, lambda part: canvas.textlength(part, font=font) <= width)
    _, _, right, bottom = canvas.multiline_textbbox((0, 0), lines, font=font)
    at = (max(0, min(place[0], int(width - 1 - right))), max(0, min(place[1], int(height - 1 - bottom))))
    canvas.rectangle(canvas.multiline_textbbox(at, lines, font=font), fill=colour)
    canvas.multiline_text(at, lines, fill="white", font=font)


def _wrapped(text: str, fits: Callable[[str], bool]) -> str:
    """Return the text in as many lines as it takes for each to fit, broken between words, and within those that are too long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if fits(longer):
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
    return "\n".join(filter(None, lines))


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont  # noqa: PLC0415 (the SDK does without it)

    return ImageFont.load_default(size)
