"""The `vmmr` command."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NoReturn

from vmmr import _gallery_commands, _report
from vmmr._arguments import parser
from vmmr._channel import TLS
from vmmr._client import Client
from vmmr._errors import InvalidPhotoError, PhotoError, VmmrError
from vmmr._fetch import URL
from vmmr._loadtest import arguments as loadtest_arguments
from vmmr._photos import Photo, PhotoSource
from vmmr._types import Filter, Identification, SearchOptions, SearchResult, reservation

ANSWERED, PHOTOS_FAILED, USAGE, SERVICE_FAILED, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 130, 141


def main() -> NoReturn:
    arguments = parser(
        os.environ,
        COMMANDS,
        add_others=lambda subparsers: loadtest_arguments.add(subparsers, os.environ, loadtest),
    )
    args = arguments.parse_args()
    if args.command is loadtest:
        sys.exit(_ended(partial(loadtest, args)))
    try:
        client = _client(args, os.environ)
    except (OSError, ValueError) as error:
        arguments.exit(USAGE, f"vmmr: error: {error}\n")
    sys.exit(_run(client, args))


def identify(client: Client, args: argparse.Namespace) -> int:
    return _identify_car(client, args) if args.fuse else _identify_each(client, args)


def _identify_car(client: Client, args: argparse.Namespace) -> int:
    """One answer from all photos, or none."""
    try:
        found = client.identify_car(_photos(args), options=_options(args), min_confidence=args.min_confidence)
    except PhotoError as error:
        _report_errors_of_car(error, args)
        return PHOTOS_FAILED
    except ValueError as error:
        # More photos than the services accept.
        print(f"vmmr: error: {error}", file=sys.stderr)
        return USAGE
    first, *others = args.photos
    name = f"{first} (+{len(others)})" if others else first
    if not args.json:
        _report.show(_report.identification_heading(len(name)))
    _report_identification(name, found, args, len(name))
    return ANSWERED


def _identify_each(client: Client, args: argparse.Namespace) -> int:
    width = max(map(len, ["PHOTO", *args.photos]))
    heading = None if args.json else _report.identification_heading(width)
    code = ANSWERED
    outcomes = client.identify_many(
        _photos(args), options=_options(args), min_confidence=args.min_confidence, batch=args.batch
    )
    for name, outcome in zip(args.photos, outcomes, strict=True):
        if isinstance(outcome.error, PhotoError):
            code = PHOTOS_FAILED
            _report.photo_error(name, outcome.error, as_json=args.json)
            continue
        found = outcome.result()
        if heading is not None:
            _report.show(heading)
            heading = None
        _report_identification(name, found, args, width)
    return code


def search(client: Client, args: argparse.Namespace) -> int:
    code = ANSWERED
    for name, photo in zip(args.photos, _photos(args), strict=True):
        try:
            result = client.search(client.embed([photo]), options=_options(args))
        except PhotoError as error:
            code = PHOTOS_FAILED
            _report.photo_error(name, error, as_json=args.json)
        else:
            _report_neighbours(name, result, args)
    return code


def info(client: Client, args: argparse.Namespace) -> int:
    served = client.info()
    _report.show(_report.json_line(**asdict(served)) if args.json else "\n".join(_report.info_lines(served)))
    if not served.same_model:
        print(f"vmmr: warning: {_report.mismatch(served)}", file=sys.stderr)
    if served.index.problem:
        print(f"vmmr: warning: the search service answers from what it had: {served.index.problem}", file=sys.stderr)
    return ANSWERED


def labels(client: Client, args: argparse.Namespace) -> int:
    if args.json:
        for entry in client.labels():
            _report.show(_report.json_line(**asdict(entry)))
    else:
        _report.show("\n".join(_report.label_lines(client.labels())))
    return ANSWERED


def loadtest(args: argparse.Namespace) -> int:
    try:
        from vmmr._loadtest import command  # noqa: PLC0415  # an extra, which other commands do without
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        print(f"vmmr: error: loadtest needs {library}: pip install 'vmmr[loadtest]'", file=sys.stderr)
        return USAGE
    try:
        if args.target == "compare":
            return command.compared(args)
        options = _options(args) if "k" in args else SearchOptions()
        return command.test(args, command.access(args, _tls(args), _token(args, os.environ)), options)
    except BrokenPipeError:
        raise
    except command.WorkerError as error:
        message, code = str(error), SERVICE_FAILED
    except (OSError, ValueError) as error:
        message, code = str(error), USAGE
    print(f"vmmr: error: {message}", file=sys.stderr)
    return code


def _run(client: Client, args: argparse.Namespace) -> int:
    code = _ended(partial(args.command, client, args))
    client.close()
    return code


def _ended(command: Callable[[], int]) -> int:
    """Its exit code, or that of what ended it."""
    try:
        return command()
    except VmmrError as error:
        print(f"vmmr: error: {_report.explained(error)}", file=sys.stderr)
        return SERVICE_FAILED
    except KeyboardInterrupt:
        # Past all clean-up: gRPC's waits for ever for a call that was interrupted while it was being sent.
        os._exit(INTERRUPTED)
    except BrokenPipeError:
        # Python would complain of the same once more while it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def _client(args: argparse.Namespace, environment: Mapping[str, str]) -> Client:
    """Raises ValueError or OSError if the settings make no sense."""
    return Client(
        args.embedder,
        args.search,
        timeout_s=args.timeout,
        tls=_tls(args),
        token=_token(args, environment),
        connections=args.connections,
    )


def _tls(args: argparse.Namespace) -> TLS | None:
    secure = args.tls or args.tls_ca or args.tls_cert or args.tls_key
    return TLS(args.tls_ca, args.tls_cert, args.tls_key) if secure else None


def _token(args: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    token = Path(args.token_file).read_text().strip() if args.token_file else environment.get("VMMR_TOKEN")
    return token or None


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


def _options(args: argparse.Namespace) -> SearchOptions:
    return SearchOptions(
        k=args.k,
        filter=Filter(tuple(args.make), tuple(args.model), tuple(args.label), args.min_year, args.max_year),
        exact=args.exact,
        nprobe=args.nprobe,
        ef_search=args.ef_search,
        rerank=args.rerank,
        allow_partial=args.allow_partial,
        shard_timeout_s=args.shard_timeout,
    )


def _report_identification(name: str, found: Identification, args: argparse.Namespace, width: int) -> None:
    if args.json:
        _report.show(_report.json_line(**_shown(args, name), **asdict(found)))
    else:
        shown = _report.neighbour_lines(found.neighbours[: args.neighbours])
        _report.show("\n".join([_report.identification_line(name, found, width), *shown]))


def _report_neighbours(name: str, result: SearchResult, args: argparse.Namespace) -> None:
    [neighbours] = result.neighbours
    if args.json:
        _report.show(_report.json_line(photo=name, **(asdict(result) | {"neighbours": list(map(asdict, neighbours))})))
    else:
        _report.show("\n".join([name + reservation(result.provenance), *_report.neighbour_lines(neighbours)]))


def _report_errors_of_car(error: PhotoError, args: argparse.Namespace) -> None:
    """Each bad photo by its name, where the error tells them apart."""
    if args.json:
        _report.show(_report.json_line(photos=args.photos, error=_report.error_fields(error)))
    elif isinstance(error, InvalidPhotoError) and error.photos:
        for position in error.photos:
            _report.photo_error(args.photos[position], error.of(position), as_json=args.json)
    else:
        print(f"vmmr: {error}", file=sys.stderr)


def _shown(args: argparse.Namespace, name: str) -> dict[str, object]:
    return {"photos": args.photos} if args.fuse else {"photo": name}


COMMANDS: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "identify": identify,
    "search": search,
    "info": info,
    "labels": labels,
    "add": partial(_gallery_commands.add, source=_source),
    "remove": _gallery_commands.remove,
    "list": _gallery_commands.list_items,
    "compact": _gallery_commands.compact,
}
