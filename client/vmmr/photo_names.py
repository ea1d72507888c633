"""Which files are photos, by their names: the one rule of `split`, `embed`, `export`, `vmmr add` and the load test."""

import os
import unicodedata

PHOTO_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".hif",
    ".avif",
)

_SYSTEMS = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""Files and folders that file managers and storage devices add beside photos: thumbnails, waste baskets, settings."""

_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show what follows in another order than it is written in (Unicode Standard Annex 9)."""


def has_photo_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a name ends as a photo's does, in capitals or not."""
    suffix = os.path.splitext(path)[1]  # noqa: PTH122 - a Path for each of many files is slow
    return suffix.lower() in PHOTO_SUFFIXES


def clutter(name: str) -> str | None:
    """Return why a file or folder of this name is nobody's photo, whatever it ends in; None if that can't be told by its name."""
    if name.startswith("."):
        return "hidden"
    return "made by the system, not by a camera" if name.casefold() in _SYSTEMS else None


def name_fault(text: str) -> str | None:
    """Return why a text can't be the name of a photo or a label; None if it can be.

    Letters of any script and all that their spelling needs are fine: joiners, marks, spaces of any width.
    """
    if not is_utf8(text):
        return "its name is not UTF-8"
    if any(_disturbs(character) for character in text):
        return "its name has control characters, or such that change the order of the text around them"
    return None


def is_utf8(text: str) -> bool:
    """Return whether a text that may be a file's name can be written in UTF-8: Python has surrogates for bytes that are none."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def shown(text: str) -> str:
    """Return a text for people to read, in which what `name_fault` refuses is written as escapes."""
    return "".join(ascii(character)[1:-1] if _disturbs(character) else character for character in text)


def _disturbs(character: str) -> bool:
    return not character.isprintable() and (unicodedata.category(character) in _UNPRINTABLE or character in _REORDERING)
