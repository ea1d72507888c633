"""What the page of an answer shows, in words and numbers: pure, of an identification alone."""

import re
from dataclasses import dataclass

import vmmr

from web.pages.texts import T

_MOST_CANDIDATES = 5
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
"""The id of an item that was given none."""
_SHOWN_OF_CHECKSUM = 12


@dataclass(frozen=True)
class Level:
    """A level of make > model > years, and how sure it is."""

    name: str
    text: str
    confidence: float


@dataclass(frozen=True)
class Near:
    """A neighbour."""

    item_id: str
    label: str
    words: str
    score: float
    share: float
    """The share of its label in the vote."""


@dataclass(frozen=True)
class Candidate:
    words: str
    label: str
    share: float


@dataclass(frozen=True)
class AnswerView:
    heading: str
    notes: list[str]
    """What must be known to read it."""
    known: bool
    """Whether the levels are the answer, and not only what is nearest."""
    levels: list[Level]
    neighbours: list[Near]
    candidates: list[Candidate]
    times: list[tuple[str, float]]


def view(found: vmmr.Identification) -> AnswerView:
    return AnswerView(
        heading=_heading(found),
        notes=_notes(found),
        known=found.answer is not None and found.verdict != "unknown",
        levels=_levels(found),
        neighbours=_neighbours(found),
        candidates=[
            _candidate(each)
            for each in found.labels[:_MOST_CANDIDATES]
            if each.label and not _is_answered(each.label, found)
        ],
        times=_times(found.times),
    )


def _heading(found: vmmr.Identification) -> str:
    if found.no_car_found:
        return T.no_car
    if found.answer is None:
        return T.nothing
    if found.verdict == "unknown":
        return T.unknown
    car = " ".join(filter(None, (found.answer.make, found.answer.model, _years(found)))) or found.answer.label
    return T.unsure.format(car=car) if found.verdict == "unsure" else car


def _notes(found: vmmr.Identification) -> list[str]:
    notes = []
    if found.no_car_found:
        notes.append(T.no_car_why)
    elif found.answer is None:
        notes.append(T.nothing_why)
    elif found.verdict == "unknown":
        notes.append(T.unknown_why)
    elif found.verdict is None:
        notes.append(T.not_calibrated)
    if (of := found.provenance).partial:
        notes.append(T.partial.format(answered=of.shards_answered, total=of.shards_total))
    return notes


def _levels(found: vmmr.Identification) -> list[Level]:
    if found.answer is None:
        return []
    return [
        Level(T.make, found.answer.make or T.no_part, found.make_confidence),
        Level(T.model, found.answer.model or T.no_part, found.model_confidence),
        Level(T.years, _years(found) or T.no_year, found.years_confidence),
    ]


def _years(found: vmmr.Identification) -> str:
    if found.years is None:
        return ""
    first, last = found.years
    return str(first) if first == last else f"{first} to {last}"


def _neighbours(found: vmmr.Identification) -> list[Near]:
    shares = {each.label.label: each.confidence for each in found.labels if each.label}
    return [
        Near(near.item_id, near.label.label, str(near.label), near.score, shares.get(near.label.label, 0.0))
        for near in found.neighbours
    ]


def _is_answered(label: vmmr.Label, found: vmmr.Identification) -> bool:
    """Return whether a label is the answer, or one of the years that the answer is a range of."""
    answer = found.answer
    if answer is None or found.verdict == "unknown" or found.no_car_found:
        return False
    if found.years is None or label.year is None:
        return label.label == answer.label
    first, last = found.years
    return (label.make, label.model) == (answer.make, answer.model) and first <= label.year <= last


def item_name(item_id: str, uri: str = "") -> str:
    """Return what an item is called for people: the end of its uri, or its id, of a checksum the beginning alone."""
    if name := uri.rstrip("/").rpartition("/")[2]:
        return name
    return f"{item_id[:_SHOWN_OF_CHECKSUM]}…" if _CHECKSUM.fullmatch(item_id) else item_id


def _candidate(candidate: vmmr.Candidate) -> Candidate:
    assert candidate.label is not None
    return Candidate(str(candidate.label), candidate.label.label, candidate.confidence)


def _times(times: vmmr.Times) -> list[tuple[str, float]]:
    embed, search = times.embed, times.search
    return [
        (T.time_decode, embed.decode_ms),
        (T.time_detect, embed.detect_ms),
        (T.time_embed, embed.queue_ms + embed.infer_ms),
        (T.time_search, search.queue_ms + search.search_ms + search.vote_ms),
        (T.time_all, times.round_trip_ms),
    ]
