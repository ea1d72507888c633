"""The report as text for a terminal: accuracy by level, and the key figures."""

from collections.abc import Iterable, Iterator

from search_svc.evaluation.accuracy import CLASSES, MEASURES, VOTE, Score
from search_svc.evaluation.report.confidence import Confidence
from search_svc.evaluation.report.content import Report
from search_svc.evaluation.resampling import Estimate


def table(report: Report) -> str:
    return "\n".join([*_head(report), "", *_accuracy(report), "", *_figures(report), *_enrolment(report)])


def percent(estimate: Estimate | Score) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate) -> str:
    """Return a difference in percentage points, with its sign."""
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def _head(report: Report) -> Iterator[str]:
    yield f"{report.photos} photos of the split {report.split}, against {report.gallery} of index {report.index_version}"
    yield f"index: {report.factory} ({report.metric}), k {report.k}, temperature {report.temperature:.3g}"
    yield f"model: {report.model_name} ({report.model[:12]})"
    if report.in_gallery:
        yield f"{report.in_gallery} are in the index themselves; each was left out of its own neighbours"
    if report.fitted_on:
        yield "the calibration was fitted on dev photos: what it says of them is a little too good"
    if report.no_car_found:
        yield f"in {report.no_car_found} no car was found: their verdict is unknown, and below they count as all others do"
    if report.unknown_label:
        yield f"{report.unknown_label} more have a label that the index does not have: unknown cars"


def _accuracy(report: Report) -> Iterator[str]:
    cells = {(score.measure, score.level): percent(score) for score in report.scores}
    yield _line("% right [95 % interval]", CLASSES)
    for measure in MEASURES:
        yield _line(measure, [cells.get((measure, level), "-") for level in CLASSES])
    with_car = {(score.measure, score.level): percent(score) for score in report.scores_with_car}
    if with_car:
        yield _line("vote, where a car is", [with_car.get((VOTE, level), "-") for level in CLASSES])
    gains = {gain.level: points(gain.gain) for gain in report.vote_gain}
    yield _line("vote minus nearest", [gains.get(level, "-") for level in CLASSES])


def _line(name: str, cells: Iterable[str]) -> str:
    return f"{name:<24}{''.join(f'{cell:>22}' for cell in cells)}".rstrip()


def _figures(report: Report) -> Iterator[str]:
    recalls = ", ".join(f"@{each.k} {100 * each.recall.value:.1f}" for each in report.recall)
    yield _figure("recall of the label", recalls)
    for level in report.confidence:
        yield _figure(f"ECE, {level.level}", _reliability(level))
    for level in report.confidence[:1]:
        yield _figure(f"AURC, {level.level}", percent(level.aurc))
    if report.false_alarms:
        yield _figure("known, called unknown", percent(report.false_alarms))
    if report.false_alarms_with_car:
        yield _figure("  where a car is", percent(report.false_alarms_with_car))
    yield from _unknown(report)
    for groups in report.fused:
        if groups.level == "label":
            gain = f"{points(groups.gain)} over single, {groups.groups} groups"
            yield _figure(f"{groups.size} photos of one car", f"{percent(groups.fused)}, {gain}")


def _unknown(report: Report) -> Iterator[str]:
    """Yield lines on how well unknown cars are told."""
    if report.calibration and (told := report.calibration.strangers):
        measured = f"AUROC {100 * told.auroc:.1f}, {100 * told.called_unknown:.1f} called unknown"
        yield _figure("unknown, as built", f"{measured}, of dev photos without their own label")
    for kind in report.unknown:
        yield f"{kind.photos} photos of {kind.kind}"
        for score in kind.detectors:
            yield _figure(f"  {score.score}", f"AUROC {percent(score.auroc)}, FPR95 {percent(score.fpr95)}")
        if kind.called_unknown:
            yield _figure("  called unknown", percent(kind.called_unknown))


def _enrolment(report: Report) -> Iterator[str]:
    """Yield a line for each number of photos that were added of new labels."""
    for row in report.enrolment:
        if row is report.enrolment[0]:
            yield from ("", "new labels, % [95 % interval], by photos added of each")
            yield _line(
                "photos, of labels",
                ["label right", "unknown before", "unknown after", "known labels right", "they lose"],
            )
        verdicts = (row.called_unknown_before, row.called_unknown)
        known = percent(row.known_right) if row.known_right else "-"
        lost = points(row.known_lost) if row.known_lost else "-"
        shares = [percent(row.right), *(percent(each) if each else "-" for each in verdicts), known, lost]
        yield _line(f"{row.enrolled}, {row.photos} of {row.labels}", shares)


def _reliability(level: Confidence) -> str:
    if not level.calibrated:
        return f"of the shares {percent(level.shares.ece)}"
    found, shares = level.calibrated, percent(level.shares.ece)
    return f"{percent(found.ece)}; of the shares {shares}; by chance alone {100 * found.by_chance.value:.1f}"


def _figure(name: str, text: str) -> str:
    return f"{name:<24}  {text}"
