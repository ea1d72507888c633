"""Which files are photos, by their names: the one rule of `vmmr add`, the load test and the services' offline commands."""

import os

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".bmp", ".gif")


def has_photo_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a name ends as a photo's does, in capitals or not."""
    suffix = os.path.splitext(path)[1]  # noqa: PTH122 - a Path for each of many files is slow
    return suffix.lower() in PHOTO_SUFFIXES
