"""Record what one process sees of one step, in histograms and counts that can be added up over processes.

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
    # The histogram silently leaves out values that are out of its range.
    into.record_value(min(max(round(1e6 * seconds), 0), LONGEST_US))


@dataclass
class Second:
    """The calls that ended in one second of a step, warm-up included."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    worst_ms: float = 0.0
    """The longest latency of an answered call."""

    def add(self, other: "Second") -> None:
        self.answered += other.answered
        self.refused += other.refused
        self.failed += other.failed
        self.worst_ms = max(self.worst_ms, other.worst_ms)


@dataclass
class Record:
    """The calls that should have started while the step was measured. Histograms are encoded between processes."""

    latency: HdrHistogram = field(default_factory=histogram)
    """Times of answered calls, from when they should have started."""
    service: HdrHistogram = field(default_factory=histogram)
    """Times of answered calls, from when they really started: what a closed loop would have seen."""
    refusal: HdrHistogram = field(default_factory=histogram)
    """Times of refused calls, from when they really started."""
    lag: HdrHistogram = field(default_factory=histogram)
    """How late calls started."""
    loop_lag: HdrHistogram = field(default_factory=histogram)
    """How late the event loop was."""
    stages: dict[str, HdrHistogram] = field(default_factory=dict)
    """Times of the stages of answered calls, by name."""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts of failed calls, by code and reason."""
    messages: dict[tuple[str, str], str] = field(default_factory=dict)
    """The message of the first failure of each kind."""
    refusals: set[tuple[str, str]] = field(default_factory=set)
    """The kinds of failures that are refusals."""
    refused: int = 0
    """How many calls were refused."""
    unsent: int = 0
    """Calls that should have started, and never did."""
    abandoned: int = 0
    """Calls that were under way when the step was stopped."""
    within_slo: int = 0
    done: int = 0
    """Calls that were answered while the step was measured, whenever they started: what the service got done."""
    done_within_slo: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    """Bytes of the messages of answered calls (so is `bytes_sent`), without what gRPC, HTTP/2 and TLS add."""
    window_s: float = 0.0
    """Seconds that were measured: less than planned if the step was stopped or used up its calls."""
    calls: int = 0
    """Calls made in all, warm-up included."""
    cpu_shares: list[float] = field(default_factory=list)
    """The CPU seconds a second that each process used."""
    seconds: dict[int, Second] = field(default_factory=dict)
    """What happened in each second, counted from the beginning of the step."""

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
        """Add what another process recorded of the same step."""
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
