"""Backups beside a server: at its start and ever so often, each in a process of its own."""

import asyncio
import logging
import math
import time
from contextlib import suppress
from pathlib import Path

from svckit import beside

_log = logging.getLogger(__name__)

_RETRY_S = 60.0
"""Longest pause after a backup that failed."""


class BackupSchedule:
    """Backs an index up again and again. Belongs to one event loop; a failure is logged and counted, and changes nothing else."""

    def __init__(self, index_dir: Path, backups: str, *, every_s: float, keep: int) -> None:
        """Make a schedule. `backups` is the folder that they go to; the newest `keep` stay."""
        self.failures = 0
        self._command = ("search_svc", "backup", str(index_dir), backups, "--keep", str(keep))
        self._backups = backups
        self._every_s = every_s
        self._succeeded_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the last backup that succeeded was begun; infinite if none has since the server started."""
        return time.monotonic() - self._succeeded_at

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._repeat())

    async def close(self) -> None:
        """Stop. A backup that runs is killed, which leaves those that have ended as they are."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _repeat(self) -> None:
        while True:
            succeeded = await self._back_up()
            await asyncio.sleep(self._every_s if succeeded else min(self._every_s, _RETRY_S))

    async def _back_up(self) -> bool:
        started = time.monotonic()
        try:
            ended = await beside.run(*self._command)
            reason = ended.reason if ended.code else ""
            for text in ended.warnings:
                _log.warning("backup warned", extra={"backups": self._backups, "said": text})
        except OSError as error:
            reason = f"no process could be started: {error}"
        if reason:
            self.failures += 1
            _log.error("backup failed", extra={"backups": self._backups, "reason": reason})
            return False
        self._succeeded_at = started
        seconds = round(time.monotonic() - started, 3)
        _log.info("backed up", extra={"backups": self._backups, "seconds": seconds, "said": ended.stdout.strip()})
        return True
