"""Run the `vmmr` command: parse its arguments, make a client, run the sub-command."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import entry_points
from io import TextIOWrapper
from typing import NoReturn

from vmmr._cli import adding, gallery_commands, identifying, report, settings
from vmmr._cli.arguments import parser
from vmmr._cli.exits import ANSWERED, PHOTOS_FAILED, USAGE, exit_code
from vmmr._cli.sources import photos
from vmmr._client import Client
from vmmr._errors import PhotoError
from vmmr._mistaken import shortened
from vmmr._types import Cut, SearchResult, reservation

_PROGRAMS = {"loadtest": "loadtest", "doctor": "cpu"}
"""Programs of the services' distribution that are commands of this one, too, and the extra to install them with."""


def main() -> NoReturn:
    if sys.argv[1:2] and sys.argv[1] in _PROGRAMS:
        _run_program(sys.argv[1], sys.argv[2:])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    arguments = parser(os.environ, COMMANDS)
    args = arguments.parse_args()
    try:
        client = _client(args, os.environ)
    except (OSError, ValueError) as error:
        arguments.exit(USAGE, f"vmmr: error: {report.mistake(error)}\n")
    sys.exit(_run(client, args))


def _run_program(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run `vmmr-NAME`, a program of the services' distribution, as if it were a command of this one."""
    for program in entry_points(group="console_scripts", name=f"vmmr-{name}"):
        program.load()(arguments, f"vmmr {name}")
    missing = f"{name} is not installed: pip install ./client '.[{_PROGRAMS[name]}]', in a checkout of vmmr"
    print(f"vmmr: error: {missing}", file=sys.stderr)
    sys.exit(USAGE)


def search(client: Client, args: argparse.Namespace) -> int:
    code = ANSWERED
    for name, photo in zip(args.photos, photos(args), strict=True):
        try:
            embeddings = client.embed([photo])
            result = client.search(embeddings, options=settings.search_options(args))
        except PhotoError as error:
            code = PHOTOS_FAILED
            report.photo_error(name, error, as_json=args.json)
        else:
            cut = embeddings.parts[0].cut if embeddings.parts else None
            _report_neighbours(name, result, cut, args)
    return code


def info(client: Client, args: argparse.Namespace) -> int:
    served = client.info()
    report.show(report.json_line(**asdict(served)) if args.json else "\n".join(report.info_lines(served)))
    if not served.same_model:
        print(f"vmmr: warning: {report.mismatch(served)}", file=sys.stderr)
    if served.index.problem:
        print(f"vmmr: warning: the search service answers from what it had: {served.index.problem}", file=sys.stderr)
    if served.index.lost_entries:
        lost = (
            "1 change that was" if served.index.lost_entries == 1 else f"{served.index.lost_entries} changes that were"
        )
        print(f"vmmr: warning: the gallery has lost {lost} acknowledged", file=sys.stderr)
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


def _report_neighbours(name: str, result: SearchResult, cut: Cut | None, args: argparse.Namespace) -> None:
    [neighbours] = result.neighbours
    if args.json:
        fields = asdict(result) | {"neighbours": list(map(asdict, neighbours)), "cut": cut and asdict(cut)}
        report.show(report.json_line(photo=name, **fields))
    else:
        without = " (no car found in the photo)" if cut and cut.no_car_found else ""
        heading = shortened(name) + without + reservation(result.provenance)
        report.show("\n".join([heading, *report.neighbour_lines(neighbours)]))


COMMANDS: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "identify": identifying.identify,
    "detect": identifying.detect,
    "search": search,
    "info": info,
    "labels": labels,
    "add": adding.add,
    "remove": gallery_commands.remove,
    "list": gallery_commands.list_items,
    "compact": gallery_commands.compact,
}
