"""`vmmr-web`: serves the page and the HTTP door, as a client of both services. `running` puts it together."""

import argparse
import asyncio
import logging

from svckit import cli, config, logs
from svckit.config import ConfigError
from svckit.extras import needing
from web.config import PREFIX, WebConfig

PROGRAM = "vmmr-web"

_log = logging.getLogger(__name__)


def main() -> None:
    cli.run(_command, PROGRAM)


def _command() -> None:
    args = parser().parse_args()
    args.run(args)


def parser() -> argparse.ArgumentParser:
    program = argparse.ArgumentParser(PROGRAM, description="The page, and plain HTTP with JSON.")
    cli.add_version(program)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="answer HTTP requests", description="Serves the page and /v1.", allow_abbrev=False
    )
    config.add_arguments(serve, WebConfig, PREFIX)
    serve.set_defaults(run=_serve)
    return program


def _serve(args: argparse.Namespace) -> None:
    with needing("web", ConfigError):
        from web.running import run  # noqa: PLC0415  # needs the extra, which --help does without
    settings = config.from_namespace(WebConfig, PREFIX, args)
    logs.configure(settings.log_level, settings.log_format)
    for warning in config.unheeded(WebConfig, PREFIX):
        _log.warning(warning)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
