"""Replies: from what was found, and how it voted, to messages."""

from collections.abc import Sequence

from vmmr.search.v1 import search_pb2

from search_svc.labels import Label
from search_svc.searcher import Found
from search_svc.version import IndexVersion
from search_svc.vote import Candidate, Vote


class Replies:
    """Writes messages about the gallery of one index version."""

    def __init__(self, version: IndexVersion) -> None:
        self._items = version.items
        # Made once: a reply to a batch of queries holds hundreds.
        self._messages = {label.label: label_message(label) for label in version.items.labels}

    def neighbours(self, found: Found) -> search_pb2.Neighbours:
        return search_pb2.Neighbours(neighbours=self._neighbours(found))

    def classification(self, found: Found, vote: Vote | None) -> search_pb2.Classification:
        """An entry without an answer if nothing was found."""
        if vote is None:
            return search_pb2.Classification()
        return search_pb2.Classification(
            answer=self._messages[vote.answer.label],
            make_confidence=vote.make_confidence,
            model_confidence=vote.model_confidence,
            label_confidence=vote.label_confidence,
            makes=self._candidates(vote.makes),
            models=self._candidates(vote.models),
            labels=self._candidates(vote.labels),
            neighbours=self._neighbours(found),
        )

    def _neighbours(self, found: Found) -> list[search_pb2.Neighbour]:
        item_ids, uris = self._items.take(found.rows)
        return [
            search_pb2.Neighbour(item_id=item_id, label=self._messages[label.label], uri=uri, score=score)
            for item_id, label, uri, score in zip(item_ids, found.labels, uris, found.scores, strict=True)
        ]

    def _candidates(self, candidates: Sequence[Candidate]) -> list[search_pb2.Candidate]:
        return [
            search_pb2.Candidate(
                make=candidate.make,
                model=candidate.model,
                label=self._messages[candidate.label.label] if candidate.label else None,
                confidence=candidate.confidence,
            )
            for candidate in candidates
        ]


def label_message(label: Label) -> search_pb2.Label:
    return search_pb2.Label(label=label.label, make=label.make, model=label.model, year=label.year)
