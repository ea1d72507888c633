"""The commands that change a gallery, but for `vmmr add`: `vmmr remove`, `list` and `compact`."""

import argparse
import sys
from dataclasses import asdict
from itertools import islice

from vmmr._cli import report
from vmmr._cli.exits import ANSWERED, PHOTOS_FAILED
from vmmr._cli.label_advice import Known
from vmmr._cli.settings import chosen
from vmmr._client import Client
from vmmr.photo_names import shown

_AT_ONCE = 1000


def remove(client: Client, args: argparse.Namespace) -> int:
    """Take items out of the gallery. That there was nothing to take out is a failure: whoever asked for it meant something."""
    result = client.delete_items(args.item, label=args.label, batch_id=args.batch_id)
    photos = "photo" if result.deleted == 1 else "photos"
    report.show(report.json_line(**asdict(result)) if args.json else f"{result.deleted} {photos} removed")
    missing = len(set(args.item or ())) - result.deleted
    if not result.deleted:
        print(f"vmmr: error: {_nothing(client, args)}", file=sys.stderr)
    elif missing > 0:
        print(f"vmmr: {missing} of these items {'was' if missing == 1 else 'were'} not there", file=sys.stderr)
    return ANSWERED if result.deleted else PHOTOS_FAILED


def _nothing(client: Client, args: argparse.Namespace) -> str:
    if args.item:
        return (
            "the gallery has no item with that id"
            if len(args.item) == 1
            else "the gallery has no item with one of those ids"
        )
    if args.batch_id:
        return f"no photo of the gallery was added in a batch '{shown(args.batch_id)}'"
    near = Known(entry.label for entry in client.labels()).near(args.label)
    return f"no photo of the gallery has the label '{shown(args.label)}'" + (
        f": did you mean '{shown(near)}'?" if near else ""
    )


def list_items(client: Client, args: argparse.Namespace) -> int:
    items = client.list_items(chosen(args), batch_id=args.batch_id or "")
    if args.json:
        for item in items:
            report.show(report.json_line(**asdict(item)))
        return ANSWERED
    heading = [("ITEM", "LABEL", "BATCH", "PHOTO")]
    while rows := [(i.item_id, i.label, i.batch_id or "-", i.uri or "-") for i in islice(items, _AT_ONCE)]:
        report.show("\n".join(report.table([*heading, *rows])))
        heading = []
    return ANSWERED


def compact(client: Client, args: argparse.Namespace) -> int:
    done = client.compact()
    report.show(report.json_line(**asdict(done)) if args.json else f"version {done.index_version}: {done.items} photos")
    return ANSWERED
