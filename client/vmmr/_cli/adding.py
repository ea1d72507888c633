"""`vmmr add`: photos into the gallery. What it says it did is what the gallery holds; run again, it changes nothing."""

import argparse
import math
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from vmmr._batches import READ_AHEAD
from vmmr._cli import report
from vmmr._cli.exits import ANSWERED, PHOTOS_FAILED, SERVICE_FAILED, USAGE, ended_at_interrupt
from vmmr._cli.label_advice import Known
from vmmr._cli.labelled import Labelled, Named, labelled
from vmmr._cli.settings import subject
from vmmr._cli.sources import is_url, source
from vmmr._client import Client
from vmmr._deadlines import unlimited
from vmmr._errors import CallError, ItemNotFoundError, PhotoError, UnreadablePhotoError, VmmrError
from vmmr._gallery import AddOutcome, NewItem, content_id
from vmmr._photos import load
from vmmr._served import Info
from vmmr._types import Box, Cut, Item
from vmmr.label_names import YEARS, canonical, normalise, read
from vmmr.near_copies import NEARLY_THE_SAME
from vmmr.photo_folders import tally
from vmmr.photo_names import is_utf8, shown

_TELL_S = 10.0
_WHOLE = Box(0, 0, 1, 1)
ItemOf = Callable[[str], Item | None]
"""Returns an item that is in the gallery already, by its id."""


def add(client: Client, args: argparse.Namespace) -> int:
    """Add photos to the gallery."""
    try:
        car = _car(args)
        named = labelled(args.photos, car or args.label)
    except (OSError, ValueError) as error:
        print(f"vmmr: error: {report.mistake(error)}", file=sys.stderr)
        return USAGE
    served = client.info()
    if not served.same_model:
        print(f"vmmr: error: {report.not_addable(served)}", file=sys.stderr)
        return SERVICE_FAILED
    known = Known(entry.label for entry in client.labels())
    photos = named.photos
    if car and (there := known.label_of(args.make, args.model, args.year)) and there != car:
        print(f"vmmr: the gallery calls this car '{shown(there)}', and so are these photos", file=sys.stderr)
        photos = [Labelled(photo.name, canonical(there)) for photo in photos]
    for remark in known.remarks(photo.label for photo in photos):
        print(f"vmmr: warning: {remark}", file=sys.stderr)
    return _Adding(client, args, served, Named(photos, named.left_out)).add()


def _car(args: argparse.Namespace) -> str | None:
    """Return the label of the car that --make, --model and --year name; None if none of them is given. Raise ValueError."""
    given = [flag for flag in ("make", "model", "year") if getattr(args, flag) is not None]
    if not given:
        return None
    if args.label or len(given) < 3:
        raise ValueError(
            f"--make, --model and --year name a car together, in place of --label, got --{' and --'.join(given)}"
        )
    if args.year not in YEARS:
        raise ValueError(f"--year must be {YEARS[0]} to {YEARS[-1]}, got {args.year}")
    label = canonical(f"{args.make.replace('_', ' ').strip()}_{args.model.strip()}_{args.year}")
    if read(label)[:3] != (normalise(args.make), normalise(args.model), args.year):
        raise ValueError(
            f"no label can be made of --make, --model and --year: '{shown(label)}' would be read otherwise"
        )
    return label


@dataclass(frozen=True)
class _Read:
    """A photo's bytes and their id, or why it has none."""

    content: bytes = b""
    item_id: str = ""
    error: PhotoError | None = None


class _Adding:
    """Adds the photos of one command, and tells what became of each."""

    def __init__(self, client: Client, args: argparse.Namespace, served: Info, named: Named) -> None:
        self._client = client
        self._args = args
        self._most_bytes = served.model.limits.max_image_bytes
        self._metric = served.index.metric
        self._named = named
        self._batch_id = args.batch_id or _new_batch_id()
        self._item_of = self._items_of_batch() if args.batch_id else self._in_gallery
        self._labels: dict[str, str] = {}
        """The label of each photo that was added, by its item id."""
        self._first: dict[str, Labelled] = {}
        """The first photo of the command with an item id."""
        self._was: dict[str, str] = {}
        """Labels that photos have in the gallery before they are added with others, by the names of the photos."""
        self._there = self._copies = self._failed = self._otherwise_cut = 0
        self._near_copies = self._near_others = 0
        """Photos that are nearly the same as one that was there, and those of them whose label is another."""
        self._not_compared: list[VmmrError] = []
        self._told = time.monotonic()

    def add(self) -> int:
        try:
            with ended_at_interrupt(self._how_to_go_on):
                for outcome in self._client.add_photos(self._wanted(), batch=self._args.batch):
                    self._take(outcome)
        except VmmrError as error:
            _end_line()
            print(self._how_far() if _is_forbidden(error) else self._how_to_go_on(), file=sys.stderr)
            raise
        self._tell_result()
        unasked = any(each.photos and not each.expected for each in self._named.left_out)
        return PHOTOS_FAILED if self._failed or unasked else ANSWERED

    def _items_of_batch(self) -> ItemOf:
        """Return a look-up that asks for all items of the batch at once: most of a run that is gone on with are there."""
        of_batch = {item.item_id: item for item in self._client.list_items(batch_id=self._batch_id)}
        return lambda item_id: of_batch.get(item_id) or self._in_gallery(item_id)

    def _in_gallery(self, item_id: str) -> Item | None:
        try:
            return self._client.get_item(item_id)
        except ItemNotFoundError:
            return None

    def _wanted(self) -> Iterator[NewItem]:
        """Yield the photos to add: all but copies of others, and those that are there already with the same label.

        Adding the latter too would move them to the new batch, and removing it would then remove them.
        """
        for photo, it in _read_all(self._named.photos, self._read):
            if it.error:
                self._fail(photo.name, it.error)
            elif self._is_wanted(photo, it.item_id):
                uri = "" if photo.name == "-" else photo.name
                looked_at = (self._args.crop, subject(self._args))
                yield NewItem(it.content, *looked_at, label=photo.label, uri=uri, batch_id=self._batch_id)

    def _read(self, name: str) -> _Read:
        if not is_utf8(name):
            return _Read(error=UnreadablePhotoError("its name is not UTF-8, so the gallery can't keep it: rename it"))
        try:
            content = load(source(name, self._args), self._most_bytes, unlimited).content
        except PhotoError as error:
            return _Read(error=error)
        return _Read(content, content_id(content))

    def _is_wanted(self, photo: Labelled, item_id: str) -> bool:
        first = self._first.setdefault(item_id, photo)
        if first is not photo:
            if first.label == photo.label:
                self._copies += 1
                self._show(photo.name, item_id=item_id, same_as=first.name)
            else:
                told = f"the same file as {shown(first.name)}, which is '{shown(first.label)}': a photo has one label, so this one is left out"
                self._fail(photo.name, UnreadablePhotoError(told))
            return False
        there = self._item_of(item_id)
        if there and canonical(there.label) == photo.label:
            self._there += 1
            self._otherwise_cut += self._is_otherwise_cut(there.cut)
            self._show(photo.name, item=asdict(there), there_already=True)
            return False
        if there:
            self._was[photo.name] = there.label
        return True

    def _is_otherwise_cut(self, cut: Cut | None) -> bool:
        """Return whether another part of a photo is in the gallery than --crop or --whole asks for."""
        asked = _WHOLE if self._args.whole else self._args.crop
        if asked is None:
            return False
        sides = zip(asdict(asked).values(), asdict(cut.box).values() if cut else [math.nan] * 4, strict=True)
        return not all(math.isclose(one, other, abs_tol=1e-6) for one, other in sides)

    def _take(self, outcome: AddOutcome) -> None:
        name = outcome.photo.uri or "-"
        if outcome.item is None:
            assert outcome.error is not None
            if not isinstance(outcome.error, PhotoError):
                raise outcome.error
            self._fail(name, outcome.error)
        else:
            self._tell_batch()
            self._labels[outcome.item.item_id] = outcome.item.label
            if name in self._was:
                print(
                    f"vmmr: {shown(name)}: was {shown(self._was[name])}, is {outcome.item.label} now; removing the batch removes it,"
                    " and does not bring the old label back",
                    file=sys.stderr,
                )
            if outcome.item.cut and outcome.item.cut.no_car_found:
                print(f"vmmr: {shown(name)}: no car found in the photo; it was added whole", file=sys.stderr)
            near = self._tell_near_copy(name, outcome, outcome.item)
            self._show(name, item=asdict(outcome.item), journal_sequence=outcome.journal_sequence, **near)
        self._tell_progress()

    def _tell_near_copy(self, name: str, outcome: AddOutcome, added: Item) -> dict[str, Any]:
        """Warn of a photo that is nearly the same as one that was in the gallery before. Return what is known of the nearest, for programs."""
        if outcome.not_compared:
            self._not_compared.append(outcome.not_compared)
        if (nearest := outcome.nearest) is None:
            return {"nearest": None, "near_copy": False}
        similarity = self._similarity(nearest.score)
        near_copy = similarity >= NEARLY_THE_SAME
        self._near_copies += near_copy
        if near_copy:
            there = f"{shown(nearest.item_id)} ('{shown(nearest.label.label)}', similarity {similarity:.3f})"
            if canonical(nearest.label.label) == added.label:
                print(
                    f"vmmr: warning: {shown(name)}: nearly the same photo is in the gallery: {there}", file=sys.stderr
                )
            else:
                self._near_others += 1
                told = f"WARNING: {shown(name)}: nearly the same photo is in the gallery WITH ANOTHER LABEL: {there}"
                print(f"vmmr: {told}; this one was added as '{shown(added.label)}'", file=sys.stderr)
        return {"nearest": asdict(nearest), "similarity": similarity, "near_copy": near_copy}

    def _similarity(self, score: float) -> float:
        """Return the cosine of two embeddings of unit length, of which the score is known."""
        return score if self._metric == "inner_product" else 1 + score / 2

    def _show(self, name: str, **fields: Any) -> None:
        """Print what became of a photo, where that is for programs."""
        if self._args.json:
            report.show(report.json_line(photo=name, **fields))

    def _fail(self, name: str, error: PhotoError) -> None:
        self._failed += 1
        report.photo_error(name, error, as_json=self._args.json)

    def _tell_batch(self) -> None:
        """Name the batch as soon as there is something in it."""
        if not self._labels:
            batch_id = self._batch_id
            print(f"vmmr: batch {batch_id}; `vmmr remove --batch-id {batch_id}` takes it out again", file=sys.stderr)

    def _tell_progress(self) -> None:
        """Print how many photos are done: each time on a terminal, elsewhere every few seconds."""
        terminal = sys.stderr.isatty()
        if terminal or time.monotonic() > self._told + _TELL_S:
            self._told = time.monotonic()
            done = len(self._labels) + self._failed + self._there + self._copies
            told = f"{done} of {len(self._named.photos)} photos"
            print(
                f"\r{told}" if terminal else f"vmmr: {told}", end="" if terminal else "\n", file=sys.stderr, flush=True
            )

    def _how_to_go_on(self) -> str:
        return f"{self._how_far()}; to go on, give the same command --batch-id {self._batch_id}"

    def _how_far(self) -> str:
        return f"vmmr: {len(self._labels) + self._there} of {len(self._named.photos)} photos are in the gallery"

    def _tell_result(self) -> None:
        _end_line()
        for count, said in (
            (self._there, "there already, with that label"),
            (self._copies, "the same as another one of them"),
            (self._near_copies, "nearly the same as one that was there, and added"),
            (self._near_others, "nearly the same as one that was there with ANOTHER LABEL"),
            (len(self._not_compared), "not compared with those that were there"),
            (self._failed, "not added"),
        ):
            if count:
                photos = "1 photo was" if count == 1 else f"{count} photos were"
                print(f"vmmr: {photos} {said}", file=sys.stderr)
        if self._not_compared:
            print(f"vmmr: the gallery could not be searched: {self._not_compared[-1]}", file=sys.stderr)
        if self._otherwise_cut:
            told = "--crop and --whole change nothing of photos that are there already"
            print(
                f"vmmr: {told}, as {self._otherwise_cut} of them are: remove them, and add them again", file=sys.stderr
            )
        if told := tally(self._named.left_out):
            print(f"vmmr: {told}", file=sys.stderr)
            for each in self._named.left_out:
                if each.photos and not each.expected:
                    print(f"vmmr: {shown(each.path)}: {each.reason}", file=sys.stderr)
        if not self._args.json and self._labels:
            rows = [(label, str(count)) for label, count in sorted(Counter(self._labels.values()).items())]
            report.show("\n".join(report.table([("LABEL", "ADDED"), *rows])))


def _is_forbidden(error: VmmrError) -> bool:
    """Return whether whoever calls may not do this, so that the same command would be refused again."""
    return isinstance(error, CallError) and error.status == "PERMISSION_DENIED"


def _new_batch_id() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"


def _read_all(photos: Sequence[Labelled], read: Callable[[str], _Read]) -> Iterator[tuple[Labelled, _Read]]:
    """Yield the photos with their bytes, in order. Those from URLs are fetched side by side, a few ahead."""
    pool = ThreadPoolExecutor(READ_AHEAD, "fetch")
    waiting: deque[tuple[Labelled, Callable[[], _Read]]] = deque()
    try:
        for photo in photos:
            fetched = pool.submit(read, photo.name).result if is_url(photo.name) else partial(read, photo.name)
            waiting.append((photo, fetched))
            if len(waiting) >= READ_AHEAD:
                first, result = waiting.popleft()
                yield first, result()
        yield from ((photo, result()) for photo, result in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _end_line() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)
