"""The findings of an audit, and the two lists that it writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from search_svc.audit import copies
from search_svc.audit.copies import Copy
from search_svc.audit.doubts import Doubts
from search_svc.audit.neighbours import NOBODY, Neighbours
from search_svc.dataset.csv_files import text_of
from search_svc.dataset.photo_list import Photo

Kind = Literal["alike", "cars", "copy", "label", "no-car", "odd"]
COLUMNS = ("path", "label", "split", "kind", "score", "other", "other_label", "other_split", "note")

LABEL_SCORE = 0.3
ODD_SCORE = 0.5
"""Photos with these scores or more are listed. docs/audit.md says how many of them are right."""


@dataclass(frozen=True)
class Finding:
    kind: Kind
    score: float
    photo: Photo
    other: Photo | None
    """The other of the two, for kinds `copy` and `alike`; a photo of the likelier label, for `label`; the nearest photo, for `odd`;
    None for the others.
    """
    note: str = ""
    """What else is known of it."""


@dataclass(frozen=True)
class Exclusion:
    path: str
    reason: str


def found(photos: Sequence[Photo], pairs: Iterable[Copy], doubts: Doubts, near: Neighbours) -> list[Finding]:
    """Return the findings, kind by kind, the highest scores first. A photo that is odd is not listed for its label too."""
    findings = [_alike(pair, photos) for pair in pairs]
    for row, photo in enumerate(photos):
        if doubts.odd[row] >= ODD_SCORE:
            nearest = _at(photos, int(near.rows[row, 0]))
            findings.append(Finding("odd", float(doubts.odd[row]), photo, nearest, _car_note(photo)))
        elif doubts.label[row] >= LABEL_SCORE:
            findings.append(Finding("label", float(doubts.label[row]), photo, _at(photos, int(doubts.witness[row]))))
        findings += _by_the_detector(photo)
    return sorted(findings, key=lambda each: (each.kind, -each.score, each.photo.path))


def _alike(pair: Copy, photos: Sequence[Photo]) -> Finding:
    one, other = photos[pair.row], photos[pair.other]
    if pair.same:
        return Finding("copy", pair.alike, one, other, "the pixels agree")
    return Finding("alike", pair.alike, one, other, "the pixels differ in places")


def _car_note(photo: Photo) -> str:
    if photo.cars is None:
        return "nobody looked for a car in it"
    return "a car was found in it" if photo.cars else "no car was found in it"


def _by_the_detector(photo: Photo) -> Iterator[Finding]:
    if photo.no_car_found:
        yield Finding("no-car", 1.0, photo, None)
    if (photo.cars or 0) > 1:
        yield Finding("cars", float(photo.cars or 0), photo, None)


def exclusions(
    photos: Sequence[Photo],
    groups: Iterable[Sequence[int]],
    findings: Iterable[Finding],
    drop: Mapping[Kind, float | None],
) -> list[Exclusion]:
    """Return the photos to exclude, sorted by path: those of the `groups` of copies that are superfluous, and findings with the scores
    in `drop` or more, but for odd pictures that show a car.
    """
    reasons: dict[str, str] = {}
    for group in groups:
        reasons.update((photos[row].path, reason) for row, reason in copies.to_drop(group, photos))
    for each in findings:
        least = drop.get(each.kind)
        if least is not None and each.score >= least and not (each.kind == "odd" and each.photo.cars):
            reasons.setdefault(each.photo.path, _reason(each))
    return [Exclusion(path, reasons[path]) for path in sorted(reasons)]


def findings_csv(findings: Iterable[Finding]) -> bytes:
    return text_of(COLUMNS, map(_row, findings)).encode()


def exclusions_csv(exclusions: Iterable[Exclusion]) -> bytes:
    return text_of(("path", "reason"), ((each.path, each.reason) for each in exclusions)).encode()


def _row(each: Finding) -> Iterator[str]:
    yield from (each.photo.path, each.photo.label.label, each.photo.split, each.kind, f"{each.score:.3f}")
    yield from (each.other.path, each.other.label.label, each.other.split) if each.other else ("", "", "")
    yield each.note


def _reason(each: Finding) -> str:
    if each.kind == "label" and each.other:
        return f"its label looks wrong ({each.score:.2f}): like {each.other.label.label}"
    return f"unlike the others ({each.score:.2f}), {each.note}"


def _at(photos: Sequence[Photo], row: int) -> Photo | None:
    return None if row == NOBODY else photos[row]
