"""The command `vmmr-loadtest`, which `vmmr loadtest` runs too."""

from vmmr_entry import Importing, quietly

with Importing():
    import argparse
    import os
    import sys
    from collections.abc import Sequence
    from functools import partial
    from typing import NoReturn

    from vmmr._cli import settings
    from vmmr._cli.exits import SERVICE_FAILED, USAGE, exit_code
    from vmmr._cli.report import mistake
    from vmmr._types import SearchOptions

    from loadtest.arguments import parser
    from svckit.extras import needing


def main(arguments: Sequence[str] | None = None, program: str = "vmmr-loadtest") -> None:
    """Run the command, and end the process, with the process's arguments, or with `arguments` under the name that its user called it by."""
    quietly(partial(_command, arguments, program))


def _command(arguments: Sequence[str] | None, program: str) -> NoReturn:
    args = parser(os.environ, program).parse_args(arguments)
    name = program.partition(" ")[0]
    sys.exit(exit_code(partial(_run, args, name), name))


def _run(args: argparse.Namespace, name: str) -> int:
    try:
        with needing("loadtest", ValueError, "loadtest needs {library}"):
            from loadtest import command  # noqa: PLC0415  # needs the extra, which --help does without
    except ValueError as error:
        return _failed(name, error, USAGE)
    try:
        if args.target == "compare":
            return command.compared(args)
        options = settings.search_options(args) if "k" in args else SearchOptions()
        access = command.access(args, settings.tls(args), settings.token(args, os.environ))
        return command.test(args, access, options)
    except BrokenPipeError:
        raise
    except command.WorkerError as error:
        return _failed(name, error, SERVICE_FAILED)
    except (OSError, ValueError) as error:
        return _failed(name, error, USAGE)


def _failed(name: str, error: Exception, code: int) -> int:
    said = mistake(error) if isinstance(error, OSError | ValueError) else str(error)
    print(f"{name}: error: {said}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
