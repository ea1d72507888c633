"""The query parameters of `/v1`, and what they mean to the SDK."""

from typing import Annotated, Literal

import vmmr
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from web.door.problems import DoorError, Reason

Format = Literal["json", "ndjson", "csv"]
_MOST = 2**31 - 1

Name = Annotated[str, Field(min_length=1, max_length=512)]


def _box(text: str) -> str:
    to_box(text)
    return text


def to_box(text: str) -> vmmr.Box:
    """Return the part of a photo that `left,top,right,bottom` says. Raise ValueError."""
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("must be left,top,right,bottom, as fractions of the photo's width and height") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("must have 0 <= left < right <= 1 and 0 <= top < bottom <= 1")
    return vmmr.Box(left, top, right, bottom)


class Timeout(BaseModel):
    model_config = ConfigDict(extra="forbid")
    timeout_s: float | None = Field(
        default=None, gt=0, le=3600, description="Seconds that the call may take; the server's own limit holds too."
    )


class Looking(Timeout):
    """What of photos to look at."""

    subject: Literal["main_car", "whole", "every_car"] | None = Field(
        default=None,
        description="What of a photo to look at. Default: the main car if the model has a detector, else all of the photo.",
    )
    crop: Annotated[str, AfterValidator(_box)] | None = Field(
        default=None,
        pattern=r"^[0-9.]+,[0-9.]+,[0-9.]+,[0-9.]+$",
        description="The part of each photo to look at: left,top,right,bottom, as fractions of its width and height.",
    )

    def check_looking(self) -> None:
        """Raise DoorError if the options do not go together."""
        if self.crop and self.subject:
            raise DoorError(Reason.INVALID_REQUEST, "crop and subject both say what to look at: give one of them")


class Options(Timeout):
    """How to search."""

    k: int | None = Field(default=None, ge=1, le=_MOST, description="Neighbours to find, all of which vote.")
    make: list[Name] = Field(default=[], max_length=100, description="Search cars of these makes alone.")
    model: list[Name] = Field(default=[], max_length=100, description="Search cars of these models alone.")
    label: list[Name] = Field(default=[], max_length=100, description="Search photos with these labels alone.")
    min_year: int | None = Field(default=None, ge=1, le=9999, description="Search cars of this year or later.")
    max_year: int | None = Field(default=None, ge=1, le=9999, description="Search cars of this year or earlier.")
    exact: bool = Field(default=False, description="Compare with every gallery photo: slower.")
    allow_partial: bool = Field(default=False, description="Answer without the shards of the index that are late.")

    @property
    def search(self) -> vmmr.SearchOptions:
        chosen = vmmr.Filter(tuple(self.make), tuple(self.model), tuple(self.label), self.min_year, self.max_year)
        return vmmr.SearchOptions(self.k, chosen, self.exact, allow_partial=self.allow_partial)


class IdentifyOptions(Options, Looking):
    """How to identify photos."""

    one_car: bool = Field(default=False, description="The photos are of one car, and get one answer.")
    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="The confidence below which the verdict of an answer is unsure."
    )
    format: Format = Field(
        default="json", description="The form of the answer; ndjson is a line for each photo, as it comes."
    )

    def check(self, photos: int) -> None:
        """Raise DoorError if the options do not go together."""
        self.check_looking()
        if self.subject == "every_car" and (photos > 1 or self.one_car):
            raise DoorError(Reason.INVALID_REQUEST, "subject=every_car takes one photo, and no one_car")
