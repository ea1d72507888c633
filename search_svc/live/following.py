"""Follows an index: keeps the gallery that is served at what the journal and `CURRENT` say, whichever process writes them.

One thread looks every 20 ms, or at once when it is notified of a write. A version that becomes current is opened in a thread
of its own, while the old one is served, and takes its place when it holds all that the old one holds. A failure is logged,
reported as a problem and tried again; meanwhile the gallery that is served stays as it was.
"""

import logging
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from search_svc.index.index_dir import current
from search_svc.index.journal import Journal
from search_svc.index.journal_errors import of_another_model
from search_svc.index.journal_snapshot import ALL
from search_svc.live.delta import Delta
from search_svc.live.live_gallery import LiveGallery
from search_svc.live.view import Opened, View
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

_log = logging.getLogger(__name__)

_POLL_S = 0.02
_RETRY_S = 2.0
_ENTRIES = 2000
"""Journal entries that are read at a time, and shown together."""


class Replay:
    """A version and the delta that grows on it as the journal's entries are applied, in their order."""

    def __init__(self, opened: Opened, journal: Journal, upto: int = ALL) -> None:
        """Begin with nothing applied. `upto` is the last entry to apply, one that ends a write."""
        self._journal = journal
        self._upto = upto
        self._opened = opened
        self._delta = Delta(opened.version)
        self._sequence = opened.version.manifest.journal_sequence
        self._model = opened.version.manifest.model

    @property
    def version(self) -> str:
        return self._opened.version.manifest.version

    def advance(self) -> bool:
        """Apply the next entries of the journal, if there are any; return whether there were.

        Raises ArtifactError, and applies none of them, if they are not of this index.
        """
        entries = [each for each in self._journal.read(self._sequence, _ENTRIES) if each.sequence <= self._upto]
        if not entries:
            return False
        if (model := self._journal.model) != self._model:
            raise of_another_model(self._journal.path, model, self._model)
        for entry in entries:
            if problem := self._delta.problem(entry):
                raise ArtifactError(self._journal.path, problem)
        for entry in entries:
            self._delta.write(entry)
        self._sequence = entries[-1].sequence
        if self._delta.needs_rewrite:
            self._delta = self._delta.without_tombstones()
        return True

    def finish(self) -> None:
        """Apply all entries of the journal that are left."""
        while self.advance():
            pass

    def view(self) -> View:
        """Return the gallery after the entries that were applied."""
        touched = self._delta.items or len(self._delta.gone)
        return View(self._opened, self._delta.snapshot() if touched else None, self._sequence)


class Follower:
    """Keeps a gallery up to date with its index, in threads of its own, from `start` to `stop`."""

    def __init__(self, index_dir: Path, journal: Journal, replay: Replay, open_version: Callable[[], Opened]) -> None:
        """Serve the version of `replay` at first; `open_version` opens the one that is current when it is called."""
        self.gallery = LiveGallery(replay.view())
        self.switches = 0
        """How many times another version took the place of the one that was served."""
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
        """Why the gallery does not hold what the index does; empty if no reason is known."""
        return "; ".join(chore.problem for chore in self._chores if chore.problem)

    @property
    def lost(self) -> int:
        """Number of journal entries that were acknowledged and are lost, as of the last look."""
        return self._lost

    def unserved(self, version: str) -> str:
        """Return why `version`, which is current, could not be opened; empty if it was, or has not been tried yet."""
        tried, reason = self._unserved
        return reason if tried == version else ""

    @property
    def opening(self) -> bool:
        """Whether a version is being opened."""
        return self._opening is not None

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """Look at the journal now, since something was written to it."""
        self._wake.set()

    def stop(self) -> None:
        """Stop following. Wait for the look that is under way, but not for a version that is being opened."""
        self._stopped = True
        self._wake.set()
        if self._thread.ident is not None:
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
        """Return whether the current version is served; begin to open it if it is not."""
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
        except Exception as error:  # noqa: BLE001 (whatever it is, the follower's thread reports it)
            self._opened = error
        else:
            self._opened = replay
        self._wake.set()

    def _switch(self) -> None:
        """Show the version that was opened, after what was written meanwhile; raise the error if opening it failed."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        self._opening = None
        if isinstance(opened, Exception):
            try:
                raise opened
            finally:
                # Otherwise the error's traceback would refer to this frame and so to the error itself, and that circle
                # would keep the version that failed from being closed.
                del opened
        if opened.version == self._replay.version:
            return  # it became current again just as another one was to be opened
        opened.finish()
        before, self._replay = self._replay.version, opened
        self.gallery.show(opened.view())
        self.switches += 1
        _log.info("switched version", extra={"version": opened.version, "before": before})


class _Chore:
    """A piece of work that is repeated, and may fail for a while."""

    def __init__(self, failing: str, work: Callable[[], bool]) -> None:
        """`failing` is the log message if `work` raises; `work` returns whether the problem, if there was one, is over."""
        self.problem = ""
        self._failing = failing
        self._work = work
        self._not_before = -inf

    def do(self) -> None:
        """Do the work, unless it failed a moment ago. A problem is logged once, until it is another one."""
        if time.monotonic() < self._not_before:
            return
        try:
            if self._work():
                self.problem = ""
        except Exception as error:  # noqa: BLE001 (whatever it is, serving goes on)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._not_before = time.monotonic() + _RETRY_S
        problem, before = f"{self._failing}: {error}", self.problem
        self.problem = problem
        if problem != before:
            foreseen = isinstance(error, ArtifactError | CommandError)
            _log.error(self._failing, exc_info=None if foreseen else error, extra={"reason": str(error)})
