"""The photos of a request: parts of a form, the body itself, or JSON with URLs or base64."""

import base64
import io
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Annotated

import vmmr
from pydantic import BaseModel, ConfigDict, EncodedBytes, EncoderProtocol, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from web.door.problems import DoorError, Reason, Violation

_MAX_FIELDS = 2000
_MAX_FIELD_BYTES = 64 * 2**10


@dataclass(frozen=True)
class SentPhoto:
    """A photo that was sent, or a URL to fetch it from."""

    name: str
    """Its file's name or its URL; empty if it has none."""
    source: bytes | vmmr.URL
    crop: vmmr.Box | None = None


@dataclass(frozen=True)
class Sent:
    """What a request has sent."""

    photos: list[SentPhoto] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)
    """The fields of a form that are no photos. Empty fields are left out."""

    def one(self, name: str) -> str:
        """Return the value of a field that is given once, the last if it is given more often; empty if it isn't."""
        return self.fields.get(name, [""])[-1]


class CropBody(BaseModel):
    """A part of an upright photo, as fractions of its width and height."""

    model_config = ConfigDict(extra="forbid")
    left: float = Field(ge=0, le=1)
    top: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    bottom: float = Field(ge=0, le=1)


class _Base64(EncoderProtocol):
    """Base64 that is nothing else: pydantic's own passes over characters that it does not have. Line breaks are fine."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(b"".join(data.split()), validate=True)
        except ValueError as error:
            raise PydanticCustomError("base64_decode", "is not base64: {error}", {"error": str(error)}) from None

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> str:
        return "base64"


class PhotoBody(BaseModel):
    """A photo: its URL or its bytes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["url"]}, {"required": ["base64"]}]}
    )
    url: str = Field(default="", min_length=1, max_length=8192, description="Where the photo is: http:// or https://.")
    base64: Annotated[bytes, EncodedBytes(encoder=_Base64)] = Field(
        default=b"", min_length=1, description="The encoded photo, as base64."
    )
    name: str = Field(default="", max_length=1024, description="A name to find the photo by in the answer.")
    crop: CropBody | None = Field(default=None, description="The part of the photo to look at.")

    @model_validator(mode="after")
    def _one_source(self) -> "PhotoBody":
        if len(self.model_fields_set & {"url", "base64"}) != 1:
            raise PydanticCustomError("one_source", "give one of url and base64")
        return self


class PhotosBody(BaseModel):
    """Photos as JSON."""

    model_config = ConfigDict(extra="forbid")
    photos: list[PhotoBody] = Field(min_length=1, description="The photos.")


async def parse(headers: Headers, body: bytes, *, max_photos: int, max_photo_bytes: int, allow_private: bool) -> Sent:
    """Return what the body of a request has, whatever its form. Raise DoorError if that makes no sense, or is too much."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        sent = Sent(_from_json(body, max_photo_bytes, allow_private=allow_private))
    elif kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        sent = await _from_form(kind, headers, body, max_photos, max_photo_bytes, allow_private=allow_private)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        sent = Sent([SentPhoto("", body)] if body else [])
    else:
        raise DoorError(
            Reason.UNSUPPORTED_MEDIA_TYPE,
            "send photos as multipart/form-data, as application/json, or one as image/jpeg or the like; "
            f"got {kind or 'no Content-Type'}",
        )
    _check(sent.photos, max_photos, max_photo_bytes)
    return sent


def check_some(sent: Sent) -> Sent:
    """Return what was sent. Raise DoorError if there is no photo in it."""
    if not sent.photos:
        raise DoorError(Reason.INVALID_REQUEST, "the request has no photo")
    return sent


def _from_json(body: bytes, max_photo_bytes: int, *, allow_private: bool) -> list[SentPhoto]:
    try:
        told = from_json(body)
    except ValueError as error:
        raise DoorError(Reason.INVALID_REQUEST, f"body: {error}") from None
    try:
        # A photo alone needs no list around it.
        several = isinstance(told, dict) and "photos" in told
        photos = PhotosBody.model_validate(told).photos if several else [PhotoBody.model_validate(told)]
    except ValidationError as error:
        raise invalid(error, "body") from None
    return [_photo(photo, max_photo_bytes, allow_private=allow_private) for photo in photos]


def _photo(given: PhotoBody, max_photo_bytes: int, *, allow_private: bool) -> SentPhoto:
    source = _url(given.url, max_photo_bytes, allow_private=allow_private) if given.url else bytes(given.base64)
    crop = vmmr.Box(**given.crop.model_dump()) if given.crop else None
    return SentPhoto(given.name or given.url, source, crop)


def _url(text: str, max_photo_bytes: int, *, allow_private: bool) -> vmmr.URL:
    return vmmr.URL(text, max_bytes=max_photo_bytes, allow_private=allow_private)


async def _from_form(
    kind: str, headers: Headers, body: bytes, max_photos: int, max_photo_bytes: int, *, allow_private: bool
) -> Sent:
    form = await _form(kind, headers, body, max_photos)
    sent, strangers = Sent(), set()
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                photo = SentPhoto(_text(value.filename or ""), await value.read())
                strangers |= {name} - {"photo"}
                # A browser sends an empty part for an input that no file was chosen in.
                if photo.source or photo.name:
                    sent.photos.append(photo)
            elif name == "url" and value.strip():
                source = _url(_text(value.strip()), max_photo_bytes, allow_private=allow_private)
                sent.photos.append(SentPhoto(source.url, source))
            elif value:
                sent.fields.setdefault(_text(name), []).append(_text(value))
    finally:
        await form.close()
    if strangers:
        raise DoorError(Reason.INVALID_REQUEST, f"photos are parts named photo, got {_text(min(strangers))[:100]!r}")
    return sent


async def _form(kind: str, headers: Headers, body: bytes, max_photos: int) -> FormData:
    """Return the parts of a form: texts and files, which are to be closed."""
    limits: dict[str, int] = {"max_fields": _MAX_FIELDS, "max_part_size": _MAX_FIELD_BYTES}
    parser: FormParser | MultiPartParser
    try:
        if kind == "application/x-www-form-urlencoded":
            parser = FormParser(headers, _chunks(body), **limits)
        else:
            parser = MultiPartParser(headers, _chunks(body), max_files=max_photos, **limits)
            parser.spool_max_size = len(body) + 1  # never to a file: all of it is in memory already
        return await parser.parse()
    except MultiPartException as error:
        raise DoorError(Reason.INVALID_REQUEST, f"the form can't be read: {error.message}") from None
    except (UnicodeError, LookupError) as error:
        raise DoorError(Reason.INVALID_REQUEST, f"the form can't be read: {error}") from None


def _text(text: str) -> str:
    """Return the text. Raise DoorError for half of a surrogate pair, which some of the character sets that a form may name can decode to."""
    try:
        text.encode()
    except UnicodeError as error:
        raise DoorError(Reason.INVALID_REQUEST, f"the form can't be read: {error}") from None
    return text


async def _chunks(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces: the parser copies what it is given."""
    file = io.BytesIO(body)
    while chunk := file.read(2**16):
        yield chunk
    yield b""


def _check(photos: list[SentPhoto], max_photos: int, max_photo_bytes: int) -> None:
    if len(photos) > max_photos:
        raise DoorError(Reason.INVALID_REQUEST, f"the request has {len(photos)} photos, at most {max_photos} are taken")
    for position, photo in enumerate(photos):
        if isinstance(photo.source, bytes) and len(photo.source) > max_photo_bytes:
            raise DoorError(
                Reason.UPLOAD_TOO_LARGE,
                f"photos[{position}]: {len(photo.source)} bytes, at most {max_photo_bytes} are taken",
            )


def invalid(error: ValidationError, root: str) -> DoorError:
    """Return the refusal of a request that is not as its schema says; it names all that is wrong."""
    violations = tuple(
        Violation(".".join(map(str, (root, *each["loc"]))), each["type"].upper(), each["msg"])
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    )
    detail = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
    return DoorError(Reason.INVALID_REQUEST, detail, violations=violations)
