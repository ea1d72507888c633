"""The answer: from the neighbours of the photos of one car to what it is, how surely, and whether the gallery knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search_svc.searcher import Found
from search_svc.version import IndexVersion
from search_svc.vote import Vote, vote

VerdictName = Literal["known", "unsure", "unknown"]


@dataclass(frozen=True)
class Answer:
    """What a car is. All that is calibrated is fitted on photos held out of the gallery."""

    vote: Vote
    """Its confidences are shares of the vote, never calibrated."""
    make_confidence: float
    """Calibrated if the index is, else the vote's share: 0 <= label <= model <= make <= 1."""
    model_confidence: float
    label_confidence: float
    verdict: VerdictName | None
    """None if the index is not calibrated."""
    known_score: float | None
    """Higher: more surely a car of the gallery. Below the calibration's threshold the verdict is unknown."""
    years: tuple[int, int] | None
    """First and last of the years that the gallery cannot tell apart; equal where it can; None without a year."""
    years_confidence: float
    """Of the range: label_confidence <= years_confidence <= model_confidence."""


class Answerer:
    """Answers from the gallery of one index version."""

    def __init__(self, version: IndexVersion) -> None:
        self._temperature = version.manifest.temperature

    def answer(self, found: Sequence[Found], min_confidence: float = 0.0) -> Answer | None:  # noqa: ARG002 - the verdict is to come
        """What one car is, from the neighbours of each photo of it; None if nothing was found."""
        result = vote(
            [score for each in found for score in each.scores],
            [label for each in found for label in each.labels],
            self._temperature,
        )
        if result is None:
            return None
        year = result.answer.year
        return Answer(
            result,
            min(result.make_confidence, 1.0),
            min(result.model_confidence, 1.0),
            min(result.label_confidence, 1.0),
            None,
            None,
            None if year is None else (year, year),
            min(result.label_confidence, 1.0),
        )

    def known_scores(self, found: Sequence[Found]) -> dict[str, float]:
        """Scores of how surely the car is one of the gallery's, by name, higher is surer: for the evaluation to compare.

        Empty if nothing was found.
        """
        scores = [each.scores[-1] for each in found if each.scores]
        return {"k-th similarity": sum(scores) / len(scores)} if scores else {}
