import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from search_svc.dataset import photo_list as manifest
from search_svc.evaluation.accuracy import outcomes, recalls
from search_svc.evaluation.examiner import ExaminedPhoto
from search_svc.evaluation.report.assembly import assemble
from search_svc.voting.answer import Answer, Answerer
from search_svc.voting.labels import parse
from search_svc.voting.neighbours import QueryNeighbours
from search_svc.voting.vote import elect
from svckit.artifact import write_manifest


def _examined(
    truth, *neighbours, item="photo.jpg", known=True, confidence=None, verdict=None, score=None, years=None, rows=None
):
    """Return an examined photo with these neighbours, all equally near; calibrated if a confidence is given."""
    labels = [parse(name) for name in neighbours]
    found = QueryNeighbours(list(rows or range(len(labels))), labels, [1.0] * len(labels))
    answer = None
    if voted := elect([(label, 1.0) for label in labels]):
        year = voted.answer.year
        shares = (voted.make_confidence, voted.model_confidence, voted.label_confidence)
        given = shares if confidence is None else (confidence,) * 3
        years = years or (year and (year, year))
        answer = Answer(voted, *given, verdict, score, years, given[2])
    right = outcomes(parse(truth), labels, answer) if known else {}
    recall = recalls(parse(truth), labels) if known else {}
    scores = {}
    if labels:
        scores = {"k-th similarity": 0.5} if score is None else {"k-th similarity": score / 2, "combined": score}
    return ExaminedPhoto(item, parse(truth), known, False, found, answer, scores, right, recall)


@pytest.fixture
def examined():
    return _examined


@pytest.fixture
def version(build_index):
    """An index of ten photos."""
    names = ["audi_a4_2011", "audi_a4_2012", "bmw_m3_2012", "misc"]
    return build_index(np.eye(10, dtype=np.float32), names=[names[row % 4] for row in range(10)])


@pytest.fixture
def assembled(version):
    """Assemble the report on some photos, of an index that is calibrated or not."""

    def made(photos, not_cars=(), *, calibrated=False):
        fitted = (
            SimpleNamespace(photos=77, false_alarm_rate=0.05, unknown_threshold=0.4, strangers=None)
            if calibrated
            else None
        )
        answerer = Answerer(version)
        return assemble(dataclasses.replace(version, calibration=fitted), lambda _: answerer, "test", photos, not_cars)

    return made


@pytest.fixture
def write_embeddings():
    def written(directory, matrix, photos, model_name="test"):
        directory.mkdir()
        np.save(directory / "embeddings.npy", matrix.astype(np.float32))
        manifest.write(directory / "items.csv", photos)
        count, dimension = matrix.shape
        fields = {"kind": "embeddings", "model": "m" * 64, "model_name": model_name, "normalized": True}
        write_manifest(directory, fields | {"count": count, "dimension": dimension})

    return written
