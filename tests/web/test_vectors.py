"""`/v1/detect`, `/v1/embed` and `/v1/search`."""

import base64

import numpy as np
import pytest

from tests.client.conftest import MODEL, car
from tests.web.test_identify import form


def test_cars_are_told_with_their_boxes(door, services):
    services.embedder.cars = {7: [car(0.25, 0.875)], 8: []}
    reply = door.http.post("/v1/detect", files=form(b"7", b"8")).json()
    assert reply["photos"] == [
        [{"box": {"left": 0.25, "top": 0.25, "right": 0.75, "bottom": 0.75}, "score": 0.875}],
        [],
    ]


def test_an_embedding_is_the_question_of_a_search(door, services):
    services.embedder.cars = {}
    embedded = door.http.post("/v1/embed?subject=whole", files=form(b"7", b"8")).json()
    vectors = np.frombuffer(base64.b64decode(embedded["data"]), "<f4").reshape(-1, embedded["dimension"])
    assert (embedded["model"], vectors.tolist()) == (MODEL, [[7, 0, 0, 0], [8, 0, 0, 0]])
    assert [part["image"] for part in embedded["parts"]] == [0, 1]
    found = door.http.post("/v1/search?k=2", json=embedded).json()
    assert [nearest[0]["label"]["label"] for nearest in found["results"]] == ["honda_pilot_2007", "honda_pilot_2008"]
    assert found["provenance"]["index_version"] == "000001"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": MODEL, "dimension": 4, "data": "AAA"}, "body.data"),
        ({"model": MODEL, "dimension": 4, "data": "AAAA"}, "3 bytes are not embeddings of 4"),
        ({"model": MODEL, "data": "AAAA"}, "body.dimension"),
        ([], "body"),
    ],
)
def test_embeddings_that_are_none_are_refused(door, body, says):
    reply = door.http.post("/v1/search", json=body)
    assert (reply.status_code, reply.json()["reason"]) == (400, "INVALID_REQUEST")
    assert says in reply.json()["detail"]


def test_embeddings_of_another_model_are_refused_as_the_service_does(door, services, fail):
    services.search.script.then(fail("MODEL_MISMATCH", metadata={"expected": "cd"}))
    reply = door.http.post("/v1/search", json={"model": "cd", "dimension": 1, "data": "AAAAAA=="})
    problem = reply.json()
    assert (reply.status_code, problem["reason"], problem["grpc_status"]) == (
        409,
        "MODEL_MISMATCH",
        "FAILED_PRECONDITION",
    )
    assert problem["metadata"] == {"expected": "cd"}
