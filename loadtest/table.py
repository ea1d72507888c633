"""Show a result as text, for a terminal."""

from collections.abc import Iterator, Sequence

from loadtest.knee import KNEE
from loadtest.result import Border, Distribution, Knee, Result, Step

LEAST = {"p99": 100, "p99.9": 1000}
"""How many calls a percentile needs: with fewer it would be the slowest call."""
BUSY = 0.9
"""The share of busy cores from which a machine counts as full."""
ABSENT = "-"
_MESSAGE = 100
"""How many characters of an error's message are shown; --json has all."""
THINGS = {"embed": "photos", "search": "queries", "classify": "queries", "identify": "photos"}


def table(result: Result) -> str:
    parts = [head(result), _steps(result), _stages(result), _errors(result), list(_doubts(result)), verdict(result)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def head(result: Result) -> list[str]:
    """Return lines that say what was tested, and how."""
    plan, sends = result.plan, result.sends
    lines = [f"vmmr loadtest {plan['target']}, {result.made}"]
    if model := result.served.get("model"):
        lines.append(
            f"  embedder  {plan['access']['embedder']}: {model['name']} ({model['precision']}, {model['provider']})"
        )
    if index := result.served.get("index"):
        shown = f"index {index['version']}, {index['items']} photos of {index['labels']} labels, {index['factory']}"
        lines.append(f"  search    {plan['access']['search']}: {shown}")
    lines.append(
        f"  sent      {sends['source']}, {plan['batch']} a call, {sends['mean_bytes'] / 1000:.1f} kB a request"
    )
    lines.append(
        f"  measured  {plan['duration_s']:g} s a step, after {plan['warmup_s']:g} s of warm-up;"
        f" {plan['arrivals']} arrivals; {plan['processes']} processes x {plan['connections']} connections"
    )
    machine = result.machine
    lines.append(f"  from      {machine['cores']} cores of {machine['cpu']}, {machine['system']}")
    return lines


def cells(step: Step, *, things: str | None, slo: bool) -> dict[str, str]:
    """Return the figures of a step by heading, as they are shown. `things`: the heading of photos or queries a second."""
    latency = step.latency
    shown = {
        "LOAD": step.name,
        "CALLS": str(step.calls),
        "ANSWERED/s": f"{step.answered_per_s:.1f}",
    }
    if things:
        shown[things] = f"{step.things_per_s:.1f}"
    shown |= {
        "p50 ms": _ms(latency.p50_ms if latency else None),
        "p90": _ms(latency.p90_ms if latency else None),
        "p99": percentile(latency, "p99"),
        "p99.9": percentile(latency, "p99.9"),
        "max": _ms(latency.max_ms if latency else None),
    }
    if slo:
        shown["IN SLO"] = _percent(step.within_slo)
    shown |= {
        "REFUSED": _share(step.refused, step.calls),
        "FAILED": _share(step.failed + step.unsent, step.calls),
        "": "!" if step.generator.limited_by else "",
    }
    return shown


def percentile(latency: Distribution | None, name: str) -> str:
    if latency is None or latency.count < LEAST[name]:
        return ABSENT
    return _ms(latency.p99_ms if name == "p99" else latency.p999_ms)


def rows(result: Result) -> list[list[str]]:
    """Return the heading, then a row for each step; nothing if there are no steps."""
    plan = result.plan
    things = f"{THINGS[plan['target']]}/s".upper().replace("/S", "/s") if plan["batch"] > 1 else None
    slo = plan["slo_p99_ms"] is not None
    found = [cells(step, things=things, slo=slo) for step in in_order(result.steps)]
    return [list(found[0]), *(list(row.values()) for row in found)] if found else []


def _steps(result: Result) -> list[str]:
    return aligned(found) if (found := rows(result)) else ["nothing was measured"]


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Return the steps by mode and load, since a search for the knee tries them in another order."""
    return sorted(steps, key=lambda step: (step.mode, step.load))


def stage_names(steps: Sequence[Step]) -> list[str]:
    return list(dict.fromkeys(name for step in steps for name in step.stages))


def _stages(result: Result) -> list[str]:
    """Return lines that show where the time went: median and p99 of each stage."""
    steps = [step for step in in_order(result.steps) if step.latency]
    names = stage_names(steps)
    if not names:
        return []
    rows = [[step.name, *(both(step.stages.get(name)) for name in names), both(step.service)] for step in steps]
    title = "where the time of a call went, p50/p99 in ms, from when it really started"
    if result.plan["target"] == "identify":
        title += "; e.: the embedder, s.: the search service"
    return [title, *aligned([["LOAD", *names, "whole call"], *rows])]


def both(stage: Distribution | None) -> str:
    return f"{_ms(stage.p50_ms)}/{_ms(stage.p99_ms)}" if stage else ABSENT


def _errors(result: Result) -> list[str]:
    found = error_rows(in_order(result.steps))
    heading = ["LOAD", "CALLS", "CODE", "REASON", "p50/p99 ms", "FIRST MESSAGE"]
    return ["not answered; refusals with how long they took", *aligned([heading, *found], left=2)] if found else []


def error_rows(steps: Sequence[Step]) -> list[list[str]]:
    return [
        [
            step.name,
            str(each.count),
            each.code,
            each.reason or ABSENT,
            both(step.refusal) if each.refused else ABSENT,
            " ".join(each.message.split())[:_MESSAGE],
        ]
        for step in steps
        for each in step.errors
    ]


def _doubts(result: Result) -> Iterator[str]:
    """Yield warnings if the generator was a limit, since such figures are worse than none."""
    if not result.doubts:
        return
    yield "! THE GENERATOR, OR THIS MACHINE, WAS A LIMIT. These figures are not the service's alone:"
    yield from (f"!   {line}" for line in doubts(result))
    yield f"! {advice(result)}"


def doubts(result: Result) -> list[str]:
    """Return a line for each step that the generator limited."""
    steps = [step for step in in_order(result.steps) if step.generator.limited_by]
    return [f"{step.name}: {'; '.join(step.generator.limited_by)}" for step in steps]


def advice(result: Result) -> str:
    if any(_busy(step) for step in result.steps if step.generator.limited_by):
        return "Run the generator on a machine of its own: all cores of this one were busy."
    return "Give more --processes."


def _busy(step: Step) -> bool:
    return step.generator.machine_busy is not None and step.generator.machine_busy >= BUSY


def verdict(result: Result) -> list[str]:
    lines = []
    if result.knee:
        lines += knee_lines(result.knee, result.plan["slo_p99_ms"])
    if result.ended_early:
        lines.append(f"ended early: {result.ended_early}")
    lines += notes(result)
    lines += [f"NOT MET: {failure}" for failure in result.failures]
    if result.unproven:
        lines.append("UNPROVEN: whether the SLO is met, since the generator was a limit")
    elif result.plan["slo_p99_ms"] is not None and not result.failures and not result.knee and result.steps:
        lines.append(f"met: 99 % of calls were answered within {result.plan['slo_p99_ms']:g} ms")
    return lines


def notes(result: Result) -> list[str]:
    """Return remarks on the whole result."""
    found = []
    least = min((step.calls for step in result.steps if step.mode == "open"), default=LEAST["p99"])
    if least < LEAST["p99"]:
        found.append(
            f"note: a step has as few as {least} calls, and a p99 needs {LEAST['p99']} at least: give a longer --duration"
        )
    busy = sum(map(_busy, result.steps))
    if busy:
        found.append(
            f"note: in {busy} of {len(result.steps)} steps all cores of this machine were busy: a service that runs here, too,"
            " had what the generator and others left it"
        )
    return found


def knee_lines(found: Knee, slo_p99_ms: float | None) -> list[str]:
    lines = [f"knee, with a p99 of at most {KNEE:g} times that of the lowest rate: {_border(found.knee)}"]
    if found.slo:
        lines.append(f"highest rate with 99 % of calls answered within {slo_p99_ms:g} ms: {_border(found.slo)}")
    return lines


def _border(border: Border) -> str:
    if border.rate is None:
        return f"none; {border.fails_at:.4g}/s, the lowest that was tried, is too much"
    rate = f"{border.rate:.4g} calls/s, p99 {_ms(border.p99_ms)} ms"
    if border.fails_at is None:
        return f"at least {rate}; nothing that was tried is too much"
    doubt = " (but the generator was a limit there)" if border.generator_limited else ""
    return f"{rate}; {border.fails_at:.4g}/s is too much{doubt}"


def aligned(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Return the rows as aligned lines. The first column, and those from `left` on, are aligned left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 or (left and column >= left) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _ms(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _share(part: int, whole: int) -> str:
    return "0" if not part else f"{part} ({part / max(whole, 1):.1%})"


def _percent(share: float | None) -> str:
    # Rounded down: 99.996 % is not all.
    return ABSENT if share is None else f"{int(1e4 * share) / 100:.2f}%"
