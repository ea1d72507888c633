"""Images of a request to photos: what of each is wanted, or what is wrong with the request."""

from collections.abc import Iterable, Iterator, Sequence

from vmmr.embedder.v1 import embedder_pb2

from embedder_svc.network.cars import Subject
from embedder_svc.photos.preprocess import Box, PhotoReason
from embedder_svc.serving.looking import EncodedPhoto
from svckit.errors import Reason, ServiceError, Violation

_SUBJECTS = {
    embedder_pb2.SUBJECT_WHOLE: Subject.WHOLE,
    embedder_pb2.SUBJECT_MAIN_CAR: Subject.MAIN_CAR,
    embedder_pb2.SUBJECT_EVERY_CAR: Subject.EVERY_CAR,
}


def photos(images: Sequence[embedder_pb2.Image], default: Subject) -> list[EncodedPhoto]:
    """Return each image's content, and its crop or subject. Raise ServiceError, INVALID_SUBJECT or INVALID_IMAGE, naming each field."""
    _refuse(violation for i, image in enumerate(images) for violation in _wrong(f"images[{i}]", image))
    return [(image.content, _wanted(image, default)) for image in images]


def contents(images: Sequence[embedder_pb2.Image]) -> list[bytes]:
    """Return each image's content. Raise ServiceError, INVALID_SUBJECT or INVALID_IMAGE, if a crop or a subject is given."""
    _refuse(violation for i, image in enumerate(images) for violation in _given(f"images[{i}]", image))
    return [image.content for image in images]


def _wanted(image: embedder_pb2.Image, default: Subject) -> Box | Subject:
    if image.HasField("crop"):
        return Box(image.crop.left, image.crop.top, image.crop.right, image.crop.bottom)
    return _SUBJECTS.get(image.subject, default)


def _wrong(photo: str, image: embedder_pb2.Image) -> Iterator[Violation]:
    if image.subject not in (*_SUBJECTS, embedder_pb2.SUBJECT_UNSPECIFIED):
        known = f"must be 0 to {max(_SUBJECTS)}, got {image.subject}"
        yield Violation(f"{photo}.subject", Reason.INVALID_SUBJECT, known)
    elif image.subject and image.HasField("crop"):
        yield Violation(f"{photo}.crop", PhotoReason.INVALID_CROP, "must not be given with a subject")


def _given(photo: str, image: embedder_pb2.Image) -> Iterator[Violation]:
    if image.subject:
        yield Violation(
            f"{photo}.subject", Reason.INVALID_SUBJECT, "must not be given: cars are looked for in all of it"
        )
    if image.HasField("crop"):
        yield Violation(
            f"{photo}.crop", PhotoReason.INVALID_CROP, "must not be given: cars are looked for in all of it"
        )


def _refuse(violations: Iterable[Violation]) -> None:
    """Raise ServiceError of these violations, if there are any."""
    if bad := list(violations):
        subject = any(violation.reason == Reason.INVALID_SUBJECT for violation in bad)
        reason = Reason.INVALID_SUBJECT if subject else Reason.INVALID_IMAGE
        raise ServiceError(reason, f"{bad[0].field} {bad[0].description}", violations=bad)
