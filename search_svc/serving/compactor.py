"""Compaction beside a server: in a process of its own, which ends when the server ends, and can be ended at any time."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search_svc.index.index_dir import EXIT_BUILD_RUNNING, BuildRunningError, current, version_names
from search_svc.index.journal import Journal
from search_svc.index.retention import retire
from search_svc.index.version import VersionManifest
from svckit import beside
from svckit.artifact import ArtifactError
from svckit.errors import Reason, ServiceError

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3600.0
"""Pause after an automatic compaction that failed, doubled each time: somebody may have to remove the cause."""
_BUILD_RUNNING_PAUSE_S = 10.0
"""Pause after one that was refused since another process is building: each attempt starts a process."""
_RETIRE_S = 5.0
"""Pause between two attempts to remove versions that are too many, which calls may still be answered by."""


class Compactor:
    """Compacts an index on demand, and by itself when much was written. Belongs to one event loop."""

    def __init__(
        self,
        index_dir: Path,
        journal: Journal,
        served: Callable[[], VersionManifest],
        *,
        keep_versions: int,
        compact_at: int,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a compactor. `served` returns the version that is served; `on_failure` is called whenever no version could be built.

        `compact_at` is the number of journal entries beyond that version at which to compact by itself; 0 for never.
        """
        self._index_dir = index_dir
        self._journal = journal
        self._served = served
        self._keep = keep_versions
        self._compact_at = compact_at
        self._on_failure = on_failure
        self._running: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._compact_after = 0.0
        self._retire_after = 0.0
        self._retire_problem = ""

    def start(self) -> None:
        """Begin to watch how much was written, and which versions nobody needs any more."""
        self._watch = asyncio.ensure_future(self._watch_versions())

    async def close(self) -> None:
        """Stop. A compaction that runs ends unfinished; the next one goes on from where it was."""
        for task in (self._watch, self._running):
            if task:
                task.cancel()
                # An error was raised to whoever waited for the compaction.
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def compact(self) -> None:
        """Build a version that holds what the journal holds now, and make it the current one.

        Raises ServiceError: COMPACTION_RUNNING if a build runs, here or in another process, or COMPACTION_FAILED. A caller
        that stops waiting does not stop it.
        """
        if self._running and not self._running.done():
            raise _already_running()
        self._running = asyncio.ensure_future(self._compact())
        self._running.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._running)

    async def _compact(self) -> None:
        try:
            await self._build()
        except ServiceError as error:
            if error.reason is Reason.COMPACTION_FAILED:
                self._on_failure()
            raise

    async def _build(self) -> None:
        _log.info("compacting", extra={"index": str(self._index_dir), "version": self._served().version})
        command = ("search_svc", "compact", str(self._index_dir), "--keep-versions", str(self._keep))
        try:
            ended = await beside.run(*command)
        except OSError as error:
            raise ServiceError(Reason.COMPACTION_FAILED, f"no process could be started: {error}") from error
        if ended.code == EXIT_BUILD_RUNNING:
            raise _already_running()
        if ended.code:
            _log.error("compaction failed", extra={"code": ended.code, "said": ended.stderr[-2000:]})
            raise ServiceError(Reason.COMPACTION_FAILED, f"no version could be built: {ended.reason}")
        _log.info("compacted", extra={"index": str(self._index_dir), "version": current(self._index_dir)})
        # The process removes old versions, too; if it could not, this logs the reason.
        await asyncio.to_thread(self._retire)

    async def _watch_versions(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._look()
            except Exception:  # noqa: BLE001 (whatever it is, the next look may succeed)
                _log.exception("cannot look after the versions")

    async def _look(self) -> None:
        if time.monotonic() > self._retire_after:
            self._retire_after = time.monotonic() + _RETIRE_S
            if len(version_names(self._index_dir)) > self._keep:
                await asyncio.to_thread(self._retire)
        may_compact = self._compact_at and time.monotonic() > self._compact_after
        if may_compact and await asyncio.to_thread(self._much_was_written):
            await self._compact_by_itself()

    def _much_was_written(self) -> bool:
        """Return whether it is time to compact. It is not while a newer version is current than the one that is served."""
        try:
            served = self._served()
            depth = self._journal.sequence() - served.journal_sequence
            return depth >= self._compact_at and current(self._index_dir) == served.version
        except ArtifactError:
            return False  # the follower reports it

    async def _compact_by_itself(self) -> None:
        # After a failure the watch goes on to remove old versions: disk space may be what the compaction lacked.
        try:
            await self.compact()
        except ServiceError as error:
            if error.reason == Reason.COMPACTION_RUNNING:
                self._compact_after = time.monotonic() + _BUILD_RUNNING_PAUSE_S
                return
            _log.warning("compacts again later", extra={"reason": str(error), "seconds": self._pause_s})
            self._compact_after = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        else:
            self._pause_s = _FIRST_PAUSE_S

    def _retire(self) -> None:
        try:
            removed = retire(self._index_dir, self._keep)
        except BuildRunningError:
            return  # the process that builds will do it
        except (ArtifactError, ServiceError, OSError) as error:
            if str(error) != self._retire_problem:  # logged once, not every few seconds
                _log.warning("old versions cannot be removed", extra={"reason": str(error)})
            self._retire_problem = str(error)
            return
        self._retire_problem = ""
        if removed:
            _log.info("removed versions", extra={"versions": removed})


def _already_running() -> ServiceError:
    text = "a version of this index is being built: wait until it is served"
    return ServiceError(Reason.COMPACTION_RUNNING, text)
