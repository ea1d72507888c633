"""GalleryService over gRPC: items are added, deleted and listed; versions are listed and compacted."""
# ruff: noqa: ARG002, N802 (names and arguments of the methods are the contract's)

import asyncio
import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc

from search_svc.index import journal_file
from search_svc.index.base import VersionBase
from search_svc.index.index_dir import current
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.retention import Kept, versions
from search_svc.index.version import VersionManifest
from search_svc.index.writes import Add, Delete, Write, WriteResult
from search_svc.live.filters import Filter
from search_svc.live.live_gallery import LiveGallery
from search_svc.serving import item_reader
from search_svc.serving.compactor import Compactor
from search_svc.serving.cut_messages import cut_message
from search_svc.serving.gallery_reader import GalleryReader, ItemFilter
from search_svc.serving.pages import PageRequest, token_after
from svckit.access import callers, facts
from svckit.batcher import Batcher
from svckit.errors import Reason, ServiceError, rejected
from svckit.interceptor import deadline
from svckit.streams import Context

SERVICE = gallery_pb2.DESCRIPTOR.services_by_name["GalleryService"].full_name

Result = TypeVar("Result")

_POLL_S = 0.02
_DELETED_AT_ONCE = item_reader.MOST_ITEMS
"""Most items of one write, which other writes wait for; as many as one call can add."""
_FEW_ITEMS = 16
"""So many items are checked in a millisecond, on the event loop; a message of 15 MiB would block it for 50."""


class GalleryService(gallery_pb2_grpc.GalleryServiceServicer):
    """Writes items to the journal, through a batcher over a JournalWriter, and reads them from version and journal."""

    def __init__(
        self,
        index_dir: Path,
        gallery: LiveGallery,
        journal: Journal,
        writes: Batcher[Write, WriteResult] | None,
        compactor: Compactor,
        *,
        on_write: Callable[[], None],
        unserved: Callable[[str], str] = lambda _: "",
    ) -> None:
        """Make a service, which is read-only if `writes` is None. `on_write` is called when a write is on the disk.

        `unserved` returns why a version that is current is not served, or an empty text if no reason is known.
        """
        self._index_dir = index_dir
        self._gallery = gallery
        self._journal = journal
        self._writes = writes
        self._compactor = compactor
        self._on_write = on_write
        self._unserved = unserved
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="items")
        self._arrivals = ThreadPoolExecutor(1, thread_name_prefix="arrivals")

    async def AddItems(self, request: gallery_pb2.AddItemsRequest, context: Context) -> gallery_pb2.AddItemsResponse:
        done = await self._write(await self._read_add(request, deadline(context)))
        if done.gone:
            facts.tell(
                {
                    "replaced_ids": facts.first(done.gone),
                    "replaced_labels": facts.first(dict.fromkeys(done.gone.values())),
                }
            )
        return gallery_pb2.AddItemsResponse(
            added=done.added, replaced=done.replaced, unchanged=done.unchanged, journal_sequence=done.sequence
        )

    async def DeleteItems(
        self, request: gallery_pb2.DeleteItemsRequest, context: Context
    ) -> gallery_pb2.DeleteItemsResponse:
        done = await self._delete(
            item_reader.read_delete(request, deadline(context), callers.current.get().label_prefixes)
        )
        facts.tell({"item_ids": facts.first(done.gone), **facts.of_labels(done.gone.values())})
        return gallery_pb2.DeleteItemsResponse(deleted=done.deleted, journal_sequence=done.sequence)

    async def GetItem(self, request: gallery_pb2.GetItemRequest, context: Context) -> gallery_pb2.GetItemResponse:
        item = await self._read(lambda reader: reader.item(request.item_id))
        if item is None:
            raise ServiceError(Reason.ITEM_NOT_FOUND, f"the gallery has no item {request.item_id[:80]!r}")
        return gallery_pb2.GetItemResponse(item=_message(request.item_id, item))

    async def ListItems(self, request: gallery_pb2.ListItemsRequest, context: Context) -> gallery_pb2.ListItemsResponse:
        page = PageRequest.of(request)
        wanted = ItemFilter(await self._labels(request, context), request.batch_id)
        # One more than is asked for tells whether there is a next page.
        found = await self._read(lambda reader: reader.page(page.after, page.size + 1, wanted))
        token = token_after(found[page.size - 1][0]) if len(found) > page.size else ""
        return gallery_pb2.ListItemsResponse(
            items=[_message(item_id, item) for item_id, item in found[: page.size]], next_page_token=token
        )

    async def Compact(self, request: gallery_pb2.CompactRequest, context: Context) -> gallery_pb2.CompactResponse:
        self._check_writable()
        written = await asyncio.get_running_loop().run_in_executor(self._reader, self._journal.sequence)
        goal = max(written, self._gallery.view.sequence)
        await self._compactor.compact()
        made = await self._wait_until_served(goal, deadline(context))
        reply = gallery_pb2.CompactResponse(
            index_version=made.version, items=made.items, journal_sequence=made.journal_sequence
        )
        reply.create_time.FromDatetime(made.created)
        return reply

    async def ListVersions(
        self, request: gallery_pb2.ListVersionsRequest, context: Context
    ) -> gallery_pb2.ListVersionsResponse:
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._versions)

    @property
    def _served(self) -> VersionManifest:
        return self._gallery.view.manifest

    async def _read_add(self, request: gallery_pb2.AddItemsRequest, end: float | None) -> Add:
        read = partial(item_reader.read_add, request, self._served, end, callers.current.get().label_prefixes)
        if len(request.items) <= _FEW_ITEMS:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._arrivals, read)

    async def _write(self, write: Write) -> WriteResult:
        writes = self._check_writable()
        done = (await writes.submit([write], deadline=write.deadline)).outputs[0]
        self._on_write()
        return done

    async def _delete(self, write: Delete) -> WriteResult:
        """Delete few items in one write, and many in several, so that other writes can come between them."""
        self._check_writable()
        ids = write.item_ids or await self._read(lambda reader: reader.candidates(write))
        if len(ids) <= _DELETED_AT_ONCE:
            return await self._write(write)
        # The parts are written one after another: none is, if one may not be.
        await self._read(lambda reader: reader.check_labels(write, ids))
        done, gone = WriteResult(0), dict[str, str]()
        for start in range(0, len(ids), _DELETED_AT_ONCE):
            part = dataclasses.replace(write, only=ids[start : start + _DELETED_AT_ONCE])
            done = await self._write(part)
            gone |= done.gone
        return dataclasses.replace(done, deleted=len(gone), gone=gone)

    def _check_writable(self) -> Batcher[Write, WriteResult]:
        if self._writes is None:
            raise ServiceError(
                Reason.JOURNAL_UNWRITABLE, "this server was started with --read-only: it takes no writes"
            )
        return self._writes

    async def _read(self, find: Callable[[GalleryReader], Result]) -> Result:
        """Run `find` in the readers' thread. The view is held meanwhile, so that its version stays on the disk."""
        view = self._gallery.view

        def run() -> Result:
            return find(GalleryReader(VersionBase(view.opened.version), self._journal))

        return await asyncio.get_running_loop().run_in_executor(self._reader, run)

    async def _labels(self, request: gallery_pb2.ListItemsRequest, context: Context) -> frozenset[str] | None:
        """Return the labels that the filter lets through, of all that were ever written; None if it is empty."""
        wanted = Filter.of(request.filter)
        if wanted is None:
            return None
        last = await asyncio.get_running_loop().run_in_executor(self._reader, self._journal.sequence)
        await self._gallery.reach(last, deadline(context))
        view = self._gallery.view
        if violations := list(view.filters.violations(wanted, "filter")):
            raise rejected(violations)
        names = zip(view.items.labels, view.filters.mask(wanted), strict=False)
        return frozenset(label.label for label, allowed in names if allowed)

    async def _wait_until_served(self, goal: int, end: float | None) -> VersionManifest:
        """Return the version that is current, once it is served. Raises ServiceError if it does not hold the journal to `goal`."""
        while self._served.version != (name := current(self._index_dir)):
            if reason := self._unserved(name):
                text = f"version {name} is built and current, but this server cannot serve it: {reason}"
                raise ServiceError(Reason.COMPACTION_FAILED, text)
            if end is not None and time.monotonic() > end:
                raise ServiceError(Reason.DEADLINE_EXCEEDED, "the version is built, but was not served in time")
            await asyncio.sleep(_POLL_S)
        if (made := self._served).journal_sequence < goal:
            text = f"version {made.version} is current, and holds the journal to {made.journal_sequence}, not to {goal}"
            raise ServiceError(Reason.COMPACTION_FAILED, f"{text}: call again")
        return made

    def _versions(self) -> gallery_pb2.ListVersionsResponse:
        last = self._journal.sequence()
        return gallery_pb2.ListVersionsResponse(
            versions=map(_version, versions(self._index_dir)),
            journal_sequence=last,
            journal_depth=max(0, last - self._served.journal_sequence),
            journal_bytes=journal_file.size(self._index_dir / journal_file.FILE),
        )


def _message(item_id: str, item: StoredItem) -> gallery_pb2.Item:
    return gallery_pb2.Item(
        item_id=item_id,
        label=item.label,
        uri=item.uri,
        batch_id=item.batch_id,
        attributes=item.attributes,
        cut=cut_message(item.cut) if item.cut else None,
    )


def _version(kept: Kept) -> gallery_pb2.Version:
    message = gallery_pb2.Version(
        index_version=kept.name, current=kept.current, in_use=kept.in_use, problem=kept.problem
    )
    if made := kept.manifest:
        message.items, message.model, message.journal_sequence = made.items, made.model, made.journal_sequence
        message.create_time.FromDatetime(made.created)
    return message
