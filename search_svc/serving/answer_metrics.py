"""The metrics of answers: their verdicts, and how near the queries are to the gallery."""

from collections.abc import Sequence

from prometheus_client import Counter, Histogram

from search_svc.serving.query_drift import QueryDrift
from search_svc.voting.answer import Answer, no_car
from search_svc.voting.neighbours import QueryNeighbours, voting
from svckit.metrics import Metrics

_SIMILARITIES = tuple(step / 20 for step in range(21))

Car = Sequence[QueryNeighbours]
"""The neighbours of each photo of one car."""


class AnswerMetrics:
    """Counts the answers of a server. Thread-safe."""

    def __init__(self, metrics: Metrics) -> None:
        self._answers = Counter(
            "vmmr_answers_total", "Cars answered by Classify, by verdict", ("verdict",), registry=metrics.registry
        )
        self._similarity = Histogram(
            "vmmr_query_similarity",
            "Similarity of a query with its nearest photo",
            buckets=_SIMILARITIES,
            registry=metrics.registry,
        )
        self._drift = QueryDrift()
        metrics.gauge(
            "vmmr_query_drift",
            "Population stability index of the similarities of recent queries against those of the dev photos",
            lambda: self._drift.index,
        )

    def count(self, cars: Sequence[Car], answers: Sequence[Answer | None], deciles: tuple[float, ...] | None) -> None:
        """Count the answers of one call.

        `deciles` are those of the gallery's calibration, empty if it has none; None if the queries were not compared with the
        whole gallery, so that their similarities are not comparable.
        """
        for car, answer in zip(cars, answers, strict=True):
            self._answers.labels(_verdict(car, answer)).inc()
        if deciles is None:
            return
        nearest = [photo.scores[0] for car in cars if not no_car(car) for photo in voting(car) if photo.scores]
        for similarity in nearest:
            self._similarity.observe(similarity)
        self._drift.add(nearest, deciles)


def _verdict(car: Car, answer: Answer | None) -> str:
    if no_car(car):
        return "no_car"
    if answer is None:
        return "no_neighbours"
    return answer.verdict or "uncalibrated"
