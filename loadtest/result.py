"""What was measured: plain frozen values, which are what `--json` writes."""

from dataclasses import dataclass
from typing import Any, Literal

FORMAT = 1
"""Of the JSON; higher if it changes so that an older `compare` would misread it."""


@dataclass(frozen=True)
class Distribution:
    """Of latencies, or other times, in ms; to three significant digits."""

    count: int
    mean_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    p99_between_ms: tuple[float, float]
    """Where the p99 of ever more such calls would be, with 95 % confidence, if they do not depend on each other."""
    hdr: str
    """All of it: an HdrHistogram of microseconds, V2, compressed, base64."""


@dataclass(frozen=True)
class Errors:
    """Calls that failed alike."""

    code: str
    reason: str
    """The service's; empty if it gave none."""
    count: int
    refused: bool
    message: str
    """Of the first."""


@dataclass(frozen=True)
class Generator:
    """How well the generator did its part of a step."""

    lag: Distribution | None
    """How late calls started."""
    loop_lag: Distribution | None
    """How late its event loops were."""
    cpu_shares: tuple[float, ...]
    """Of each process, the cores it used."""
    machine_busy: float | None
    """Share of all cores of this machine that were busy, with whatever; None where the system doesn't tell."""
    limited_by: tuple[str, ...]
    """Why the figures may be the generator's or this machine's rather than the service's. Empty: nothing speaks for it."""


@dataclass(frozen=True)
class Second:
    """A second of a step, warm-up included, by when calls ended."""

    at: int
    answered: int
    refused: int
    failed: int
    worst_ms: float


@dataclass(frozen=True)
class Step:
    """What came of one load. Calls are those that were to start within the window."""

    mode: Literal["open", "closed"]
    load: float
    """Calls/s, or callers at once."""
    window_s: float
    calls: int
    answered: int
    refused: int
    failed: int
    unsent: int
    """The generator was too late to make them."""
    abandoned: int
    """Under way when the test was interrupted."""
    answered_per_s: float
    """Calls answered within the window, whenever they started."""
    things_per_s: float
    """Photos, or queries: so many are in each call."""
    goodput_per_s: float
    """Calls answered within the window and within the SLO; all answered, if there is none."""
    within_slo: float | None
    """Share of all calls that were answered within the SLO. None: there is none."""
    meets_slo: bool | None
    """Whether these are 99 %."""
    latency: Distribution | None
    """Of answered calls, from when they were to start; None if none was answered. So are the others."""
    service: Distribution | None
    """Of the same, from when they really started."""
    refusal: Distribution | None
    stages: dict[str, Distribution]
    errors: tuple[Errors, ...]
    sent_bytes_per_s: float
    received_bytes_per_s: float
    generator: Generator
    seconds: tuple[Second, ...]

    @property
    def name(self) -> str:
        return f"{self.load:.4g}/s" if self.mode == "open" else f"{self.load:g} at once"

    @property
    def failed_share(self) -> float:
        """Of the calls that got an end."""
        return self.failed / max(self.calls - self.abandoned, 1)


@dataclass(frozen=True)
class Border:
    """The highest rate that was fine, and the lowest that was not."""

    rate: float | None
    """Calls/s. None: no rate that was tried was fine."""
    p99_ms: float | None
    fails_at: float | None
    """None: none that was tried failed."""
    generator_limited: bool
    """The generator was the limit where it failed: the service may be able to do more."""


@dataclass(frozen=True)
class Knee:
    """What a search for the knee has found."""

    knee: Border
    """Up to it, p99 is at most KNEE times that of the lowest rate, and what is offered is answered."""
    slo: Border | None
    """Up to it, the SLO is met. None: there is none."""
    capacity_per_s: float
    """Calls/s answered in closed loop, where the search began."""


@dataclass(frozen=True)
class Result:
    """A load test."""

    format: int
    made: str
    """When it began, UTC."""
    version: str
    """Of vmmr."""
    plan: dict[str, Any]
    sends: dict[str, Any]
    """What was sent: `source`, how many different `requests`, `mean_bytes` of one."""
    served: dict[str, Any]
    """What answered: the model, the index."""
    machine: dict[str, Any]
    """Where the generator ran."""
    steps: tuple[Step, ...]
    knee: Knee | None
    ended_early: str
    """Why; empty if it was not."""
    failures: tuple[str, ...]
    """What the test was to show and did not. Empty: all is well."""
    unproven: bool
    """There was an SLO, no step that is beyond doubt missed anything, and others are in doubt: it may be met or not."""
    doubts: tuple[str, ...]
    """Why the figures may be the generator's, step by step."""
