"""`/v1/labels` and `/v1/items`."""

import csv
import io
import json

import pytest

from tests.web.test_identify import form
from web.api.tables import table


def add(door, bearer, *photos: bytes, **fields: str):
    return door.http.post("/v1/items", files=form(*photos), data={"label": "kia_rio_2020", **fields}, headers=bearer)


def test_labels_are_told_with_their_counts_and_searched_by_words(door):
    every = door.http.get("/v1/labels").json()["labels"]
    assert [(entry["label"]["label"], entry["items"]) for entry in every] == [
        (f"honda_pilot_200{n}", 10) for n in range(3)
    ]
    found = door.http.get("/v1/labels?q=PILOT 2001").json()["labels"]
    assert [entry["label"]["year"] for entry in found] == [2001]


def test_labels_are_lines_and_rows_too(door):
    lines = [json.loads(line) for line in door.http.get("/v1/labels?format=ndjson").text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(door.http.get("/v1/labels?format=csv").text)))
    assert [line["label"]["label"] for line in lines] == [row["label"] for row in rows]
    assert len(rows) == 3


def test_rows_are_sent_as_they_come(awaited):
    """A gallery may be larger than memory."""
    fetched = []

    async def entries():
        for n in range(9):
            fetched.append(n)
            yield {"n": n, "text": "a\nb"}

    async def sent():
        parts = aiter(table(("n", "text"), entries()).body_iterator)
        assert [await anext(parts), fetched] == ["n,text\r\n", []]
        assert [await anext(parts), fetched] == ['0,"a\nb"\r\n', [0]]

    awaited(sent())


@pytest.mark.parametrize("form_", ["ndjson", "csv"])
@pytest.mark.parametrize("path", ["/v1/labels", "/v1/items"])
def test_what_fails_before_the_first_line_is_a_problem_and_no_empty_list(door, services, fail, path, form_):
    services.search.script.marked[b""] = fail("SHUTTING_DOWN", retry_after_s=3600)
    reply = door.http.get(f"{path}?format={form_}")
    assert (reply.status_code, reply.json()["reason"]) == (503, "SHUTTING_DOWN")


@pytest.mark.parametrize("form_", ["json", "ndjson", "csv"])
def test_labels_are_all_there_or_a_problem_is(door, services, fail, form_):
    """There are few enough of them; the second page fails."""
    services.search.script.then(lambda *_: None, fail("GALLERY_DAMAGED"))
    reply = door.http.get(f"/v1/labels?format={form_}")
    assert (reply.status_code, reply.json()["reason"]) == (502, "GALLERY_DAMAGED")


def test_photos_are_added_and_deleted_by_their_batch(door, bearer):
    reply = add(door, bearer, b"1", b"no photo", b"3").json()
    good, bad, other = reply["photos"]
    assert (good["item"]["label"], other["item"]["batch_id"]) == ("kia_rio_2020", reply["batch_id"])
    assert (bad["item"], bad["problem"]["reason"]) == (None, "INVALID_IMAGE")
    assert reply["journal_sequence"] > 0
    listed = door.http.get("/v1/items", params={"batch_id": reply["batch_id"]}).json()["items"]
    assert len(listed) == 2
    gone = door.http.delete("/v1/items", params={"batch_id": reply["batch_id"]}, headers=bearer).json()
    assert gone["deleted"] == 2
    assert door.http.get("/v1/items").json()["items"] == []


def test_a_list_says_whether_there_is_more_and_the_other_forms_have_all(door, bearer):
    add(door, bearer, b"1", b"2", b"3")
    assert add(door, bearer, b"4", item_id="four", uri="https://cars.example/4.jpg").status_code == 200
    short = door.http.get("/v1/items?limit=2").json()
    assert (len(short["items"]), short["more"]) == (2, True)
    assert door.http.get("/v1/items?limit=4").json()["more"] is False
    assert len(door.http.get("/v1/items?format=ndjson").text.splitlines()) == 4
    rows = list(csv.DictReader(io.StringIO(door.http.get("/v1/items?format=csv").text)))
    assert [row["uri"] for row in rows if row["item_id"] == "four"] == ["https://cars.example/4.jpg"]


@pytest.mark.parametrize(
    ("fields", "photos", "says"),
    [
        ({"label": ""}, 1, "needs a label"),
        ({"label": "a\x16b"}, 1, "control characters"),
        ({"item_id": "x"}, 2, "of a single photo"),
        ({"lable": "x"}, 1, "no field 'lable'"),
    ],
)
def test_a_form_that_makes_no_sense_writes_nothing(door, bearer, services, fields, photos, says):  # noqa: PLR0917
    reply = add(door, bearer, *[b"1"] * photos, **fields)
    assert reply.status_code == 400
    assert says in reply.json()["detail"]
    assert services.search.script.of("AddItems") == []


@pytest.mark.parametrize("query", ["", "?label=a&batch_id=b"])
def test_a_deletion_names_one_thing(door, bearer, services, query):
    reply = door.http.delete(f"/v1/items{query}", headers=bearer)
    assert (reply.status_code, reply.json()["reason"]) == (400, "INVALID_REQUEST")
    assert services.search.script.of("DeleteItems") == []
