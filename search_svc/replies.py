"""Replies: from what was found, and how it voted, to messages."""

from collections.abc import Mapping, Sequence

from vmmr.search.v1 import search_pb2

from search_svc.answer import Answer, VerdictName
from search_svc.labels import Label
from search_svc.searcher import Found
from search_svc.version import IndexVersion
from search_svc.vote import Candidate

_VERDICTS: Mapping[VerdictName | None, search_pb2.Verdict] = {
    None: search_pb2.VERDICT_UNSPECIFIED,
    "known": search_pb2.VERDICT_KNOWN,
    "unsure": search_pb2.VERDICT_UNSURE,
    "unknown": search_pb2.VERDICT_UNKNOWN,
}


class Replies:
    """Writes messages about the gallery of one index version."""

    def __init__(self, version: IndexVersion) -> None:
        self._items = version.items
        # Made once: a reply to a batch of queries holds hundreds.
        self._messages = {label.label: label_message(label) for label in version.items.labels}

    def neighbours(self, found: Found) -> search_pb2.Neighbours:
        return search_pb2.Neighbours(neighbours=self._neighbours(found))

    def classification(self, photos: Sequence[Found], answer: Answer | None) -> search_pb2.Classification:
        """The entry of a car, of which there are one or several photos; an empty one if nothing was found."""
        if answer is None:
            return search_pb2.Classification()
        vote = answer.vote
        first_year, last_year = answer.years or (None, None)
        return search_pb2.Classification(
            answer=self._messages[vote.answer.label],
            make_confidence=answer.make_confidence,
            model_confidence=answer.model_confidence,
            label_confidence=answer.label_confidence,
            makes=self._candidates(vote.makes),
            models=self._candidates(vote.models),
            labels=self._candidates(vote.labels),
            neighbours=self._neighbours(evidence(photos)),
            verdict=_VERDICTS[answer.verdict],
            known_score=answer.known_score,
            first_year=first_year,
            last_year=last_year,
            years_confidence=answer.years_confidence,
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


def evidence(photos: Sequence[Found]) -> Found:
    """The neighbours of several photos of one car, nearest first: each once, with its best score."""
    if len(photos) == 1:
        return photos[0]
    best: dict[int, tuple[float, Label]] = {}
    for found in photos:
        for row, label, score in zip(found.rows, found.labels, found.scores, strict=True):
            if row not in best or score > best[row][0]:
                best[row] = score, label
    rows = sorted(best, key=lambda row: (-best[row][0], row))
    return Found(rows, [best[row][1] for row in rows], [best[row][0] for row in rows])


def label_message(label: Label) -> search_pb2.Label:
    return search_pb2.Label(label=label.label, make=label.make, model=label.model, year=label.year)
