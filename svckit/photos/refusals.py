"""Why a photo, or a part of it, can't be used."""

from enum import StrEnum


class PhotoReason(StrEnum):
    """Why a photo was refused; sent as the reason of its field violation."""

    IMAGE_EMPTY = "IMAGE_EMPTY"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    IMAGE_FORMAT = "IMAGE_FORMAT"
    IMAGE_TRUNCATED = "IMAGE_TRUNCATED"
    IMAGE_CORRUPT = "IMAGE_CORRUPT"
    IMAGE_TOO_COMPLEX = "IMAGE_TOO_COMPLEX"
    IMAGE_TOO_MANY_PIXELS = "IMAGE_TOO_MANY_PIXELS"
    IMAGE_ASPECT_RATIO = "IMAGE_ASPECT_RATIO"
    INVALID_CROP = "INVALID_CROP"


class PhotoError(ValueError):
    """A photo, or the crop asked of it, can't be used. `reason` is for programs, `description` for people."""

    def __init__(self, reason: PhotoReason, description: str) -> None:
        super().__init__(description)
        self.reason = reason
        self.description = description


def truncated() -> PhotoError:
    return PhotoError(PhotoReason.IMAGE_TRUNCATED, "the file ends before the photo does")


def corrupt(what: str = "it can't be decoded") -> PhotoError:
    return PhotoError(PhotoReason.IMAGE_CORRUPT, f"the file is damaged: {what}")


def too_complex(what: str) -> PhotoError:
    return PhotoError(PhotoReason.IMAGE_TOO_COMPLEX, what)
