"""`vmmr-search token`: makes a token for a caller of either service."""

import argparse
import hashlib
import json
import secrets
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from svckit.access import callers_file
from svckit.access.callers import ROLES
from svckit.access.callers_file import Callers
from svckit.cli import CommandError

_PREFIX = "vmmr_"
"""By it, scanners find tokens that were committed or pasted somewhere."""
_BYTES = 32


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "token",
        help="make a token for a caller, and list its hash",
        description="Makes a random token and prints it, this once; adds its hash, and the caller if it is new, to the file that "
        "`--callers` of both servers names. They take it within a second. A token is revoked by taking its [[token]] out of the file.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="file of callers (TOML); made if it is not there")
    parser.add_argument("name", metavar="NAME", help="who the token is for")
    parser.add_argument("--role", choices=tuple(ROLES), help="what a new caller may do")
    parser.add_argument(
        "--expires", metavar="DATE", type=_date, help="day at whose beginning it ends (UTC), such as 2027-06-01"
    )
    parser.set_defaults(run=_run)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a date such as 2027-06-01, got {text!r}") from error


def _check_lasts(expires: date | None) -> None:
    today = datetime.now(UTC).date()
    if expires and expires <= today:
        raise CommandError(
            f"--expires must be a day after today, {today} (UTC), for the token to be of use, got {expires}"
        )


def _run(args: argparse.Namespace) -> None:
    _check_lasts(args.expires)
    is_new = not args.file.exists()
    before = b"" if is_new else args.file.read_bytes()
    callers = _parsed(args.file, before)
    token = _PREFIX + secrets.token_urlsafe(_BYTES)
    more = _caller(args, callers) + _token(args, token)
    more = more if before.endswith(b"\n") or not before else "\n" + more
    _parsed(args.file, before + more.encode())
    # Appended in place, so that the file stays its owner's; a server that reads half of it goes by what it read before.
    with args.file.open("ab") as file:
        file.write(more.encode())
    print(token)
    made = "made, it was not there; " if is_new else ""
    print(f"{args.file}: {made}{args.name} has one more token; only its hash is kept", file=sys.stderr)


def _caller(args: argparse.Namespace, callers: Callers) -> str:
    """Return the lines that list the caller; none if it is listed already."""
    known = callers.by_name.get(args.name)
    if known is None:
        if not args.role:
            raise CommandError(f"{args.file} does not list {args.name}: give --role {'|'.join(ROLES)} to add it")
        return f'\n[caller.{json.dumps(args.name)}]\nrole = "{args.role}"\n'
    if args.role not in (None, known.role.word):
        raise CommandError(f"{args.file}: {args.name} has the role {known.role.word}: change it there")
    return ""


def _token(args: argparse.Namespace, token: str) -> str:
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    expires = f"expires = {args.expires}\n" if args.expires else ""
    return f'\n[[token]]\ncaller = {json.dumps(args.name)}\nsha256 = "{sha256}"\n{expires}'


def _parsed(path: Path, content: bytes) -> Callers:
    try:
        return callers_file.parse_any(content)
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error
