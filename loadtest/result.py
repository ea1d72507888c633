"""The result of a load test: plain frozen values, which `--json` writes."""

from dataclasses import dataclass
from typing import Any, Literal

FORMAT = 1
"""The version of the JSON. It grows when a change would make an older `compare` misread it."""


@dataclass(frozen=True)
class Distribution:
    """The distribution of latencies or other times in ms, to three significant digits."""

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
    """The 95 % confidence interval of the p99, if calls do not depend on each other."""
    hdr: str
    """The whole histogram: an HdrHistogram of microseconds, V2, compressed, base64."""


@dataclass(frozen=True)
class Errors:
    """Calls that failed in the same way."""

    code: str
    reason: str
    """The service's reason; empty if it gave none."""
    count: int
    refused: bool
    message: str
    """The message of the first of them."""


@dataclass(frozen=True)
class Generator:
    """How well the generator did its part of a step."""

    lag: Distribution | None
    """How late calls started."""
    loop_lag: Distribution | None
    """How late its event loops were."""
    cpu_shares: tuple[float, ...]
    """The share of a core that each process used."""
    machine_busy: float | None
    """The share of all cores of this machine that were busy, with any program; None if the system doesn't tell."""
    limited_by: tuple[str, ...]
    """Why the figures may be limited by the generator or this machine. Empty: nothing suggests that."""


@dataclass(frozen=True)
class Second:
    """The calls that ended in one second of a step, warm-up included."""

    at: int
    answered: int
    refused: int
    failed: int
    worst_ms: float


@dataclass(frozen=True)
class Step:
    """The result of one load. `calls` and all counts of them are those that should have started while it was measured."""

    mode: Literal["open", "closed"]
    load: float
    """Calls/s in an open loop, callers at once in a closed one."""
    window_s: float
    calls: int
    answered: int
    refused: int
    failed: int
    unsent: int
    """Calls that the generator was too late to make."""
    abandoned: int
    """Calls that were under way when the test was interrupted."""
    answered_per_s: float
    """Calls answered a second while the step was measured, whenever they started."""
    things_per_s: float
    """Photos or queries answered a second: `answered_per_s` times the batch."""
    goodput_per_s: float
    """Calls answered a second within the SLO; all answered calls if there is no SLO."""
    within_slo: float | None
    """The share of all calls that was answered within the SLO. None if there is no SLO."""
    meets_slo: bool | None
    """Whether that share is at least 99 %."""
    latency: Distribution | None
    """Times of answered calls, from when they should have started. This and the next two are None if there is no such call."""
    service: Distribution | None
    """Times of answered calls, from when they really started."""
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
        """The share of calls that failed, of all that were not abandoned."""
        return self.failed / max(self.calls - self.abandoned, 1)


@dataclass(frozen=True)
class Border:
    """The highest rate that passed, and the lowest that failed."""

    rate: float | None
    """Calls/s. None if no rate that was tried passed."""
    p99_ms: float | None
    fails_at: float | None
    """Calls/s. None if no rate that was tried failed."""
    generator_limited: bool
    """Whether the generator was the limit where it failed, so that the service may be able to do more."""


@dataclass(frozen=True)
class Knee:
    """The result of a search for the knee."""

    knee: Border
    """Up to this rate, p99 is at most KNEE times that of the lowest rate, and the service keeps up."""
    slo: Border | None
    """Up to this rate, the SLO is met. None if there is no SLO."""
    capacity_per_s: float
    """Calls/s answered in the closed loop with which the search began."""


@dataclass(frozen=True)
class Result:
    """The whole result of a load test."""

    format: int
    made: str
    """When the test began, in UTC."""
    version: str
    """The version of vmmr."""
    plan: dict[str, Any]
    sends: dict[str, Any]
    """What was sent: `source`, how many different `requests`, `mean_bytes` of one."""
    served: dict[str, Any]
    """The model and the index that were served."""
    machine: dict[str, Any]
    """The machine that the generator ran on."""
    steps: tuple[Step, ...]
    knee: Knee | None
    ended_early: str
    """Why the test ended early; empty if it did not."""
    failures: tuple[str, ...]
    """The goals that were missed. Empty: all were met."""
    unproven: bool
    """Whether it is open if the SLO is met: steps without doubt missed nothing, but the generator was a limit in others."""
    doubts: tuple[str, ...]
    """Why the figures may be limited by the generator, step by step."""
