"""Turn what the processes recorded into the figures of a step."""

import math

from hdrh.histogram import HdrHistogram

from loadtest.plan import Load, Open, Plan
from loadtest.recorder import Record
from loadtest.result import Distribution, Errors, Generator, Second, Step

MET = 0.99
"""The share of all calls that must be answered within the SLO."""
_LATE_MS = 1.0
_LATE_SHARE = 0.1
"""If the generator is later than this share of the p99, and than _LATE_MS, its own delays distort the figures."""
_BUSY = 0.9
"""The share of a core that a process of the generator may use before it counts as a limit: its Python runs on one."""
_Z95 = 1.96


def step(plan: Plan, load: Load, record: Record, machine_busy: float | None) -> Step:
    answered = record.latency.get_total_count()
    failed = record.failures.total()
    calls = answered + failed + record.unsent + record.abandoned
    window = max(record.window_s, 1e-9)
    within = record.within_slo / max(calls - record.abandoned, 1) if plan.slo_p99_ms else None
    latency = distribution(record.latency)
    return Step(
        mode="open" if isinstance(load, Open) else "closed",
        load=load.rate if isinstance(load, Open) else load.concurrency,
        window_s=record.window_s,
        calls=calls,
        answered=answered,
        refused=record.refused,
        failed=failed - record.refused,
        unsent=record.unsent,
        abandoned=record.abandoned,
        answered_per_s=record.done / window,
        things_per_s=plan.batch * record.done / window,
        goodput_per_s=record.done_within_slo / window,
        within_slo=within,
        meets_slo=None if within is None else calls > 0 and within >= MET,
        latency=latency,
        service=distribution(record.service),
        refusal=distribution(record.refusal),
        stages={name: each for name, kept in record.stages.items() if (each := distribution(kept))},
        errors=_errors(record),
        sent_bytes_per_s=record.bytes_sent / window,
        received_bytes_per_s=record.bytes_received / window,
        generator=_generator(record, latency, machine_busy),
        seconds=_seconds(record),
    )


def distribution(kept: HdrHistogram) -> Distribution | None:
    count = kept.get_total_count()
    if not count:
        return None
    at = {percent: 1e-3 * kept.get_value_at_percentile(percent) for percent in (50, 90, 95, 99, 99.9)}
    return Distribution(
        count=count,
        mean_ms=1e-3 * kept.get_mean_value(),
        min_ms=1e-3 * kept.get_min_value(),
        p50_ms=at[50],
        p90_ms=at[90],
        p95_ms=at[95],
        p99_ms=at[99],
        p999_ms=at[99.9],
        max_ms=1e-3 * kept.get_max_value(),
        p99_between_ms=interval(kept, 0.99),
        hdr=kept.encode().decode(),
    )


def interval(kept: HdrHistogram, share: float) -> tuple[float, float]:
    """Return the values in ms between which the percentile lies with 95 % confidence.

    They are order statistics, by the normal approximation of the binomial distribution.
    """
    count = kept.get_total_count()
    middle, away = share * count, _Z95 * math.sqrt(count * share * (1 - share))
    low, high = ((min(max(middle + sign * away, 0), count)) / count for sign in (-1, 1))
    return 1e-3 * kept.get_value_at_percentile(100 * low), 1e-3 * kept.get_value_at_percentile(100 * high)


def _errors(record: Record) -> tuple[Errors, ...]:
    """Return the kinds of failures, the most frequent first."""
    return tuple(
        Errors(code, reason, count, refused=(code, reason) in record.refusals, message=record.messages[code, reason])
        for (code, reason), count in record.failures.most_common()
    )


def _generator(record: Record, latency: Distribution | None, machine_busy: float | None) -> Generator:
    lag, loop_lag = distribution(record.lag), distribution(record.loop_lag)
    return Generator(
        lag=lag,
        loop_lag=loop_lag,
        cpu_shares=tuple(record.cpu_shares),
        machine_busy=machine_busy,
        limited_by=_limits(record, latency, lag, loop_lag),
    )


def _limits(
    record: Record, latency: Distribution | None, lag: Distribution | None, loop_lag: Distribution | None
) -> tuple[str, ...]:
    p99 = latency.p99_ms if latency else 0.0
    most = max(_LATE_MS, _LATE_SHARE * p99)
    reasons = []
    if record.unsent:
        reasons.append(f"calls never made, because their time was over: {record.unsent}")
    if lag and lag.p99_ms > most:
        reasons.append(f"calls started late (p99 {lag.p99_ms:.1f} ms, of a latency of {p99:.1f} ms)")
    if loop_lag and loop_lag.p99_ms > most:
        reasons.append(f"its event loop was late (p99 {loop_lag.p99_ms:.1f} ms, of a latency of {p99:.1f} ms)")
    if record.cpu_shares and max(record.cpu_shares) > _BUSY:
        reasons.append(f"a process of it used {max(record.cpu_shares):.0%} of a core")
    return tuple(reasons)


def _seconds(record: Record) -> tuple[Second, ...]:
    return tuple(
        Second(at, each.answered, each.refused, each.failed, each.worst_ms)
        for at, each in sorted(record.seconds.items())
    )
