"""Say in the log that writes do not get into the journal: once, and again only when some did between."""

import logging
from collections.abc import Iterable
from pathlib import Path

from search_svc.index.writes import WriteResult
from svckit.errors import Reason, ServiceError

_TROUBLE = frozenset({Reason.JOURNAL_FULL, Reason.JOURNAL_UNWRITABLE})

_log = logging.getLogger(__name__)


class WriteTrouble:
    """Whether the journal can be written, as far as the writes so far tell."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reason: Reason | None = None

    def heard(self, outcomes: Iterable[WriteResult | Exception]) -> None:
        """Take note of what became of writes. Log an error if trouble begins or is another than before, and its end."""
        outcomes = list(outcomes)
        if trouble := next(filter(None, map(_trouble, outcomes)), None):
            self._begins(trouble)
        elif self._reason and any(_wrote(outcome) for outcome in outcomes):
            _log.info("the journal is written again", extra={"journal": str(self._path)})
            self._reason = None

    def _begins(self, trouble: ServiceError) -> None:
        if trouble.reason != self._reason:
            about = {"journal": str(self._path), "reason": trouble.reason.value, "error": str(trouble)}
            _log.error("the journal cannot be written", extra=about)
        self._reason = trouble.reason


def _trouble(outcome: WriteResult | Exception) -> ServiceError | None:
    """Return the error, unless it is another one, or says when to try again: a journal that is busy is well."""
    if isinstance(outcome, ServiceError) and outcome.reason in _TROUBLE and outcome.retry_after_s is None:
        return outcome
    return None


def _wrote(outcome: WriteResult | Exception) -> bool:
    """Return whether something got on the disk: a write that changes nothing does not show that one could."""
    return isinstance(outcome, WriteResult) and bool(outcome.added or outcome.replaced or outcome.deleted)
