"""What is to be measured: plain frozen values, checked once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from vmmr._channel import TLS
from vmmr._types import SearchOptions, Subject

Target: TypeAlias = Literal["embed", "search", "classify", "identify"]
Arrivals: TypeAlias = Literal["uniform", "poisson"]

MOST_RATE = 1_000_000.0
MOST_CONCURRENCY = 10_000


MOST_MESSAGE_BYTES = 2**31 - 1
"""The largest message that gRPC can be set to: the services' own limits are to decide."""
KEEPALIVE_S = 30.0


@dataclass(frozen=True)
class Access:
    """Where the services are, and how to call them."""

    embedder: str = "127.0.0.1:50051"
    search: str = "127.0.0.1:50052"
    tls: TLS | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Open:
    """An open loop: calls start at given times, whether earlier ones were answered or not, as independent users call."""

    rate: float
    """Calls/s."""

    def __str__(self) -> str:
        return f"{self.rate:g}/s"


@dataclass(frozen=True)
class Closed:
    """A closed loop: each of some callers calls again when it is answered, as a batch job calls."""

    concurrency: int

    def __str__(self) -> str:
        return f"{self.concurrency} at once"


Load: TypeAlias = Open | Closed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole load test. No step takes longer than `warmup_s + duration_s + timeout_s`, and all steps together make no
    more than `max_calls` calls.

    Raise ValueError, naming the setting, if one makes no sense.
    """

    target: Target
    loads: tuple[Load, ...] = ()
    """The load of each step, in this order. Empty: the rates are found by a search (`knee`)."""
    access: Access = field(default_factory=Access)
    photos: Path | None = None
    """A folder of photos, searched recursively. None: photos are drawn, or vectors are random."""
    distinct: int = 256
    """How many different photos or vectors are sent, in turn."""
    size: tuple[int, int] = (500, 375)
    """Width and height of drawn photos, in pixels."""
    subject: Subject | None = None
    """What of each photo to look at. None: what the embedder looks at by itself."""
    batch: int = 1
    """How many photos, or queries, are in one call."""
    options: SearchOptions = field(default_factory=SearchOptions)
    duration_s: float = 10.0
    """Seconds that one step is measured."""
    warmup_s: float = 2.0
    """Seconds of the same load before that, which are not measured."""
    timeout_s: float = 10.0
    """Seconds that one call may take."""
    max_calls: int = 1_000_000
    arrivals: Arrivals = "uniform"
    processes: int = 1
    connections: int = 1
    """Connections of each process to each service."""
    seed: int = 0
    slo_p99_ms: float | None = None
    """Milliseconds within which 99 % of all calls must be answered. None: there is no SLO."""
    max_errors: float = 0.01
    """The share of calls that may fail. Refused calls do not count here, but they miss the SLO."""
    max_steps: int = 16
    """The most steps of a search for the knee."""
    precision: float = 0.05
    """How near to the knee a search comes, as a share of the rate."""

    def __post_init__(self) -> None:
        for load in self.loads:
            _check_load(load)
        for name in ("distinct", "batch", "max_calls", "processes", "connections", "max_steps"):
            _check(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("duration_s", "timeout_s", "precision"):
            _check(getattr(self, name) > 0, f"{name} must be > 0, got {getattr(self, name)}")
        _check(self.warmup_s >= 0, f"warmup_s must be >= 0, got {self.warmup_s}")
        _check(0 <= self.max_errors <= 1, f"max_errors must be 0 to 1, got {self.max_errors}")
        _check(self.slo_p99_ms is None or self.slo_p99_ms > 0, f"slo_p99_ms must be > 0, got {self.slo_p99_ms}")
        _check(min(self.size) >= 8, f"size must be at least 8x8 pixels, got {self.size[0]}x{self.size[1]}")

    @property
    def services(self) -> tuple[Literal["embedder", "search"], ...]:
        """The services that are called under load."""
        called: dict[Target, tuple[Literal["embedder", "search"], ...]] = {
            "embed": ("embedder",),
            "identify": ("embedder", "search"),
        }
        return called.get(self.target, ("search",))


def _check_load(load: Load) -> None:
    if isinstance(load, Open):
        _check(0 < load.rate <= MOST_RATE, f"a rate must be > 0 and <= {MOST_RATE:g} calls/s, got {load.rate:g}")
    else:
        known = 1 <= load.concurrency <= MOST_CONCURRENCY
        _check(known, f"a concurrency must be 1 to {MOST_CONCURRENCY}, got {load.concurrency}")


def _check(fine: bool, problem: str) -> None:
    if not fine:
        raise ValueError(problem)
