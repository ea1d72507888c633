"""What an answer is worth, and one answer for several photos of a car."""

from itertools import count

import pytest
import vmmr
from vmmr.search.v1 import search_pb2


def says(services, **fields):
    services.search.says[11] = fields


def test_an_answer_comes_with_its_verdict_its_years_and_how_sure_they_are(client, services):
    says(
        services,
        verdict=search_pb2.VERDICT_KNOWN,
        known_score=0.0,
        first_year=2009,
        last_year=2012,
        years_confidence=0.75,
    )
    found = client.identify(b"11")
    assert (found.verdict, found.known_score, found.years) == ("known", 0.0, (2009, 2012))
    assert found.years_confidence == 0.75


def test_an_index_that_is_not_calibrated_gives_no_verdict(client, services):
    says(services, verdict=search_pb2.VERDICT_UNSPECIFIED)
    found = client.identify(b"11")
    assert (found.verdict, found.known_score, found.years) == (None, None, (2011, 2011))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"verdict": search_pb2.VERDICT_UNSPECIFIED}, "honda pilot 2011 (not calibrated)"),
        ({"verdict": search_pb2.VERDICT_UNSPECIFIED, "first_year": 2009}, "honda pilot 2009-2011 (not calibrated)"),
        ({"verdict": search_pb2.VERDICT_KNOWN}, "honda pilot 2011"),
        ({"first_year": 2009}, "honda pilot 2009-2011"),
        ({"verdict": search_pb2.VERDICT_UNSURE}, "unsure (perhaps honda pilot 2011)"),
        ({"verdict": search_pb2.VERDICT_UNSURE, "first_year": 2010}, "unsure (perhaps honda pilot 2010-2011)"),
        ({"verdict": search_pb2.VERDICT_UNKNOWN}, "unknown (nearest: honda pilot 2011)"),
        ({"verdict": search_pb2.VERDICT_UNKNOWN, "first_year": 2009}, "unknown (nearest: honda pilot 2011)"),
    ],
)
def test_in_words_no_unknown_car_looks_like_an_answer(client, services, fields, text):
    says(services, **fields)
    found = client.identify(b"11")
    assert str(found) == text
    assert found.answer == vmmr.Label("honda_pilot_2011", "honda", "pilot", 2011)


def test_in_words_an_answer_may_have_no_year_and_there_may_be_none(client, services):
    bare = search_pb2.Classification(answer=search_pb2.Label(label="car!"), verdict=search_pb2.VERDICT_UNSURE)
    results = [bare, search_pb2.Classification()]
    services.search.script.then(lambda *_: search_pb2.ClassifyResponse(results=results))
    first, second = client.classify(client.embed([b"1", b"2"])).classifications
    assert (str(first), first.years) == ("unsure (perhaps car!)", None)
    assert (str(second), second.verdict, second.years) == ("no gallery photo to compare with", None, None)


def test_a_verdict_of_a_later_contract_is_an_error(client, services):
    says(services, verdict=9)
    with pytest.raises(vmmr.ProtocolError, match="a verdict unknown to this SDK: 9"):
        client.identify(b"11")


def test_the_least_confidence_travels_with_every_way_of_asking(client, services):
    client.identify(b"1", min_confidence=0.25)
    client.identify_car([b"1"], min_confidence=0.5)
    client.classify(client.embed([b"1"]), min_confidence=0.75)
    list(client.identify_many([b"1"], min_confidence=1))
    client.identify(b"1")
    sent = [call.request for call in services.search.script.of("Classify")]
    assert [each.min_confidence for each in sent] == [0.25, 0.5, 0.75, 1, 0]
    assert [each.fuse for each in sent] == [False, True, False, False, False]


def test_several_photos_of_a_car_are_one_question(client, services, tmp_path):
    (tmp_path / "3.jpg").write_bytes(b"3")
    box = vmmr.Box(0, 0, 0.5, 1)
    chosen = vmmr.SearchOptions(k=7)
    found = client.identify_car([b"11", vmmr.Photo(b"2", box), tmp_path / "3.jpg"], options=chosen)
    assert found.answer.year == 2011
    [embedded], [classified] = services.embedder.script.of("Embed"), services.search.script.of("Classify")
    assert [image.content for image in embedded.request.images] == [b"11", b"2", b"3"]
    assert embedded.request.images[1].crop.right == 0.5
    assert len(classified.request.queries.data) == 3 * 4 * 4
    assert (classified.request.fuse, classified.request.options.k) == (True, 7)
    assert found.request_id == classified.metadata["x-request-id"] == embedded.metadata["x-request-id"]


def test_embeddings_of_one_car_are_classified_together(client, services):
    [found] = client.classify(client.embed([b"11", b"2"]), fuse=True).classifications
    assert found.answer.year == 2011


def test_a_service_that_answers_each_photo_though_all_are_one_car_is_an_error(client, services):
    each = search_pb2.ClassifyResponse(results=[search_pb2.Classification()] * 2)
    services.search.script.marked[b"\x00"] = lambda *_: each
    with pytest.raises(vmmr.ProtocolError, match="gave 2 answers to 1 questions"):
        client.classify(client.embed([b"1", b"2"]), fuse=True)


def test_a_car_has_no_more_photos_than_the_services_accept_in_a_request(client, services):
    services.embedder.limits.max_images = 3
    taken = []
    endless = (taken.append(n) or b"%d" % n for n in count())
    with pytest.raises(
        ValueError, match="photos of one car must be 1 to 3, which the services accept, got more than 3"
    ):
        client.identify_car(endless)
    assert len(taken) <= 4
    assert client.identify_car([b"1", b"2", b"3"]).answer.year == 2001
    services.search.limits.max_neighbours = 10
    with pytest.raises(ValueError, match="must be 1 to 2, "):
        client.identify_car([b"1"] * 3)
    with pytest.raises(ValueError, match="must be 1 to 2, which the services accept, got none"):
        client.identify_car([])
    assert len(services.embedder.script.of("Embed")) == 1


def test_each_photo_of_a_car_is_read_before_the_next_is_asked_for(client, services, tmp_path):
    def opened():
        for n in range(3):
            (tmp_path / "photo").write_bytes(b"%d" % n)
            with (tmp_path / "photo").open("rb") as file:
                yield file

    client.identify_car(opened())
    [embedded] = services.embedder.script.of("Embed")
    assert [image.content for image in embedded.request.images] == [b"0", b"1", b"2"]


def test_nor_more_bytes(client, services):
    services.embedder.limits.max_request_bytes = 10_000
    with pytest.raises(vmmr.MessageTooLargeError, match=r"^the 2 photos have 12128 bytes; the most .* is 10000$"):
        client.identify_car([b"1".rjust(6000), b"2".rjust(6000)])
    assert services.embedder.script.of("Embed") == []
    assert client.identify_car([b"1".rjust(4900), b"2".rjust(4900)]).answer.year == 2001


def test_bad_photos_of_a_car_are_named(client, services, tmp_path):
    with pytest.raises(vmmr.InvalidPhotoError) as refused:
        client.identify_car([b"1", b"bad", b"2", b"worse"])
    assert refused.value.photos == (1, 3)
    with pytest.raises(vmmr.UnreadablePhotoError, match=r"^photos\[1\]: .*missing\.jpg"):
        client.identify_car([b"1", tmp_path / "missing.jpg"])
    services.embedder.limits.max_image_bytes = 1000
    with pytest.raises(vmmr.UnreadablePhotoError, match=r"^photos\[0\]: the photo has more than 1000 bytes"):
        client.identify_car([b"1".rjust(1001)])
    with pytest.raises(TypeError, match="put it in a list"):
        client.identify_car("photo.jpg")
    assert services.search.script.of("Classify") == []
