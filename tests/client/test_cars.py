"""What of a photo is looked at, with either client: a crop, the whole photo, its main car, or every car."""

import numpy as np
import pytest
import vmmr
from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

CAR = vmmr.Cut(vmmr.Box(0.25, 0.25, 0.75, 0.75), 0.875)
WHOLE = vmmr.Cut(vmmr.Box(0, 0, 1, 1))
NO_CAR = vmmr.Cut(vmmr.Box(0, 0, 1, 1), no_car_found=True)


def detection(left: float, score: float) -> embedder_pb2.Detection:
    box = embedder_pb2.Box(left=left, top=left, right=1 - left, bottom=1 - left)
    return embedder_pb2.Detection(box=box, score=score)


@pytest.fixture
def embedder(services):
    """An embedder with a detector: photo 5 shows two cars, photo 6 none, any other one."""
    services.embedder.cars = {5: [detection(0.25, 0.875), detection(0.375, 0.5)], 6: []}
    return services.embedder


def sent(services, method="Embed"):
    return [image for call in services.embedder.script.of(method) for image in call.request.images]


def test_by_default_the_service_decides_what_to_look_at(client, services, embedder):
    found = client.identify(b"1")
    assert [(image.subject, image.HasField("crop")) for image in sent(services)] == [(0, False)]
    assert (found.cut, found.no_car_found) == (CAR, False)
    assert str(found) == "honda pilot 2001"


@pytest.mark.parametrize(("subject", "cut"), [("whole", WHOLE), ("main_car", CAR)])
def test_the_subject_travels_with_every_way_of_asking(client, services, embedder, subject, cut):
    photo = vmmr.Photo(b"1", subject=subject)
    cuts = [client.identify(b"1", subject=subject).cut]
    cuts += [outcome.result().cut for outcome in client.identify_many([photo])]
    cuts += [client.identify_car([photo]).cut]
    cuts += [part.cut for part in client.embed([photo]).parts]
    cuts += [o.item.cut for o in client.add_photos([vmmr.NewItem(b"1", subject=subject, label="x", item_id="a")])]
    cuts += [client.get_item("a").cut, *(item.cut for item in client.list_items())]
    assert cuts == [cut] * 7
    assert [image.subject for image in sent(services)] == [embedder_pb2.Subject.Value(f"SUBJECT_{subject.upper()}")] * 5


def test_a_crop_is_what_was_looked_at(client, embedder):
    box = vmmr.Box(0.125, 0.25, 0.5, 1)
    assert client.identify(b"1", crop=box).cut == vmmr.Cut(box)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"subject": "cars"}, "subject must be one of whole, main_car, every_car, got 'cars'"),
        ({"subject": "whole", "crop": vmmr.Box(0, 0, 1, 1)}, "crop and subject both say what to look at"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(client, services, arguments, told):
    with pytest.raises(ValueError, match=told):
        vmmr.Photo(b"1", **arguments)
    with pytest.raises(ValueError, match=told):
        vmmr.NewItem(b"1", label="x", **arguments)
    with pytest.raises(ValueError, match=told):
        client.identify(b"1", **arguments)
    assert services.embedder.script.received == []


# --- every car ---


def test_each_car_of_a_photo_is_identified_the_main_one_first(client, services, embedder):
    first, second = client.identify_every_car(b"5")
    assert [str(first), str(second)] == ["honda pilot 2005", "honda pilot 2006"]
    assert [first.cut, second.cut] == [CAR, vmmr.Cut(vmmr.Box(0.375, 0.375, 0.625, 0.625), 0.5)]
    [classified] = services.search.script.of("Classify")
    assert [cut.car_score for cut in classified.request.cuts] == [0.875, 0.5]
    assert first.request_id == second.request_id == classified.metadata["x-request-id"]


def test_a_photo_without_a_car_has_one_answer_which_says_so(client, embedder):
    [found] = client.identify_every_car(b"6")
    assert (found.cut, found.no_car_found, found.verdict) == (NO_CAR, True, "unknown")
    assert str(found) == "no car found in the photo (nearest: honda pilot 2006)"


def test_embeddings_say_which_photo_and_which_part_of_it_each_is_of(client, embedder):
    embeddings = client.embed([b"1", vmmr.Photo(b"5", subject="every_car"), b"6"])
    assert embeddings.vectors[:, 0].tolist() == [1, 5, 6, 6]
    assert [part.image for part in embeddings.parts] == [0, 1, 1, 2]
    assert [part.cut for part in embeddings.parts][::3] == [CAR, NO_CAR]
    with pytest.raises(ValueError, match="parts must be one for each of the 1 vectors, got 4"):
        vmmr.Embeddings(embeddings.model, embeddings.vectors[:1], parts=embeddings.parts)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, photo: client.identify(photo.source, subject=photo.subject),
        lambda client, photo: client.identify_car([b"1", photo]),
        lambda client, photo: list(client.identify_many([photo])),
        lambda client, photo: list(client.add_photos([vmmr.NewItem(photo.source, label="x", subject=photo.subject)])),
    ],
    ids=["identify", "identify_car", "identify_many", "add_photos"],
)
def test_where_a_photo_has_one_answer_every_car_of_it_is_refused(client, services, embedder, ask):
    with pytest.raises(ValueError, match="one answer for each photo here: identify_every_car and embed"):
        ask(client, vmmr.Photo(b"5", subject="every_car"))
    assert sent(services) == []


# --- no car ---


def test_the_search_service_is_told_of_photos_without_a_car(client, services, embedder):
    with_car, without = [outcome.result() for outcome in client.identify_many([b"1", b"6"])]
    assert [with_car.no_car_found, without.no_car_found] == [False, True]
    [classified] = services.search.script.of("Classify")
    assert [cut.no_car_found for cut in classified.request.cuts] == [False, True]
    assert classified.request.cuts[0] == embedding_pb2.Cut(
        left=0.25, top=0.25, right=0.75, bottom=0.75, car_score=0.875
    )


def test_of_several_photos_of_a_car_one_that_shows_it_is_enough(client, embedder):
    found = client.identify_car([b"1", b"6"])
    assert (found.no_car_found, found.cut, str(found)) == (False, None, "honda pilot 2001")
    assert client.identify_car([b"6", b"6"]).no_car_found
    assert client.classify(client.embed([b"6"])).classifications[0].no_car_found


def test_in_words_there_may_be_no_car_and_no_neighbour(client, services, embedder):
    bare = search_pb2.Classification(no_car_found=True, verdict=search_pb2.VERDICT_UNKNOWN)
    services.search.script.then(lambda *_: search_pb2.ClassifyResponse(results=[bare]))
    assert str(client.identify(b"6")) == "no car found in the photo"


# --- the gallery ---


def test_an_item_gets_the_cut_of_its_embedding_unless_it_has_one(client, services, embedder):
    own = vmmr.Cut(vmmr.Box(0, 0, 0.5, 1))
    items = [vmmr.Item("a", "x"), vmmr.Item("b", "x", cut=own), vmmr.Item("c", "x")]
    client.add_items(items, client.embed([b"1", b"2", b"6"]))
    assert [item.cut for item in client.list_items()] == [CAR, own, NO_CAR]


def test_items_without_a_known_cut_say_so(client, services):
    client.add_items([vmmr.Item("a", "x")], client.embed([b"1"]))
    [call] = services.search.script.of("AddItems")
    assert not call.request.items[0].HasField("cut")
    assert client.get_item("a").cut is None


def test_of_a_photo_given_twice_the_last_counts_with_its_cut(client, embedder):
    whole = vmmr.NewItem(b"1", label="x", item_id="a", subject="whole")
    outcomes = list(client.add_photos([vmmr.NewItem(b"1", label="x", item_id="a"), whole]))
    assert [o.item.cut for o in outcomes] == [CAR, WHOLE]
    assert client.get_item("a").cut == WHOLE


# --- detection ---


def test_cars_are_found_without_being_embedded(client, services, embedder):
    photos = client.detect([b"1", b"5", b"6"])
    assert photos == [
        (vmmr.Detection(CAR.box, 0.875),),
        (vmmr.Detection(CAR.box, 0.875), vmmr.Detection(vmmr.Box(0.375, 0.375, 0.625, 0.625), 0.5)),
        (),
    ]
    assert services.embedder.script.of("Embed") == []
    with pytest.raises(TypeError, match="put it in a list"):
        client.detect("photo.jpg")


def test_detections_for_another_number_of_photos_are_an_error(client, services, embedder):
    services.embedder.script.then(lambda *_: embedder_pb2.DetectResponse(detections=[embedder_pb2.Detections()] * 3))
    with pytest.raises(vmmr.ProtocolError, match="gave 3 answers to 1 questions"):
        client.detect([b"1"])


# --- embedders of an earlier version ---


def test_an_embedder_that_does_not_say_what_it_looked_at_is_enough(client, services):
    assert client.embed([b"1"]).parts is None
    found = client.identify(b"1")
    assert (found.cut, found.no_car_found, str(found)) == (None, False, "honda pilot 2001")
    assert client.identify(b"1", subject="whole").cut is None
    assert [o.item.cut for o in client.add_photos([vmmr.NewItem(b"1", label="x")])] == [None]
    assert [len(call.request.cuts) for call in services.search.script.of("Classify")] == [0, 0]


@pytest.mark.parametrize("subject", ["main_car", "every_car"])
def test_but_not_where_a_car_is_asked_for(client, subject):
    with pytest.raises(vmmr.ProtocolError, match="the embedder does not look for cars: it is of an earlier version"):
        client.embed([b"1", vmmr.Photo(b"2", subject=subject)])


@pytest.mark.parametrize(
    "images", [[0], [0, 1, 1], [1, 0], [0, 2], [0, 0]], ids=["few", "many", "disordered", "of no photo", "twice"]
)
def test_parts_that_are_not_those_of_the_photos_are_an_error(client, services, images):
    from vmmr import wire

    reply = embedder_pb2.EmbedResponse(
        embeddings=wire.pack("ab" * 32, np.zeros((len(images), 4), np.float32)),
        parts=[embedder_pb2.EmbeddedPart(image=n) for n in images],
    )
    services.embedder.script.then(lambda *_: reply)
    with pytest.raises(vmmr.ProtocolError, match="the embedder's parts are not those of 2 photos"):
        client.embed([b"1", b"2"])


def test_a_search_service_of_an_earlier_version_leaves_what_was_looked_at(client, services, embedder):
    services.search.script.then(lambda *_: search_pb2.ClassifyResponse(results=[search_pb2.Classification()]))
    found = client.identify(b"6")
    assert (found.no_car_found, found.cut) == (False, NO_CAR)


# --- what is served ---


def test_the_model_says_what_finds_the_cars_and_the_index_how_its_photos_were_cut(client, services):
    assert (client.info().model.detector, client.info().model.limits.max_cars) == (None, 0)
    assert client.info().index.cuts is None
    detector = embedder_pb2.Detector(name="objectron", threshold=0.25, margin=0.125)
    reply = embedder_pb2.GetModelResponse(model=embedder_pb2.Model(detector=detector))
    reply.limits.max_cars = 16
    services.embedder.script.then(lambda *_: reply)
    services.search.cuts = search_pb2.CutCounts(car=20, whole=5, no_car_found=1, given=1, unknown=3)
    served = client.info()
    assert served.model.detector == vmmr.Detector("objectron", 0.25, 0.125)
    assert served.model.limits.max_cars == 16
    assert served.index.cuts == vmmr.CutCounts(20, 5, 1, 1, 3)


def test_a_model_without_a_detector_is_told_by_the_reason(client, services, fail):
    services.embedder.script.then(*[fail("NO_DETECTOR", "it has none")] * 2)
    for ask in (lambda: client.detect([b"1"]), lambda: client.identify_every_car(b"1")):
        with pytest.raises(vmmr.CallError, match="it has none") as refused:
            ask()
        assert (refused.value.status, refused.value.reason) == ("FAILED_PRECONDITION", "NO_DETECTOR")
