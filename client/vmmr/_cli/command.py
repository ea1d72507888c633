"""Run the `vmmr` command: parse its arguments, make a client, run the sub-command."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import entry_points
from typing import NoReturn

from vmmr._cli import gallery_commands, report, settings
from vmmr._cli.arguments import parser
from vmmr._cli.exits import ANSWERED, PHOTOS_FAILED, USAGE, exit_code
from vmmr._client import Client
from vmmr._errors import InvalidPhotoError, PhotoError
from vmmr._fetch import URL
from vmmr._photos import Photo, PhotoSource
from vmmr._types import Identification, SearchResult, reservation

_NO_LOADTEST = "vmmr: error: loadtest is not installed: pip install ./client '.[loadtest]', in a checkout of vmmr"


def main() -> NoReturn:
    if sys.argv[1:2] == ["loadtest"]:
        _run_loadtest(sys.argv[2:])
    arguments = parser(os.environ, COMMANDS)
    args = arguments.parse_args()
    try:
        client = _client(args, os.environ)
    except (OSError, ValueError) as error:
        arguments.exit(USAGE, f"vmmr: error: {error}\n")
    sys.exit(_run(client, args))


def _run_loadtest(arguments: Sequence[str]) -> NoReturn:
    """Run `vmmr-loadtest`, a program of the services' distribution, as if it were a command of this one."""
    for program in entry_points(group="console_scripts", name="vmmr-loadtest"):
        program.load()(arguments, "vmmr loadtest")
    print(_NO_LOADTEST, file=sys.stderr)
    sys.exit(USAGE)


def identify(client: Client, args: argparse.Namespace) -> int:
    return _identify_car(client, args) if args.fuse else _identify_each(client, args)


def _identify_car(client: Client, args: argparse.Namespace) -> int:
    """Print one answer from all photos, or none."""
    try:
        found = client.identify_car(
            _photos(args), options=settings.search_options(args), min_confidence=args.min_confidence
        )
    except PhotoError as error:
        _report_errors_of_car(error, args)
        return PHOTOS_FAILED
    except ValueError as error:
        # The services accept fewer photos.
        print(f"vmmr: error: {error}", file=sys.stderr)
        return USAGE
    first, *others = args.photos
    name = f"{first} (+{len(others)})" if others else first
    if not args.json:
        report.show(report.identification_heading(len(name)))
    _report_identification(name, found, args, len(name))
    return ANSWERED


def _identify_each(client: Client, args: argparse.Namespace) -> int:
    width = max(map(len, ["PHOTO", *args.photos]))
    heading = None if args.json else report.identification_heading(width)
    code = ANSWERED
    outcomes = client.identify_many(
        _photos(args), options=settings.search_options(args), min_confidence=args.min_confidence, batch=args.batch
    )
    for name, outcome in zip(args.photos, outcomes, strict=True):
        if isinstance(outcome.error, PhotoError):
            code = PHOTOS_FAILED
            report.photo_error(name, outcome.error, as_json=args.json)
            continue
        found = outcome.result()
        if heading is not None:
            report.show(heading)
            heading = None
        _report_identification(name, found, args, width)
    return code


def search(client: Client, args: argparse.Namespace) -> int:
    code = ANSWERED
    for name, photo in zip(args.photos, _photos(args), strict=True):
        try:
            result = client.search(client.embed([photo]), options=settings.search_options(args))
        except PhotoError as error:
            code = PHOTOS_FAILED
            report.photo_error(name, error, as_json=args.json)
        else:
            _report_neighbours(name, result, args)
    return code


def info(client: Client, args: argparse.Namespace) -> int:
    served = client.info()
    report.show(report.json_line(**asdict(served)) if args.json else "\n".join(report.info_lines(served)))
    if not served.same_model:
        print(f"vmmr: warning: {report.mismatch(served)}", file=sys.stderr)
    if served.index.problem:
        print(f"vmmr: warning: the search service answers from what it had: {served.index.problem}", file=sys.stderr)
    if served.index.lost_entries:
        text = f"the gallery has lost {served.index.lost_entries} changes that were acknowledged"
        print(f"vmmr: warning: {text}", file=sys.stderr)
    return ANSWERED


def labels(client: Client, args: argparse.Namespace) -> int:
    if args.json:
        for entry in client.labels():
            report.show(report.json_line(**asdict(entry)))
    else:
        report.show("\n".join(report.label_lines(client.labels())))
    return ANSWERED


def _run(client: Client, args: argparse.Namespace) -> int:
    code = exit_code(partial(args.command, client, args))
    client.close()
    return code


def _client(args: argparse.Namespace, environment: Mapping[str, str]) -> Client:
    """Make the client. Raise ValueError or OSError if the settings make no sense."""
    return Client(
        args.embedder,
        args.search,
        timeout_s=args.timeout,
        tls=settings.tls(args),
        token=settings.token(args, environment),
        connections=args.connections,
    )


def _photos(args: argparse.Namespace) -> Iterator[Photo]:
    return (Photo(_source(name, args), args.crop) for name in args.photos)


def _source(name: str, args: argparse.Namespace) -> PhotoSource:
    if name == "-":
        return sys.stdin.buffer
    if name.startswith(("http://", "https://")):
        return URL(
            name,
            timeout_s=args.fetch_timeout,
            max_bytes=args.fetch_max_bytes,
            max_redirects=args.fetch_max_redirects,
            allow_private=args.allow_private,
        )
    return name


def _report_identification(name: str, found: Identification, args: argparse.Namespace, width: int) -> None:
    if args.json:
        report.show(report.json_line(**_shown(args, name), **asdict(found)))
    else:
        shown = report.neighbour_lines(found.neighbours[: args.neighbours])
        report.show("\n".join([report.identification_line(name, found, width), *shown]))


def _report_neighbours(name: str, result: SearchResult, args: argparse.Namespace) -> None:
    [neighbours] = result.neighbours
    if args.json:
        report.show(report.json_line(photo=name, **(asdict(result) | {"neighbours": list(map(asdict, neighbours))})))
    else:
        report.show("\n".join([name + reservation(result.provenance), *report.neighbour_lines(neighbours)]))


def _report_errors_of_car(error: PhotoError, args: argparse.Namespace) -> None:
    """Report each bad photo by its name, if the error tells them apart."""
    if args.json:
        report.show(report.json_line(photos=args.photos, error=report.error_fields(error)))
    elif isinstance(error, InvalidPhotoError) and error.photos:
        for position in error.photos:
            report.photo_error(args.photos[position], error.of(position), as_json=args.json)
    else:
        print(f"vmmr: {error}", file=sys.stderr)


def _shown(args: argparse.Namespace, name: str) -> dict[str, object]:
    return {"photos": args.photos} if args.fuse else {"photo": name}


COMMANDS: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "identify": identify,
    "search": search,
    "info": info,
    "labels": labels,
    "add": partial(gallery_commands.add, source=_source),
    "remove": gallery_commands.remove,
    "list": gallery_commands.list_items,
    "compact": gallery_commands.compact,
}
