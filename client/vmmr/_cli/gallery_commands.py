"""The commands that change a gallery: `vmmr add`, `remove`, `list` and `compact`."""

import argparse
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from vmmr._cli import report
from vmmr._cli.exits import ANSWERED, PHOTOS_FAILED, SERVICE_FAILED, USAGE
from vmmr._cli.labelled import Labelled, labelled
from vmmr._cli.settings import chosen, subject
from vmmr._cli.sources import source
from vmmr._client import Client
from vmmr._errors import ItemNotFoundError, PhotoError, VmmrError
from vmmr._gallery import AddOutcome, NewItem, content_id

LabelOf = Callable[[str], str | None]
"""Returns the label of an item that is there already, by its id."""

_AT_ONCE = 1000
_TELL_S = 10.0


def add(client: Client, args: argparse.Namespace) -> int:
    """Add photos to the gallery."""
    try:
        photos = labelled(args.photos, args.label)
    except (OSError, ValueError) as error:
        print(f"vmmr: error: {report.mistake(error)}", file=sys.stderr)
        return USAGE
    served = client.info()
    if not served.same_model:
        print(f"vmmr: error: {report.not_addable(served)}", file=sys.stderr)
        return SERVICE_FAILED
    batch_id = args.batch_id or _new_batch_id()
    label_of = _labels_of_batch(client, batch_id) if args.batch_id else partial(_label_in_gallery, client)
    print(f"vmmr: batch {batch_id}; `vmmr remove --batch-id {batch_id}` takes it out again", file=sys.stderr)
    adding = _Adding(args, batch_id, len(photos))
    return adding.add(client, _wanted(photos, label_of, adding.was, batch_id, args))


def _new_batch_id() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"


def _labels_of_batch(client: Client, batch_id: str) -> LabelOf:
    return {item.item_id: item.label for item in client.list_items(batch_id=batch_id)}.get


def _label_in_gallery(client: Client, item_id: str) -> str | None:
    try:
        return client.get_item(item_id).label
    except ItemNotFoundError:
        return None


def _wanted(
    photos: Sequence[Labelled], label_of: LabelOf, was: dict[str, str], batch_id: str, args: argparse.Namespace
) -> Iterator[NewItem]:
    """Yield the photos to add: all but those that are there already with the same label.

    Adding those too would move them to the new batch, and removing it would then remove them. The labels of photos that are there
    with another go into `was`, by the names of the photos.
    """
    for photo in photos:
        item_id = _id_of_file(photo.name)
        there = label_of(item_id) if item_id else None
        if there is not None and there != photo.label:
            was[photo.name] = there
        if there != photo.label:
            uri = "" if photo.name == "-" else photo.name
            looked_at = (args.crop, subject(args))
            yield NewItem(source(photo.name, args), *looked_at, label=photo.label, uri=uri, batch_id=batch_id)


def _id_of_file(name: str) -> str:
    """Return the item id of a file; empty if it can't be read."""
    with suppress(OSError, ValueError):
        return content_id(Path(name).read_bytes())
    return ""


class _Adding:
    """Adds photos, and reports progress and the result."""

    def __init__(self, args: argparse.Namespace, batch_id: str, photos: int) -> None:
        self._args = args
        self._batch_id = batch_id
        self._photos = photos
        self._added: Counter[str] = Counter()
        self._failed = 0
        self._told = time.monotonic()
        self.was: dict[str, str] = {}
        """Labels that photos have in the gallery before they are added with others, by the names of the photos."""

    def add(self, client: Client, wanted: Iterator[NewItem]) -> int:
        try:
            for outcome in client.add_photos(wanted, batch=self._args.batch):
                self._take(outcome)
        except VmmrError:
            self._tell_how_to_go_on()
            raise
        self._tell_result()
        return PHOTOS_FAILED if self._failed else ANSWERED

    def _take(self, outcome: AddOutcome) -> None:
        name = outcome.photo.uri or "-"
        if outcome.item is None:
            assert outcome.error is not None
            if not isinstance(outcome.error, PhotoError):
                raise outcome.error
            self._failed += 1
            report.photo_error(name, outcome.error, as_json=self._args.json)
        else:
            self._added[outcome.item.label] += 1
            if name in self.was:
                print(f"vmmr: {name}: was {self.was[name]}, is {outcome.item.label} now", file=sys.stderr)
            if outcome.item.cut and outcome.item.cut.no_car_found:
                print(f"vmmr: {name}: no car found in the photo; it was added whole", file=sys.stderr)
            if self._args.json:
                item = {"item": asdict(outcome.item), "journal_sequence": outcome.journal_sequence}
                report.show(report.json_line(photo=name, **item))
        self._tell_progress()

    def _tell_progress(self) -> None:
        """Print how many photos are done: each time on a terminal, elsewhere every few seconds."""
        terminal = sys.stderr.isatty()
        if terminal or time.monotonic() > self._told + _TELL_S:
            self._told = time.monotonic()
            told = f"{self._added.total() + self._failed} of {self._photos} photos"
            print(
                f"\r{told}" if terminal else f"vmmr: {told}", end="" if terminal else "\n", file=sys.stderr, flush=True
            )

    def _tell_how_to_go_on(self) -> None:
        _end_line()
        print(
            f"vmmr: {self._added.total()} of {self._photos} photos are in the gallery; to go on, give the same command "
            f"--batch-id {self._batch_id}",
            file=sys.stderr,
        )

    def _tell_result(self) -> None:
        _end_line()
        there = self._photos - self._added.total() - self._failed
        if there:
            photos = "1 photo was" if there == 1 else f"{there} photos were"
            print(f"vmmr: {photos} there already, with that label", file=sys.stderr)
        if not self._args.json and self._added:
            rows = [(label, str(count)) for label, count in sorted(self._added.items())]
            report.show("\n".join(report.table([("LABEL", "ADDED"), *rows])))


def _end_line() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def remove(client: Client, args: argparse.Namespace) -> int:
    result = client.delete_items(args.item, label=args.label, batch_id=args.batch_id)
    photos = "photo" if result.deleted == 1 else "photos"
    report.show(report.json_line(**asdict(result)) if args.json else f"{result.deleted} {photos} removed")
    return ANSWERED


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
