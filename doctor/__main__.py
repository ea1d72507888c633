"""The command `vmmr-doctor`, which `vmmr doctor` runs too."""

from vmmr_entry import Importing, quietly

with Importing():
    import argparse
    import importlib.metadata
    import json
    import os
    import sys
    from collections.abc import Callable, Iterator, Sequence
    from functools import partial
    from pathlib import Path
    from typing import NoReturn

    from vmmr import Client
    from vmmr._cli import settings
    from vmmr._cli.arguments import Arguments, add_connection
    from vmmr._cli.report import mistake

    from doctor import folders, machine, servers
    from doctor.findings import Finding, State, fields, guarded, lines, not_checked
    from svckit import shipped
    from svckit.config import ConfigError

_USAGE = 2
_LOOKED_FOR = 0.1
"""The share of the time for a call for which a server that can't be reached is looked for: to see that nobody is there is an answer, too."""
_LEAST_LOOKED_FOR_S = 1.0
"""One whose host is far, or busy, is found in that time, however short a call may be."""
_DESCRIPTION = (
    "Checks an installation: what is installed, the model, the gallery and its disk, and the servers as a caller sees them. "
    "Says of each whether it is well, and what to do."
)
_EXIT_CODES = "exit codes: 1 if anything fails, 2 if the command line or the environment makes no sense, else 0"


def main(arguments: Sequence[str] | None = None, program: str = "vmmr-doctor") -> None:
    """Run the command, and end the process, with the process's arguments, or with `arguments` under the name that its user called it by."""
    quietly(partial(_command, arguments, program))


def parser(program: str = "vmmr-doctor") -> Arguments:
    top = Arguments(os.environ, prog=program, description=_DESCRIPTION, epilog=_EXIT_CODES)
    top.add_argument("--version", action="version", version=f"%(prog)s {importlib.metadata.version('vmmr-services')}")
    top.add_variable("--model", "VMMR_EMBEDDER_MODEL", None, "model bundle", metavar="DIR")
    top.add_variable("--index", "VMMR_SEARCH_INDEX", None, "index data directory", metavar="DIR")
    top.add_argument("--no-servers", action="store_true", help="check this machine alone")
    top.add_argument("--http", metavar="URL", help="a page of a server that tells its time: its metrics, or vmmr-web")
    top.add_argument("--photo", metavar="FILE", type=Path, help="a photo to identify (default: a grey one)")
    top.add_argument("--json", action="store_true", help="one JSON object a line for each finding")
    add_connection(top)
    return top


def _command(arguments: Sequence[str] | None, program: str) -> NoReturn:
    args = parser(program).parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        client = None if args.no_servers else _client(args)
        found = list(_findings(args, client))
    except (OSError, ValueError) as error:
        print(f"{program}: error: {mistake(error)}", file=sys.stderr)
        sys.exit(_USAGE)
    print("\n".join(json.dumps(fields(each)) for each in found) if args.json else lines(found))
    sys.exit(any(each.state == State.FAIL for each in found))


def _client(args: argparse.Namespace) -> Client:
    token = settings.token(args, os.environ)
    return Client(
        args.embedder,
        args.search,
        timeout_s=args.timeout,
        reconnect_s=max(_LEAST_LOOKED_FOR_S, args.timeout * _LOOKED_FOR),
        tls=settings.tls(args),
        token=token,
    )


def _findings(args: argparse.Namespace, client: Client | None) -> Iterator[Finding]:
    for name, check in machine.every().items():
        yield guarded(name, check)
    yield from _of_folders(args)
    if client is None:
        yield not_checked("servers", "--no-servers was given")
        return
    with client:
        yield from _of_servers(args, client)


def _of_folders(args: argparse.Namespace) -> Iterator[Finding]:
    info = version = None
    if model := _folder(args.model, shipped.model):
        found, info = folders.model(model)
        yield found
    else:
        yield not_checked("model", "there is none here: --model names one")
    index = _folder(args.index, shipped.gallery)
    if index is None:
        yield not_checked("gallery", "there is none here: --index names one")
        return
    found, version = folders.gallery(index)
    yield found
    yield folders.fit(info, version)
    if not index.is_dir():
        yield not_checked("disk", f"{index} is no folder")
        return
    checks = {"permissions": folders.writing, "disk space": folders.room, "disk speed": folders.flushing}
    for name, check in checks.items():
        yield guarded(name, partial(check, index))


def _folder(given: str | None, find: Callable[[], Path]) -> Path | None:
    if given:
        return Path(given)
    try:
        return find()
    except ConfigError:
        return None


def _of_servers(args: argparse.Namespace, client: Client) -> Iterator[Finding]:
    found, info = servers.reach(client)
    yield from found
    yield servers.served(info)
    for name, address in (("embedder", args.embedder), ("search service", args.search)):
        yield guarded(f"certificate of the {name}", partial(servers.certificate, name, address, settings.tls(args)))
    yield guarded("clock", partial(servers.clock, args.http))
    yield guarded("a photo", partial(servers.photo, client, args.photo, info))


if __name__ == "__main__":
    main()
