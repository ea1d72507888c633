"""HEIC and AVIF, which phones write: both are files of ISO/IEC 23008-12, with pictures of HEVC or AV1.

Their photos are turned as the file's own boxes say. The orientation in their EXIF repeats that, and is for information only. So EXIF
is not read, nor other metadata: it can neither turn a photo twice nor make a good one unreadable.
"""

import importlib
import io
import re

from PIL import AvifImagePlugin
from PIL.AvifImagePlugin import AvifImageFile
from PIL.ImageFile import ImageFile

from svckit.photos.refusals import PhotoError, PhotoReason

_METADATA_ITEM = re.compile(rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})(?:Exif|mime|uri )", re.DOTALL)
"""The entry of an item (`infe`, its version, number and protection) that is metadata."""
_SAFE = (1, 23, 6)
"""The libheif from which on no hole is known that photos can be made to use; earlier ones have had several (docs/adr/0018)."""

# Each photo is decoded in one thread: the service decides how many photos are decoded at once.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def heic(content: bytes) -> ImageFile:
    """Read the header of a HEIC. Raise PhotoError if nothing is installed that reads it."""
    return heif_plugin()(io.BytesIO(without_metadata(content)))


def avif(content: bytes) -> ImageFile:
    """Read the header of an AVIF. Raise PhotoError if Pillow was built without AVIF."""
    if not AvifImagePlugin.SUPPORTED:
        raise _unread("AVIF", "Pillow was built without it")
    return AvifImageFile(io.BytesIO(without_metadata(content)))


def without_metadata(content: bytes) -> bytes:
    """Return the file with the names of its items of metadata changed, so that nobody looks for them."""
    return _METADATA_ITEM.sub(rb"\1skip", content)


def ends_early(content: bytes) -> bool:
    """Return whether a box of the file goes on behind its end."""
    place = 0
    while place + 8 <= len(content):
        size, wide = int.from_bytes(content[place : place + 4], "big"), content[place + 8 : place + 16]
        size = int.from_bytes(wide, "big") if size == 1 else size
        if size < 8:
            return False
        place += size
    return place != len(content)


def heif_plugin() -> type[ImageFile]:
    """Return the Pillow plugin that reads HEIC. Raise PhotoError if there is none, or one with known holes."""
    try:
        library = importlib.import_module("pillow_heif")
        plugin = importlib.import_module("pillow_heif.as_plugin")
    except ImportError as error:
        raise _unread("HEIC", "pillow-heif is not installed: pip install 'vmmr-services[heic]'") from error
    version = library.libheif_version()
    if tuple(map(int, version.split("."))) < _SAFE:
        raise _unread("HEIC", f"libheif {version} has known holes: pip install --upgrade 'vmmr-services[heic]'")
    options = library.options
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    found: type[ImageFile] = plugin.HeifImageFile
    return found


def _unread(form: str, why: str) -> PhotoError:
    return PhotoError(PhotoReason.IMAGE_FORMAT, f"the file is {form}, which this installation can't read: {why}")
