"""Run a load test, from plan to result."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vmmr._version import __version__

from loadtest import knee, machine, measure
from loadtest.generator import Progress
from loadtest.machine import Busy
from loadtest.plan import MOST_RATE, Closed, Load, Open, Plan
from loadtest.prepare import Prepared, prepare
from loadtest.result import FORMAT, Border, Knee, Result, Step
from loadtest.workers import Workers

PROBE_CONCURRENCY = 32
"""How many callers at once find out roughly what a service can do, before a search for the knee."""

Tell = Callable[[int, Load, Progress], None]
"""Is told of progress: the step's number, from 1, its load, and what has come of it so far."""


def run(plan: Plan, tell: Tell = lambda *_: None, prepared: Prepared | None = None) -> Result:
    """Measure what the plan says. Ctrl-C ends it with what was measured; a second one raises KeyboardInterrupt.

    Raise what `prepare` does, or WorkerError.
    """
    made = datetime.now(UTC).isoformat(timespec="seconds")
    ready = prepared or prepare(plan)
    with Workers(plan, ready.requests) as workers:
        test = _Test(plan, workers, tell)
        test.run()
    steps = tuple(test.steps)
    found = _knee(plan, steps) if not plan.loads else None
    return Result(
        format=FORMAT,
        made=made,
        version=__version__,
        plan=_plain(plan),
        sends=ready.sends,
        served=ready.served,
        machine=machine.described(),
        steps=steps,
        knee=found,
        ended_early=test.ended_early,
        failures=tuple(_failures(plan, steps, found)),
        unproven=_is_unproven(plan, steps),
        doubts=tuple(_doubts(steps)),
    )


class _Test:
    """Runs the steps, one after the other."""

    def __init__(self, plan: Plan, workers: Workers, tell: Tell) -> None:
        self.steps: list[Step] = []
        self.ended_early = ""
        self._plan, self._workers, self._tell = plan, workers, tell
        self._calls_left = plan.max_calls

    def run(self) -> None:
        for load in self._loads():
            self._step(load)
            if self._workers.interrupted:
                self.ended_early = "interrupted"
            elif self._calls_left <= 0:
                self.ended_early = f"the {self._plan.max_calls} calls of --max-calls were used up"
            if self.ended_early:
                return

    def _loads(self) -> Iterator[Load]:
        if self._plan.loads:
            yield from self._plan.loads
            return
        yield Closed(max(PROBE_CONCURRENCY, self._plan.processes * self._plan.connections))
        capacity = min(max(self.steps[0].answered_per_s, 1.0), MOST_RATE)
        while rate := self._next_rate(capacity):
            yield Open(rate)

    def _next_rate(self, capacity: float) -> float | None:
        rate = knee.next_rate(
            points(self.steps),
            capacity,
            slo=self._plan.slo_p99_ms is not None,
            precision=self._plan.precision,
            most=self._plan.max_steps - 1,
        )
        return rate if rate is None else min(rate, MOST_RATE)

    def _step(self, load: Load) -> None:
        number = len(self.steps) + 1
        before = Busy.now()
        record = self._workers.run(load, self._calls_left, lambda progress: self._tell(number, load, progress))
        self._calls_left -= record.calls
        self.steps.append(measure.step(self._plan, load, record, machine.share(before, Busy.now())))


def points(steps: list[Step] | tuple[Step, ...]) -> list[knee.Point]:
    """Return the results of the open-loop steps, for the search."""
    return [
        knee.Point(
            rate=step.load,
            answered=step.answered / max(step.calls - step.abandoned, 1),
            p99_ms=step.latency.p99_ms if step.latency else None,
            meets_slo=step.meets_slo is not False,
        )
        for step in steps
        if step.mode == "open"
    ]


def _knee(plan: Plan, steps: tuple[Step, ...]) -> Knee | None:
    """Return what the search found; None if the test ended before a rate was tried."""
    found = points(steps)
    if not found:
        return None
    of_knee, *of_slo = (_border(steps, found, goal) for goal in knee.goals(found, slo=plan.slo_p99_ms is not None))
    return Knee(of_knee, of_slo[0] if of_slo else None, steps[0].answered_per_s)


def _border(steps: tuple[Step, ...], found: list[knee.Point], goal: knee.Goal) -> Border:
    rate, fails_at = knee.border(found, goal)
    p99 = min((point.p99_ms for point in found if point.rate == rate and goal(point) and point.p99_ms), default=None)
    failing = [step for step in steps if step.mode == "open" and step.load == fails_at]
    return Border(rate, p99, fails_at, any(step.generator.limited_by for step in failing))


def _failures(plan: Plan, steps: tuple[Step, ...], found: Knee | None) -> Iterator[str]:
    """Yield the goals that were missed. A search goes beyond the knee on purpose, so only what it finds counts."""
    if plan.loads:
        for step in steps:
            yield from _failures_of(plan, step)
        if plan.slo_p99_ms is not None:
            yield from (f"{load}: not measured" for load in plan.loads[len(steps) :])
    elif found and found.slo and found.slo.rate is None:
        yield f"no rate that was tried has 99 % of calls answered within {plan.slo_p99_ms:g} ms"
    if not any(step.answered for step in steps):
        yield "no call was answered"


def _failures_of(plan: Plan, step: Step) -> Iterator[str]:
    if step.meets_slo is False:
        yield f"{step.name}: {step.within_slo:.2%} of calls were answered within {plan.slo_p99_ms:g} ms, not 99 %"
    if step.failed_share > plan.max_errors:
        yield f"{step.name}: {step.failed_share:.2%} of calls failed, more than {plan.max_errors:.2%}"


def _is_unproven(plan: Plan, steps: tuple[Step, ...]) -> bool:
    """Return whether it is open if the SLO is met. A search for the knee says itself where the generator was a limit."""
    doubted = any(step.generator.limited_by for step in steps)
    failed = any(list(_failures_of(plan, step)) for step in steps if not step.generator.limited_by)
    return plan.slo_p99_ms is not None and bool(plan.loads) and doubted and not failed


def _doubts(steps: tuple[Step, ...]) -> Iterator[str]:
    for step in steps:
        for reason in step.generator.limited_by:
            yield f"{step.name}: {reason}"


def _plain(plan: Plan) -> dict[str, Any]:
    """Return the plan for JSON, without the token."""
    plain = asdict(plan)
    access = plain["access"]
    access["token"] = access["token"] is not None
    access["tls"] = access["tls"] is not None
    plain["photos"] = str(plan.photos) if plan.photos else None
    plain["loads"] = [
        {"rate": load.rate} if isinstance(load, Open) else {"concurrency": load.concurrency} for load in plan.loads
    ]
    return plain
