"""What one process has seen of one step, or several processes together: histograms and counts that can be added up.

Latencies are kept in HdrHistograms (Gil Tene): microseconds to an hour, three significant digits, in constant memory.
"""

from collections import Counter
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

from loadtest.failures import Failure

LONGEST_US = 3_600_000_000
DIGITS = 3


def histogram() -> HdrHistogram:
    return HdrHistogram(1, LONGEST_US, DIGITS)


def record(into: HdrHistogram, seconds: float) -> None:
    # A value out of range would be left out in silence.
    into.record_value(min(max(round(1e6 * seconds), 0), LONGEST_US))


@dataclass
class Second:
    """One second of a step, warm-up included, by when calls ended."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    worst_ms: float = 0.0
    """Of the answered."""

    def add(self, other: "Second") -> None:
        self.answered += other.answered
        self.refused += other.refused
        self.failed += other.failed
        self.worst_ms = max(self.worst_ms, other.worst_ms)


@dataclass
class Record:
    """Calls that were to start within the window that is measured. Histograms are encoded while they travel."""

    latency: HdrHistogram = field(default_factory=histogram)
    """Of answered calls, from when they were to start."""
    service: HdrHistogram = field(default_factory=histogram)
    """Of the same, from when they really started: what a closed loop would have seen."""
    refusal: HdrHistogram = field(default_factory=histogram)
    """Of refused calls, from when they really started."""
    lag: HdrHistogram = field(default_factory=histogram)
    """How late calls started."""
    loop_lag: HdrHistogram = field(default_factory=histogram)
    """How late the event loop was with what it had to do."""
    stages: dict[str, HdrHistogram] = field(default_factory=dict)
    """Of answered calls, by name."""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By code and reason."""
    messages: dict[tuple[str, str], str] = field(default_factory=dict)
    """Of the first failure of each kind."""
    refusals: set[tuple[str, str]] = field(default_factory=set)
    """The failures that are refusals."""
    refused: int = 0
    """How many those are."""
    unsent: int = 0
    """Were to start, and never did."""
    abandoned: int = 0
    """Were under way when the step was stopped."""
    within_slo: int = 0
    done: int = 0
    """Answered within the window, whenever they started: what the service got done."""
    done_within_slo: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    """Of answered calls: messages, without what gRPC, HTTP/2 and TLS add."""
    window_s: float = 0.0
    """How long was measured: less than planned, if it was stopped or had used up its calls."""
    calls: int = 0
    """Made in all, warm-up included."""
    cpu_shares: list[float] = field(default_factory=list)
    """Of each process: CPU seconds a second."""
    seconds: dict[int, Second] = field(default_factory=dict)
    """By whole seconds since the step began."""

    def stage(self, name: str, seconds: float) -> None:
        if name not in self.stages:
            self.stages[name] = histogram()
        record(self.stages[name], seconds)

    def fail(self, failure: Failure) -> None:
        kind = (failure.code, failure.reason)
        self.failures[kind] += 1
        self.messages.setdefault(kind, failure.message)
        if failure.is_refusal:
            self.refusals.add(kind)
            self.refused += 1

    def second(self, at_s: float) -> Second:
        return self.seconds.setdefault(int(at_s), Second())

    def add(self, other: "Record") -> None:
        """What another process has seen of the same step."""
        for name in _HISTOGRAMS:
            getattr(self, name).add(getattr(other, name))
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, theirs in other.stages.items():
            self.stages.setdefault(name, histogram()).add(theirs)
        self.failures += other.failures
        self.window_s = max(self.window_s, other.window_s)
        self.refusals |= other.refusals
        self.messages = other.messages | self.messages
        self.cpu_shares += other.cpu_shares
        for at, second in other.seconds.items():
            self.seconds.setdefault(at, Second()).add(second)

    def __getstate__(self) -> dict[str, object]:
        encoded = {name: getattr(self, name).encode() for name in _HISTOGRAMS}
        stages = {name: each.encode() for name, each in self.stages.items()}
        return self.__dict__ | encoded | {"stages": stages}

    def __setstate__(self, state: dict[str, object]) -> None:
        decoded = {name: HdrHistogram.decode(state[name]) for name in _HISTOGRAMS}
        stages = {name: HdrHistogram.decode(each) for name, each in state["stages"].items()}  # type: ignore[attr-defined]
        self.__dict__.update(state | decoded | {"stages": stages})


_HISTOGRAMS = ("latency", "service", "refusal", "lag", "loop_lag")
_COUNTS = (
    "refused",
    "unsent",
    "abandoned",
    "within_slo",
    "done",
    "done_within_slo",
    "bytes_sent",
    "bytes_received",
    "calls",
)
