"""What the verdict `unknown` is worth, told to people where it is worth little."""

from search_svc.voting.calibration import Calibration

_WORTH_SOMETHING = 0.9
"""The AUROC of unknown against known cars below which the verdict is worth little."""
_REMEDY = "more labels, and more photos of them, help"


def warning(fitted: Calibration | None) -> str:
    """Return a warning if the verdict of an index is worth little as measured when it was built, or was not measured; else nothing."""
    if fitted is None:
        return ""
    if fitted.strangers is None:
        return f"warning: what the verdict `unknown` is worth was not measured, for there were too few dev photos: {_REMEDY}"
    return little(fitted.strangers.auroc, fitted.strangers.called_unknown, "dev photos without their own label")


def little(auroc: float, called_unknown: float, photos: str) -> str:
    """Return a warning if the verdict is worth little by these figures of photos of unknown cars; else nothing."""
    if auroc >= _WORTH_SOMETHING:
        return ""
    measured = (
        f"of {photos}, AUROC {auroc:.2f}, {called_unknown:.0%} of them called unknown, the others pass for known cars"
    )
    return f"warning: the verdict `unknown` is worth little here: {measured}; {_REMEDY}"
