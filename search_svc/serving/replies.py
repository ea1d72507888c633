"""Writes replies: from neighbours and answers to messages."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from vmmr.search.v1 import search_pb2

from search_svc.index.version import IndexVersion
from search_svc.live.view import View
from search_svc.voting.answer import Answer, VerdictName, no_car
from search_svc.voting.labels import Label
from search_svc.voting.neighbours import QueryNeighbours, voting
from search_svc.voting.vote import Candidate

_VERDICTS: Mapping[VerdictName | None, search_pb2.Verdict] = {
    None: search_pb2.VERDICT_UNSPECIFIED,
    "known": search_pb2.VERDICT_KNOWN,
    "unsure": search_pb2.VERDICT_UNSURE,
    "unknown": search_pb2.VERDICT_UNKNOWN,
}


Similarities = dict[str, tuple[float, float]]
"""Label -> the highest score of its photos, and the highest cosine of a query with their mean."""


class Replies:
    """Writes replies from one gallery."""

    def __init__(self, gallery: IndexVersion | View, messages: dict[str, search_pb2.Label] | None = None) -> None:
        """`messages` are the messages of labels, which all views of a version share; those of new labels are added to it."""
        self._items = gallery.items
        # Each message is made once: a reply to a batch of queries holds hundreds of labels.
        self._messages = {} if messages is None else messages
        for label in gallery.items.labels[len(self._messages) :]:
            self._messages[label.label] = label_message(label)

    def search(self, found: Sequence[QueryNeighbours]) -> search_pb2.SearchResponse:
        """Return a reply with a result for each query."""
        reply = search_pb2.SearchResponse()
        for each, names in zip(found, self._names(found), strict=True):
            self._add_neighbours(reply.results.add().neighbours, each, names)
        return reply

    def classify(
        self, cars: Sequence[Sequence[QueryNeighbours]], answers: Sequence[Answer | None]
    ) -> search_pb2.ClassifyResponse:
        """Return a reply with a result for each car, of which there are one or several photos.

        The result of a car for which nothing was found is empty, but for whether there was a car to be found.
        """
        reply = search_pb2.ClassifyResponse()
        neighbours = [merge_neighbours(voting(photos)) for photos in cars]
        for photos, answer, each, names in zip(cars, answers, neighbours, self._names(neighbours), strict=True):
            result = reply.results.add()
            if answer is not None:
                self._set_answer(result, answer, _similarities(voting(photos)))
            if no_car(photos):
                result.no_car_found = True
                result.verdict = search_pb2.VERDICT_UNKNOWN
            self._add_neighbours(result.neighbours, each, names)
        return reply

    def _set_answer(self, result: search_pb2.Classification, answer: Answer, similarities: Similarities) -> None:
        vote = answer.vote
        result.answer.CopyFrom(self._messages[vote.answer.label])
        result.make_confidence = answer.make_confidence
        result.model_confidence = answer.model_confidence
        result.label_confidence = answer.label_confidence
        for candidates, voted in (
            (result.makes, vote.makes),
            (result.models, vote.models),
            (result.labels, vote.labels),
        ):
            self._add_candidates(candidates, voted, similarities)
        result.verdict = _VERDICTS[answer.verdict]
        if answer.known_score is not None:
            result.known_score = answer.known_score
        if answer.years is not None:
            result.first_year, result.last_year = answer.years
        result.years_confidence = answer.years_confidence

    def _names(self, found: Sequence[QueryNeighbours]) -> Iterator[Iterator[tuple[str, str]]]:
        """Return the item ids and uris of each entry. They are looked up at once, which costs hardly more than one look-up."""
        names = zip(*self._items.take([row for each in found for row in each.rows]), strict=True)
        return (islice(names, len(each.rows)) for each in found)

    def _add_neighbours(self, neighbours: Any, found: QueryNeighbours, names: Iterator[tuple[str, str]]) -> None:
        # Fields are set in the message in its place: making a message and copying it there takes twice the time.
        for (item_id, uri), label, score in zip(names, found.labels, found.scores, strict=True):
            neighbour = neighbours.add()
            neighbour.item_id = item_id
            neighbour.label.CopyFrom(self._messages[label.label])
            neighbour.uri = uri
            neighbour.score = score

    def _add_candidates(self, candidates: Any, voted: Sequence[Candidate], similarities: Similarities) -> None:
        for each in voted:
            candidate = candidates.add()
            candidate.make = each.make
            candidate.model = each.model
            candidate.confidence = each.confidence
            if each.label is not None:
                candidate.label.CopyFrom(self._messages[each.label.label])
                candidate.nearest_score, candidate.mean_similarity = similarities[each.label.label]


def _similarities(photos: Sequence[QueryNeighbours]) -> Similarities:
    best: Similarities = {}
    for found in photos:
        for label, score, mean in zip(found.labels, found.scores, found.means, strict=True):
            before = best.get(label.label)
            best[label.label] = (max(before[0], score), max(before[1], mean)) if before else (score, mean)
    return best


def merge_neighbours(photos: Sequence[QueryNeighbours]) -> QueryNeighbours:
    """Return the neighbours of several photos of one car, nearest first: each neighbour once, with its best score."""
    if len(photos) == 1:
        return photos[0]
    best: dict[int, tuple[float, Label]] = {}
    for found in photos:
        for row, label, score in zip(found.rows, found.labels, found.scores, strict=True):
            if row not in best or score > best[row][0]:
                best[row] = score, label
    rows = sorted(best, key=lambda row: (-best[row][0], row))
    return QueryNeighbours(rows, [best[row][1] for row in rows], [best[row][0] for row in rows])


def label_message(label: Label) -> search_pb2.Label:
    return search_pb2.Label(label=label.label, make=label.make, model=label.model, year=label.year)
