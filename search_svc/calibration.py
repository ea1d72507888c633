"""The calibration of an index version: what its votes are worth, as photos held out of its gallery showed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    photos: int
    """That it was fitted on."""
    false_alarm_rate: float
    """Share of photos of known cars that the threshold calls unknown."""
    unknown_threshold: float
    """Of the known score of one photo: below it, the car is none of the gallery's."""
