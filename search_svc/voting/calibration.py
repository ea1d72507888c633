"""The calibration of an index version: how votes become confidences and verdicts, fitted to photos held out of the gallery.

`calibration.json` holds the fields of Calibration. `search_svc.fitting.fit` fits them, `search_svc.voting.answer` applies them.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vmmr.label_names import canonical

from search_svc.voting.vote import LEVELS, Weighting
from svckit import strict_json
from svckit.artifact import ArtifactError, atomic_write

_CONFIDENCE_SLOPES, _KNOWN_SLOPES = (3,), (2, 4)
"""The numbers of features in Evidence's `confidence_features` and `known_features`; older calibrations have fewer."""

LARGEST_LOGIT = 30.0
"""Logits are cut off here, where a chance is 1 for all purposes, so that exp cannot overflow."""


@dataclass(frozen=True)
class LogisticModel:
    """Gives the logit of a probability: an intercept, and a slope for each feature."""

    intercept: float
    slopes: tuple[float, ...]

    def logit(self, features: Sequence[float]) -> float:
        return math.fsum([self.intercept, *(slope * x for slope, x in zip(self.slopes, features, strict=True))])


@dataclass(frozen=True)
class Ece:
    """The expected calibration error of single photos, before and after calibration."""

    before: float
    """The error of the shares of the vote."""
    after: float
    """The error of the confidences, cross-validated: each fifth of the labels by a fit on the other four fifths."""


@dataclass(frozen=True)
class Strangers:
    """How well unknown cars are told from known ones: held-out photos whose own label the gallery is taken to lack.

    It is cross-validated: each fifth of the labels by a fit on the other four fifths.
    """

    auroc: float
    """The chance that a known car has a higher known score than an unknown one."""
    called_unknown: float
    """The share of unknown cars that get the verdict `unknown`."""


@dataclass(frozen=True)
class Calibration:
    photos: int
    """How many photos it was fitted on."""
    k: int
    """How many neighbours of a photo voted when it was fitted."""
    temperature: float
    prior: float
    """The exponent of the class size: see search_svc.voting.vote.Weighting."""
    levels: Mapping[str, LogisticModel]
    """For each of LEVELS, the chance that the answer is right, from the evidence's `confidence_features`."""
    known: LogisticModel
    """The known score, from the evidence's `known_features`."""
    known_offsets: tuple[float, ...]
    """Added to the logit of the known score of 1, 2, 3 ... fused photos, so that one threshold serves all."""
    false_alarm_rate: float
    """The share of photos of known cars that the threshold is to call unknown, of those in which a car is found."""
    unknown_threshold: float
    """A car whose known score is below this is called unknown."""
    year_ratio: float
    """A year next to the range joins it if its share is at least this much of the share of the answer's year."""
    year_photos: int
    """How many photos `year_ratio` was fitted on; 0 if it is the default."""
    typical: Mapping[str, float]
    """The score that photos of a label typically have with each other, by label."""
    errors: Mapping[str, Ece]
    """The calibration errors, by level."""
    mean_weight: float = 0.0
    """What the means of labels add to scores: see search_svc.voting.vote.Weighting. 0 in older calibrations."""

    strangers: Strangers | None = None
    """How well unknown cars are told; None if there were too few photos to say, and in older calibrations."""
    nearest: tuple[float, ...] = ()
    """The deciles, nine, of the similarity of a photo with its nearest photo of the gallery; empty in older calibrations."""

    def weighting(self, temperature: float) -> Weighting:
        return Weighting(temperature, self.prior, self.mean_weight)

    def write(self, path: Path) -> None:
        atomic_write(path, f"{json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)}\n".encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a calibration. Raises ArtifactError, naming the file and the reason, if the file does not hold one."""
        try:
            fields = _LATER | strict_json.loads(path.read_bytes())
            calibration = cls(
                **{field.name: _READERS[field.name](fields[field.name]) for field in dataclasses.fields(cls)}
            )
            _check(calibration)
        except OSError as error:
            raise ArtifactError(path, error.strerror or str(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"no calibration: {type(error).__name__}: {error}"
            raise ArtifactError(path, reason) from error
        return calibration


_LATER = {"mean_weight": 0.0, "strangers": None, "nearest": ()}
"""Values of fields that older calibrations do not have."""


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -LARGEST_LOGIT), LARGEST_LOGIT)))


def _check(calibration: Calibration) -> None:
    if calibration.k < 1 or not calibration.temperature > 0:
        raise ValueError(f"k must be >= 1 and temperature > 0, got {calibration.k} and {calibration.temperature}")
    if not calibration.known_offsets:
        raise ValueError("known_offsets is empty")
    if len(calibration.nearest) not in (0, 9) or list(calibration.nearest) != sorted(calibration.nearest):
        raise ValueError(f"nearest must be nine deciles in ascending order, got {calibration.nearest}")
    for line in calibration.levels.values():
        _check_slopes("levels", line, _CONFIDENCE_SLOPES)
    _check_slopes("known", calibration.known, _KNOWN_SLOPES)


def _check_slopes(name: str, line: LogisticModel, slopes: Sequence[int]) -> None:
    if len(line.slopes) not in slopes:
        raise ValueError(f"{name} must have {' or '.join(map(str, slopes))} slopes, got {len(line.slopes)}")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a number, got {value!r}")
    return float(value)


def _count(value: Any) -> int:
    if _number(value) != int(value) or value < 0:
        raise ValueError(f"must be a number of photos, got {value!r}")
    return int(value)


def _line(fields: Any) -> LogisticModel:
    return LogisticModel(_number(fields["intercept"]), tuple(map(_number, fields["slopes"])))


def _error(fields: Any) -> Ece:
    return Ece(_number(fields["before"]), _number(fields["after"]))


def _strangers(fields: Any) -> Strangers:
    return Strangers(_number(fields["auroc"]), _number(fields["called_unknown"]))


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("photos", "k", "year_photos"), _count),
    **dict.fromkeys(
        ("temperature", "prior", "mean_weight", "false_alarm_rate", "unknown_threshold", "year_ratio"), _number
    ),
    "levels": lambda by_level: {level: _line(by_level[level]) for level in LEVELS},
    "known": _line,
    "known_offsets": lambda numbers: tuple(map(_number, numbers)),
    "strangers": lambda fields: None if fields is None else _strangers(fields),
    "nearest": lambda numbers: tuple(map(_number, numbers)),
    "typical": lambda by_label: {canonical(label): _number(value) for label, value in by_label.items()},
    "errors": lambda by_level: {level: _error(fields) for level, fields in by_level.items()},
}
