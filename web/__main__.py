"""`vmmr-web`: serves the page and the HTTP door, as a client of both services. `running` puts it together."""

from vmmr_entry import Importing, quietly

with Importing():
    import argparse
    import asyncio
    import logging
    import sys

    from svckit import cli, config, logs, supervisor
    from svckit.config import ConfigError
    from svckit.extras import needing
    from web.config import PREFIX, WebConfig

PROGRAM = "vmmr-web"

_log = logging.getLogger(__name__)


def main() -> None:
    quietly(lambda: cli.run(_command, PROGRAM))


def _command() -> None:
    if sys.argv[1:2] == ["serve"]:
        supervisor.log_from_the_start(PREFIX, sys.argv)
    args = parser().parse_args()
    args.run(args)


def parser() -> argparse.ArgumentParser:
    program = cli.Parser(PROGRAM, description="The page, and plain HTTP with JSON.")
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
