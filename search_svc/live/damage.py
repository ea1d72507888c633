"""Damage of the journal that somebody has met: it is told until all of the journal has been read, and is well.

A call reads what it was asked for, so one may meet a damaged entry while all others go well, and the operator would not hear of it.
"""

import logging
import threading
from collections.abc import Callable

from search_svc.index.journal_errors import ReplacedError

_log = logging.getLogger(__name__)

_AGAIN_S = 30.0
"""Least seconds from the end of one reading of the whole journal to the next: a large one takes a while."""


class DamageWatch:
    """Keeps what was met of the journal's damage, and reads all of it in a thread of its own, from `start` to `stop`."""

    def __init__(self, read_all: Callable[[], object]) -> None:
        """`read_all` reads every entry of the journal, and raises an error that names what is damaged."""
        self.problem = ""
        """What is damaged, as far as it is known; empty if nothing is."""
        self._read_all = read_all
        self._replaced = False
        self._suspected, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="damage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. A reading that is under way is not waited for."""
        self._stopped.set()
        self._suspected.set()

    def suspect(self, error: Exception | None = None) -> None:
        """Tell of an error that was met, if there is one, and have all of the journal read. Any thread may call it.

        Of a journal that was replaced the files that are there now tell nothing: that stays told.
        """
        if error is not None:
            self._tell(error)
        self._replaced = self._replaced or isinstance(error, ReplacedError)
        if not self._replaced:
            self._suspected.set()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._suspected.wait()
            self._suspected.clear()
            if not self._stopped.is_set():
                self._look()
            self._stopped.wait(_AGAIN_S)
            if self.problem and not self._replaced:
                self._suspected.set()

    def _look(self) -> None:
        try:
            self._read_all()
        except Exception as error:  # noqa: BLE001 (whatever it is, the journal could not be read)
            self._tell(error)
            return
        if self.problem and not self._suspected.is_set() and not self._replaced:
            _log.info("the journal is well again")
            self.problem = ""

    def _tell(self, error: Exception) -> None:
        problem, before = f"the journal is damaged: {error}", self.problem
        self.problem = problem
        if problem != before:
            _log.error("the journal is damaged", extra={"reason": str(error)})
