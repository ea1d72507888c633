"""Parse the arguments of the `vmmr` command."""

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vmmr._types import Box
from vmmr._version import __version__
from vmmr.photo_names import is_utf8

EXIT_CODES = """exit codes:
  0    every photo was answered, be it with "unknown" or "unsure", or added
  1    photos could not be read, fetched, embedded or drawn; the others were answered or added; or there was nothing to remove
  2    the command line or the environment makes no sense
  3    a service could not be reached, or failed, or refused
  130  interrupted
  141  whoever read the output went away"""

_PROGRAMS = """vmmr doctor tells what of an installation is not well, and vmmr loadtest TARGET how fast the services are;
they are programs of their own, vmmr-doctor and vmmr-loadtest."""
_PHOTO_HELP = "a file, an http:// or https:// URL, or - for standard input"


class Arguments(argparse.ArgumentParser):
    """A parser with options that take their defaults from environment variables."""

    def __init__(self, environment: Mapping[str, str], **settings: Any) -> None:
        shown: dict[str, Any] = {"epilog": EXIT_CODES, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**shown | settings)
        self._environment = environment
        self._mixing = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse flags and photos in any order, which argparse doesn't do by itself, nor above sub-commands."""
        if self._mixing or self._subparsers:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(_without_separator(args or ()), namespace)
        finally:
            self._mixing = False

    def add_variable(self, flag: str, variable: str, default: str | None, help: str, **settings: Any) -> None:  # noqa: A002  # argparse's own name
        shown = "" if default is None else f" (default: {default})"
        self.add_argument(
            flag, default=self._environment.get(variable) or default, help=f"{help}{shown} [{variable}]", **settings
        )

    def add_switch(self, flag: str, variable: str, help: str) -> None:  # noqa: A002  # argparse's own name
        # The default is a string, so that argparse checks it, and only for the sub-command that was given.
        value = self._environment.get(variable, "")
        kind = partial(_switch, variable)
        self.add_argument(flag, action=_Switch, nargs=0, default=value, type=kind, help=f"{help} [{variable}]")


class _Switch(argparse.Action):
    """`store_true`, with a default that is a string and is checked."""

    def __call__(self, _: Any, namespace: argparse.Namespace, *_others: Any) -> None:
        setattr(namespace, self.dest, True)


def _without_separator(args: Sequence[str]) -> list[str]:
    """Return the arguments without `--`, and names after it so that they don't look like flags.

    argparse forgets that separator when it parses flags and names in any order.
    """
    flags_end = args.index("--") if "--" in args else len(args)
    names = (f"./{name}" if name.startswith("-") and name != "-" else name for name in args[flags_end + 1 :])
    return [*args[:flags_end], *names]


def _switch(variable: str, text: str) -> bool:
    if text not in ("", "0", "1"):
        raise argparse.ArgumentTypeError(f"{variable} must be 0 or 1, got {text!r}")
    return text == "1"


def parser(environment: Mapping[str, str], commands: Mapping[str, Callable[..., int]]) -> argparse.ArgumentParser:
    """Make the parser of the `vmmr` command. `commands` says what each sub-command runs."""
    top = Arguments(
        environment,
        prog="vmmr",
        description="Make, model and year of cars from photos.",
        epilog=f"{_PROGRAMS}\n\n{EXIT_CODES}",
    )
    top.add_argument("--version", action="version", version=f"vmmr {__version__}")
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (summary, add) in _COMMANDS.items():
        command = subparsers.add_parser(name, environment=environment, help=summary, description=summary)
        add(command)
        add_connection(command)
        command.set_defaults(command=commands[name])
    return top


def _add_identify(command: Arguments) -> None:
    subject = _add_photos(command)
    subject.add_argument("--every-car", action="store_true", help="an answer for each car, the main one first")
    command.add_argument("--fuse", action="store_true", help="all photos show one car: one answer")
    command.add_argument(
        "--min-confidence",
        metavar="P",
        type=fraction,
        default=0.0,
        help='answers with less confidence, 0 to 1, are "unsure" (default: 0)',
    )
    command.add_argument(
        "--neighbours", metavar="N", type=integer(0), default=0, help="show the N nearest gallery photos (default: 0)"
    )
    command.add_argument(
        "--save-boxes", metavar="DIR", type=Path, help="write the photos there, with boxes and answers drawn"
    )
    _add_batch(command)


def _add_detect(command: Arguments) -> None:
    command.add_argument("photos", nargs="+", metavar="PHOTO", help=_PHOTO_HELP)
    _add_json(command)
    _add_fetch(command.add_argument_group("photos from URLs"))


def _add_search(command: Arguments) -> None:
    _add_photos(command)


def _add_batch(command: Arguments) -> None:
    command.add_argument(
        "--batch", metavar="N", type=integer(1), default=16, help="most photos in one request (default: 16)"
    )


def _add_photos(command: Arguments) -> Any:
    """Add photos to ask about. Return the group of what to look at, one of which can be given."""
    command.add_argument("photos", nargs="+", metavar="PHOTO", help=_PHOTO_HELP)
    subject = _add_subject(command)
    _add_json(command)
    add_search(command.add_argument_group("search"))
    _add_fetch(command.add_argument_group("photos from URLs"))
    return subject


def _add_subject(command: Arguments) -> Any:
    group = command.add_argument_group(
        "what to look at", "default: the main car, if the model has a detector; otherwise the whole photo"
    )
    subject = group.add_mutually_exclusive_group()
    subject.add_argument("--crop", metavar="L,T,R,B", type=_box, help="the part to look at, as fractions, 0,0 top left")
    subject.add_argument("--whole", action="store_true", help="the whole photo")
    return subject


def _add_new(command: Arguments) -> None:
    command.add_argument(
        "photos", nargs="+", metavar="PHOTO", help=f"{_PHOTO_HELP}; or a folder, for all photos in it and below"
    )
    command.add_argument(
        "--label",
        metavar="LABEL",
        type=text,
        help="what all of them show (default: of each photo of a folder, what its folders' names say)",
    )
    command.add_argument("--make", metavar="MAKE", type=text, help="with --model and --year, in place of --label")
    command.add_argument("--model", metavar="MODEL", type=text, help="the model, without the make")
    command.add_argument("--year", metavar="YEAR", type=integer(0), help="the model year")
    command.add_argument(
        "--batch-id", metavar="B", type=text, help="a name to remove or go on with them by (default: one that is told)"
    )
    _add_subject(command)
    _add_batch(command)
    _add_json(command)
    _add_fetch(command.add_argument_group("photos from URLs"))


def _add_removed(command: Arguments) -> None:
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--item", metavar="ID", type=text, action="append", help="the item with this id; may be repeated"
    )
    which.add_argument("--label", metavar="LABEL", type=text, help="all items with this label")
    which.add_argument("--batch-id", metavar="B", type=text, help="all items that were added in this batch")
    _add_json(command)


def _add_listed(command: Arguments) -> None:
    _add_filter(command)
    command.add_argument("--batch-id", metavar="B", type=text, help="only items that were added in this batch")
    _add_json(command)


def add_search(group: Any) -> None:
    group.add_argument("--k", metavar="N", type=integer(1), help="gallery photos to find (default: the index's own)")
    _add_filter(group)
    group.add_argument("--exact", action="store_true", help="compare with every gallery photo: slower")
    group.add_argument("--nprobe", metavar="N", type=integer(1), help="inverted lists to visit, for IVF indexes")
    group.add_argument("--ef-search", metavar="N", type=integer(1), help="candidates to keep, for HNSW indexes")
    group.add_argument("--rerank", metavar="N", type=integer(1), help="candidates for each neighbour, compared again")
    group.add_argument(
        "--allow-partial", action="store_true", help="answer without the shards of the index that are late"
    )
    group.add_argument("--shard-timeout", metavar="S", type=seconds, help="seconds that the shards have")


def _add_filter(group: Any) -> None:
    group.add_argument("--make", type=text, action="append", default=[], help="only this make; may be repeated")
    group.add_argument("--model", type=text, action="append", default=[], help="only this model; may be repeated")
    group.add_argument("--label", type=text, action="append", default=[], help="only this label; may be repeated")
    group.add_argument("--min-year", metavar="YEAR", type=integer(0), help="only this model year and later")
    group.add_argument("--max-year", metavar="YEAR", type=integer(0), help="only this model year and earlier")


def _add_fetch(group: Any) -> None:
    group.add_argument(
        "--fetch-timeout", metavar="S", type=seconds, default=10.0, help="seconds for one photo (default: 10)"
    )
    group.add_argument(
        "--fetch-max-bytes", metavar="N", type=integer(1), default=32 * 2**20, help="most bytes (default: 32 MiB)"
    )
    group.add_argument(
        "--fetch-max-redirects", metavar="N", type=integer(0), default=5, help="most redirects (default: 5)"
    )
    group.add_argument("--allow-private", action="store_true", help="allow private, loopback and link-local addresses")


def _add_json(command: Arguments) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object a line, with everything there is to know")


def add_connection(command: Arguments) -> None:
    command.add_variable("--embedder", "VMMR_EMBEDDER", "127.0.0.1:50051", "the embedder", metavar="HOST:PORT")
    command.add_variable("--search", "VMMR_SEARCH", "127.0.0.1:50052", "the search service", metavar="HOST:PORT")
    command.add_variable("--timeout", "VMMR_TIMEOUT", "10", "seconds a request may take", metavar="S", type=seconds)
    command.add_variable(
        "--connections",
        "VMMR_CONNECTIONS",
        "1",
        "connections to each service, used in turn",
        metavar="N",
        type=integer(1),
    )
    command.add_variable(
        "--tls-ca", "VMMR_TLS_CA", None, "connect securely, trusting these certificates", metavar="PEM"
    )
    command.add_variable("--tls-cert", "VMMR_TLS_CERT", None, "connect securely, with this certificate", metavar="PEM")
    command.add_variable("--tls-key", "VMMR_TLS_KEY", None, "the key of --tls-cert", metavar="PEM")
    command.add_switch("--tls", "VMMR_TLS", "connect securely, trusting public certificates")
    command.add_variable(
        "--token-file", "VMMR_TOKEN_FILE", None, "a file with a bearer token; the token itself: VMMR_TOKEN", metavar="F"
    )


_COMMANDS: Mapping[str, tuple[str, Callable[[Arguments], None]]] = {
    "identify": ("make, model and year of the cars on photos", _add_identify),
    "search": ("the gallery photos nearest to photos", _add_search),
    "detect": ("where the cars on photos are", _add_detect),
    "info": ("the model and the index being served", _add_json),
    "labels": ("the labels of the gallery", _add_json),
    "add": ("add photos to the gallery", _add_new),
    "remove": ("take photos out of the gallery", _add_removed),
    "list": ("the photos of the gallery", _add_listed),
    "compact": ("have a new index version built of what was added and removed", _add_json),
}


def _box(text: str) -> Box:
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        left = top = right = bottom = math.nan
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise argparse.ArgumentTypeError(
            "must be left,top,right,bottom as fractions of the photo, each 0 to 1, left < right and top < bottom, for example "
            f"0.1,0.2,0.9,1, got {text!r}"
        )
    return Box(left, top, right, bottom)


def text(given: str) -> str:
    """Parse a text that a service is sent, which must be UTF-8 and say something."""
    if not is_utf8(given):
        raise argparse.ArgumentTypeError(f"must be UTF-8, got {given!a}")
    if not given.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return given


def integer(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,10}", text) or not minimum <= int(text) < 2**31:
            raise argparse.ArgumentTypeError(f"must be a whole number >= {minimum} and < 2**31, got {text!r}")
        return int(text)

    return parse


def _number(text: str) -> float:
    """Return the number, or NaN, which fails every comparison, if the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, got {text!r}")
    return value
