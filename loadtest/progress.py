"""Show progress on standard error: one line that changes on a terminal, elsewhere a line every few seconds."""

import shutil
import sys
import time
from dataclasses import replace
from typing import TextIO

from loadtest.generator import Progress
from loadtest.plan import Load, Plan

_EVERY_S = {True: 0.25, False: 5.0}
"""Seconds between two updates: on a terminal, and elsewhere."""


class Line:
    def __init__(self, plan: Plan, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._of = f"/{len(plan.loads)}" if plan.loads else ""
        self._step_s = plan.warmup_s + plan.duration_s
        self._warmup_s = plan.warmup_s
        self._shown = 0.0
        self._number = 0
        self._began = 0.0
        self._before = Progress()
        self._at = 0.0

    def __call__(self, number: int, load: Load, progress: Progress) -> None:
        now = time.monotonic()
        if number != self._number:
            self._number, self._began = number, now
            self._before, self._at, self._shown = Progress(), now, now - _EVERY_S[False] + 1
        if now - self._shown < _EVERY_S[self._terminal]:
            return
        self._write(f"step {number}{self._of}, {load}: {self._phase(now)}{self._figures(progress, now)}")
        self._shown, self._before, self._at = now, replace(progress), now

    def end(self) -> None:
        if self._terminal and self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def _phase(self, now: float) -> str:
        past = now - self._began
        if past < self._warmup_s:
            return f"warming up {past:.0f} of {self._warmup_s:g} s"
        return (
            f"{min(past, self._step_s):.0f} of {self._step_s:g} s"
            if past < self._step_s
            else "waiting for the last answers"
        )

    def _figures(self, progress: Progress, now: float) -> str:
        """Return the figures since the last update."""
        answered = progress.answered - self._before.answered
        spent = max(now - self._at, 1e-3)
        mean = f", mean {1e3 * (progress.latency_s - self._before.latency_s) / answered:.1f} ms" if answered else ""
        under_way = progress.started - progress.answered - progress.refused - progress.failed
        lost = f", {progress.refused} refused, {progress.failed} failed" if progress.refused or progress.failed else ""
        return f", {answered / spent:.1f} answered/s{mean}, {under_way} under way{lost}"

    def _write(self, text: str) -> None:
        # A line that wraps could not be overwritten.
        shown = text[: shutil.get_terminal_size().columns - 1]
        self._out.write(f"\r\x1b[K{shown}" if self._terminal else f"{text}\n")
        self._out.flush()
