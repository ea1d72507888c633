"""The commands that look at photos: `vmmr identify` and `vmmr detect`."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from vmmr._cli import report, settings
from vmmr._cli.drawing import Album
from vmmr._cli.exits import ANSWERED, PHOTOS_FAILED, USAGE
from vmmr._cli.sources import photos, source
from vmmr._client import Client
from vmmr._errors import InvalidPhotoError, PhotoError
from vmmr._mistaken import shortened
from vmmr._photos import Photo
from vmmr._types import Identification

_FUSED = "--fuse gives one answer for all photos: --every-car and --save-boxes go with an answer for each"


def identify(client: Client, args: argparse.Namespace) -> int:
    try:
        if args.fuse and (args.every_car or args.save_boxes):
            raise ValueError(_FUSED)  # noqa: TRY301
        album = Album.open(args.save_boxes) if args.save_boxes else None
    except (OSError, ValueError) as error:
        print(f"vmmr: error: {report.mistake(error)}", file=sys.stderr)
        return USAGE
    return _identify_car(client, args) if args.fuse else _identify_each(client, args, album)


def detect(client: Client, args: argparse.Namespace) -> int:
    """Print where the cars are. Photos go one at a time, so that a bad one costs the others nothing."""
    width = max(len(shortened(name)) for name in ["PHOTO", *args.photos])
    heading = None if args.json else report.detection_heading(width)
    code = ANSWERED
    for name in args.photos:
        try:
            [cars] = client.detect([source(name, args)])
        except PhotoError as error:
            code = PHOTOS_FAILED
            report.photo_error(name, error, as_json=args.json)
            continue
        if args.json:
            report.show(report.json_line(photo=name, cars=list(map(asdict, cars))))
            continue
        if heading is not None:
            report.show(heading)
            heading = None
        report.show("\n".join(report.detection_lines(name, cars, width)))
    return code


def _identify_car(client: Client, args: argparse.Namespace) -> int:
    """Print one answer from all photos, or none."""
    try:
        found = client.identify_car(
            photos(args), options=settings.search_options(args), min_confidence=args.min_confidence
        )
    except PhotoError as error:
        _report_errors_of_car(error, args)
        return PHOTOS_FAILED
    except ValueError as error:
        # The services accept fewer photos.
        print(f"vmmr: error: {error}", file=sys.stderr)
        return USAGE
    first, *others = map(shortened, args.photos)
    name = f"{first} (+{len(others)})" if others else first
    if not args.json:
        report.show(report.identification_heading(len(name)))
    _report_identification(name, found, args, len(name))
    return ANSWERED


def _identify_each(client: Client, args: argparse.Namespace, album: Album | None) -> int:
    width = max(len(shortened(name)) for name in ["PHOTO", *args.photos])
    heading = None if args.json else report.identification_heading(width)
    code = ANSWERED
    asked = photos(args) if album is None else album.kept(photos(args))
    for name, (photo, answer) in zip(args.photos, _answers(client, asked, args), strict=True):
        if isinstance(answer, PhotoError):
            code = PHOTOS_FAILED
            report.photo_error(name, answer, as_json=args.json)
            continue
        if heading is not None:
            report.show(heading)
            heading = None
        for found in answer:
            _report_identification(name, found, args, width)
        if album and (problem := album.save(name, photo, answer)):
            code = PHOTOS_FAILED
            print(f"vmmr: {name}: its boxes are not drawn: {problem}", file=sys.stderr)
    return code


def _answers(
    client: Client, asked: Iterator[Photo], args: argparse.Namespace
) -> Iterator[tuple[Photo, Sequence[Identification] | PhotoError]]:
    """Yield each photo with its answers, the main car's first, or with what is wrong with it.

    With --every-car the photos go one at a time; otherwise in batches.
    """
    options, least = settings.search_options(args), args.min_confidence
    if not args.every_car:
        for outcome in client.identify_many(asked, options=options, min_confidence=least, batch=args.batch):
            assert isinstance(outcome.photo, Photo)
            yield outcome.photo, outcome.error if isinstance(outcome.error, PhotoError) else [outcome.result()]
        return
    for photo in asked:
        try:
            answers = client.identify_every_car(photo.source, options=options, min_confidence=least)
        except PhotoError as error:
            yield photo, error
        else:
            yield photo, answers


def _report_identification(name: str, found: Identification, args: argparse.Namespace, width: int) -> None:
    if args.json:
        report.show(report.json_line(**_shown(args, name), **asdict(found)))
    else:
        shown = report.neighbour_lines(found.neighbours[: args.neighbours])
        report.show("\n".join([report.identification_line(name, found, width), *shown]))


def _report_errors_of_car(error: PhotoError, args: argparse.Namespace) -> None:
    """Report each bad photo by its name, if the error tells them apart."""
    if args.json:
        report.show(report.json_line(photos=args.photos, error=report.error_fields(error)))
    elif isinstance(error, InvalidPhotoError) and error.photos:
        for position in error.photos:
            report.photo_error(args.photos[position], error.of(position), as_json=args.json)
    elif one := re.match(r"photos\[(\d+)\]: ", str(error)):
        report.photo_error(args.photos[int(one[1])], type(error)(str(error)[one.end() :]), as_json=args.json)
    else:
        print(f"vmmr: {report.in_flags(str(error))}", file=sys.stderr)


def _shown(args: argparse.Namespace, name: str) -> dict[str, object]:
    return {"photos": args.photos} if args.fuse else {"photo": name}
