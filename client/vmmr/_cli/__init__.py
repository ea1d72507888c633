"""The `vmmr` command."""

from vmmr._cli.command import COMMANDS, main

__all__ = ["COMMANDS", "main"]
