"""`vmmr-search repair`."""

import argparse
import sys
from pathlib import Path

from search_svc.index.repair import Saved, repair

_MOST_TOLD = 20
"""Most lost entries that are named."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "repair",
        help="save what can be read of a damaged journal",
        description="Puts every entry of a damaged journal that can be read into a new one, and says which are lost. Stop the "
        "servers of the index first. The damaged file is kept beside it.",
    )
    parser.add_argument("index", metavar="INDEX", type=Path, help="index data directory")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    saved = repair(args.index)
    if saved is None:
        print(f"{args.index}: the journal is well, and stays as it is")
        return
    print(f"{args.index}: {saved.entries} entries saved, {_lost(saved)}; {_kept(saved)}")
    for number, text in list(saved.remains.items())[:_MOST_TOLD]:
        print(f"{args.index}: entry {number} was, as far as it can be read: {text}")
    for text in saved.unknown:
        print(f"{args.index}: {text}")
    if saved.lost or saved.unknown:
        sys.exit(1)


def _kept(saved: Saved) -> str:
    if saved.damaged.exists():
        return f"{saved.damaged} is what it was"
    return "its file was gone, and is made anew"


def _lost(saved: Saved) -> str:
    if saved.lost:
        more = ", ..." if len(saved.lost) > _MOST_TOLD else ""
        numbers = f"{', '.join(map(str, saved.lost[:_MOST_TOLD]))}{more}"
        return f"{len(saved.lost)} lost ({numbers})"
    return "more may be lost" if saved.unknown else "none lost"
