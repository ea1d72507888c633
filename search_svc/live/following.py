"""Follows an index: what is written to its journal, and which version is current, by whatever process.

One thread looks every 20 ms, or at once when it is told of a write. A version that becomes current is opened in a thread of
its own, while the old one goes on, and is shown when it holds all that the old one did. What goes wrong is told, and tried
again; the gallery that is served stays as it was.
"""

import logging
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from search_svc.index.index_dir import current
from search_svc.index.journal import Journal
from search_svc.live.delta import Delta
from search_svc.live.live_gallery import LiveGallery
from search_svc.live.view import Opened, View
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

_log = logging.getLogger(__name__)

_POLL_S = 0.02
_RETRY_S = 2.0
_ENTRIES = 2000
"""Read at a time, and shown together."""


class Replay:
    """A version, and what the journal says of the time since."""

    def __init__(self, opened: Opened, journal: Journal) -> None:
        self._journal = journal
        self._opened = opened
        manifest = opened.version.manifest
        self._delta = Delta(opened.version.items, manifest.dimension, manifest.metric)
        self._sequence = manifest.journal_sequence
        self._model = manifest.model

    @property
    def version(self) -> str:
        return self._opened.version.manifest.version

    def advance(self) -> bool:
        """Takes some entries in; whether there were any. Raises ArtifactError, and changes nothing, if they cannot be."""
        entries = self._journal.read(self._sequence, _ENTRIES)
        if not entries:
            return False
        if (model := self._journal.model) != self._model:
            raise ArtifactError(self._journal.path, f"is of another model ({model}) than the index ({self._model})")
        for entry in entries:
            if problem := self._delta.problem(entry):
                raise ArtifactError(self._journal.path, problem)
        for entry in entries:
            self._delta.write(entry)
        self._sequence = entries[-1].sequence
        if self._delta.crowded:
            self._delta = self._delta.renewed()
        return True

    def finish(self) -> None:
        """Takes in all that there is."""
        while self.advance():
            pass

    def view(self) -> View:
        """The gallery as far as it was taken in."""
        touched = self._delta.items or len(self._delta.gone)
        return View(self._opened, self._delta.snapshot() if touched else None, self._sequence)


class Follower:
    """Keeps a gallery at what its index holds, in threads of its own, from `start` to `stop`."""

    def __init__(self, index_dir: Path, journal: Journal, replay: Replay, open_version: Callable[[], Opened]) -> None:
        """`replay` is of the version that is served at first; `open_version` opens the one that is current."""
        self.gallery = LiveGallery(replay.view())
        self.switches = 0
        """Versions that were switched to."""
        self._index_dir = index_dir
        self._journal = journal
        self._replay = replay
        self._open = open_version
        self._behind = True
        self._lost = journal.lost()
        self._opening: threading.Thread | None = None
        self._opened: Replay | Exception | None = None
        self._wanted = ""
        self._unserved = ("", "")
        self._chores = (
            _Chore("the journal cannot be followed", self._catch_up),
            _Chore("the current version cannot be served", self._look_at_current),
        )
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    @property
    def problem(self) -> str:
        """Why the gallery is not what the index holds, as far as that is known; empty if it is."""
        return "; ".join(chore.problem for chore in self._chores if chore.problem)

    @property
    def lost(self) -> int:
        """Entries of the journal that were acknowledged and are lost, as of the last look."""
        return self._lost

    def unserved(self, version: str) -> str:
        """Why that version, which is current, is not served; empty if it is, or nobody has found out yet."""
        tried, reason = self._unserved
        return reason if tried == version else ""

    @property
    def opening(self) -> bool:
        """Whether a version is being opened."""
        return self._opening is not None

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """Of a write, so that it is seen at once."""
        self._wake.set()

    def stop(self) -> None:
        """Waits for what is being done, but not for a version that is being opened."""
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopped:
            for chore in self._chores:
                chore.do()
            self._wake.wait(_POLL_S)
            self._wake.clear()

    def _catch_up(self) -> bool:
        if self._journal.changed():
            self._behind = True
            self._lost = self._lost and self._journal.lost()  # while it is open, they can only be pruned
        while self._behind and not self._stopped:
            self._behind = self._replay.advance()
            if self._behind:
                self.gallery.show(self._replay.view())
        return True

    def _look_at_current(self) -> bool:
        """Whether the current version is served; it is opened if not."""
        try:
            self._switch()
        except Exception as error:
            self._unserved = (self._wanted, str(error))
            raise
        if self._opening is None and (name := current(self._index_dir)) != self._replay.version:
            _log.info("opening version", extra={"version": name})
            self._wanted = name
            self._opening = threading.Thread(target=self._open_current, name="opening", daemon=True)
            self._opening.start()
        if self._opening is None:
            self._unserved = ("", "")
        return self._opening is None

    def _open_current(self) -> None:
        try:
            replay = Replay(self._open(), self._journal)
            replay.finish()
        except Exception as error:  # noqa: BLE001 (whatever it is, the follower tells of it)
            self._opened = error
        else:
            self._opened = replay
        self._wake.set()

    def _switch(self) -> None:
        """Shows the version that was opened, once it holds whatever the one before did."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        self._opening = None
        if isinstance(opened, Exception):
            try:
                raise opened
            finally:
                del (
                    opened
                )  # else it would be part of its own traceback, and that keeps what was opened from being closed
        opened.finish()
        before, self._replay = self._replay.version, opened
        self.gallery.show(opened.view())
        self.switches += 1
        _log.info("switched version", extra={"version": opened.version, "before": before})


class _Chore:
    """Something that is done again and again, and may fail for a while."""

    def __init__(self, failing: str, work: Callable[[], bool]) -> None:
        """`failing` is what is said of it then; `work` says whether all is well."""
        self.problem = ""
        self._failing = failing
        self._work = work
        self._pause = -inf

    def do(self) -> None:
        """A problem is told once, and tried again after a while."""
        if time.monotonic() < self._pause:
            return
        try:
            if self._work():
                self.problem = ""
        except Exception as error:  # noqa: BLE001 (whatever it is, serving goes on)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._pause = time.monotonic() + _RETRY_S
        problem, before = f"{self._failing}: {error}", self.problem
        self.problem = problem
        if problem != before:
            foreseen = isinstance(error, ArtifactError | CommandError)
            _log.error(self._failing, exc_info=None if foreseen else error, extra={"reason": str(error)})
