"""What both clients give for what they are given."""

import io
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import vmmr


def test_identify_gives_the_answer_and_where_it_came_from(client, services):
    found = client.identify(b"11")
    label = vmmr.Label("honda_pilot_2011", "honda", "pilot", 2011)
    assert found.answer == label
    assert str(found.answer) == "honda pilot 2011"
    assert [found.make_confidence, found.model_confidence, found.label_confidence] == pytest.approx([0.9, 0.8, 0.7])
    assert [c.make for c in found.makes] == ["honda"]
    assert found.models[0].model == "pilot"
    assert found.models[0].label is None
    assert found.labels[0].label == label
    assert [(c.nearest_score, c.mean_similarity) for c in (*found.labels, *found.makes)] == [(0.75, 0.0), (None, None)]
    assert [n.item_id for n in found.neighbours] == ["item-11", "item-12"]
    assert found.neighbours[0].uri == "photos/11.jpg"
    assert found.provenance == vmmr.Provenance("ab" * 32, "000001", 0, 2, 2)
    assert found.times.embed == vmmr.EmbedTimes(1, 2, 3)
    assert found.times.search == vmmr.SearchTimes(1, 2, 3)
    assert 0 < found.times.round_trip_ms < 10_000


def test_a_photo_is_bytes_or_a_path_or_an_open_file(client, tmp_path: Path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"3")
    with path.open("rb") as file:
        for photo in (b"3", bytearray(b"3"), memoryview(b"3"), path, str(path), file, io.BytesIO(b"3")):
            assert client.identify(photo).answer.year == 2003


def test_a_crop_is_sent_with_its_photo(client, services):
    client.identify(b"1", crop=vmmr.Box(0.25, 0.5, 0.75, 1))
    client.embed([vmmr.Photo(b"1", vmmr.Box(0, 0, 0.5, 1)), b"2"])
    first, second = (call.request.images for call in services.embedder.script.of("Embed"))
    assert (first[0].crop.left, first[0].crop.top, first[0].crop.right, first[0].crop.bottom) == (0.25, 0.5, 0.75, 1)
    assert second[0].crop.right == 0.5
    assert not second[1].HasField("crop")


def test_options_travel_with_the_query_and_what_is_not_said_is_left_to_the_index(client, services):
    embeddings = client.embed([b"1"])
    chosen = vmmr.Filter(
        makes=("honda",), models=("pilot",), labels=("honda_pilot_2001",), min_year=2000, max_year=2005
    )
    numbers = {"k": 7, "nprobe": 8, "ef_search": 64, "rerank": 4}
    options = vmmr.SearchOptions(**numbers, filter=chosen, exact=True, allow_partial=True, shard_timeout_s=0.25)
    client.search(embeddings, options=options)
    client.search(embeddings)
    full, default = (call.request.options for call in services.search.script.of("Search"))
    assert {name: getattr(full, name) for name in numbers} == numbers
    assert (full.exact, full.allow_partial, full.shard_timeout_ms) == (True, True, 250)
    assert (list(full.filter.makes), list(full.filter.models)) == (["honda"], ["pilot"])
    assert (list(full.filter.labels), full.filter.min_year, full.filter.max_year) == (["honda_pilot_2001"], 2000, 2005)
    assert not any(default.HasField(name) for name in (*numbers, "shard_timeout_ms"))
    assert (default.exact, default.allow_partial) == (False, False)
    assert not default.filter.HasField("min_year")


def test_a_time_limit_of_less_than_a_millisecond_is_one(client, services):
    client.search(client.embed([b"1"]), options=vmmr.SearchOptions(shard_timeout_s=1e-9))
    [call] = services.search.script.of("Search")
    assert call.request.options.shard_timeout_ms == 1


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_time_limit_that_makes_no_sense_is_refused(seconds):
    with pytest.raises(ValueError, match="shard_timeout_s must be > 0 and < 2147483, got "):
        vmmr.SearchOptions(shard_timeout_s=seconds)


def test_an_answer_that_lacks_part_of_the_gallery_says_so(client, services):
    whole = client.identify(b"1")
    services.search.shards_answered = 1
    part, found = client.identify(b"1"), client.search(client.embed([b"1"]))
    assert (whole.provenance.partial, part.provenance.partial, found.provenance.partial) == (False, True, True)
    assert (part.provenance.shards_answered, part.provenance.shards_total) == (1, 2)
    assert str(part) == f"{whole} (from 1 of 2 shards)"


def test_numbers_that_no_message_can_carry_are_named():
    with pytest.raises(ValueError, match=r"k must be >= 0 and < 2\*\*31, got -1"):
        vmmr.SearchOptions(k=-1)
    with pytest.raises(ValueError, match="max_year"):
        vmmr.Filter(max_year=2**31)


def test_embed_then_search_or_classify_is_identify_by_hand(client):
    embeddings = client.embed([b"4", b"5"])
    assert embeddings.model == "ab" * 32
    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors[:, 0].tolist() == [4, 5]
    assert len(embeddings) == 2
    searched = client.search(embeddings)
    assert [[n.label.year for n in neighbours] for neighbours in searched.neighbours] == [[2004], [2005]]
    assert searched.times.search_ms == 2
    classified = client.classify(embeddings)
    assert [c.answer.year for c in classified.classifications] == [2004, 2005]
    assert classified.classifications[0].labels == client.identify(b"4").labels


def test_queries_share_the_labels_of_a_reply(client):
    first, second = client.search(client.embed([b"4", b"4"])).neighbours
    assert first[0].label is second[0].label


def test_embeddings_of_ones_own_can_be_asked_about(client):
    vectors = np.array([[7, 0, 0, 0]], np.float64)
    assert client.search(vmmr.Embeddings("ab" * 32, vectors)).neighbours[0][0].item_id == "item-7"
    with pytest.raises(ValueError, match=r"must be a \(photos, dimension\) matrix, got shape \(4,\)"):
        vmmr.Embeddings("ab" * 32, vectors[0])


@pytest.mark.parametrize("ask", ["search", "classify"])
@pytest.mark.parametrize("vectors", [[[1.0, 0, 0, 0]], np.ones((1, 4)), "photo.jpg"])
def test_vectors_of_an_unknown_model_are_a_type_error(client, ask, vectors):
    kind = type(vectors).__name__
    with pytest.raises(TypeError, match=rf"^embeddings must be vmmr.Embeddings, as embed\(\) gives them, got {kind}$"):
        getattr(client, ask)(vectors)


def test_vectors_that_are_no_array_are_a_type_error():
    with pytest.raises(TypeError, match="vectors must be a numpy array, got list"):
        vmmr.Embeddings("ab" * 32, [[1.0, 0, 0, 0]])


def test_a_query_whose_filter_left_nothing_has_no_answer(client, services):
    from vmmr.search.v1 import search_pb2

    empty = search_pb2.ClassifyResponse(results=[search_pb2.Classification()])
    services.search.script.then(lambda request, context: empty)
    found = client.identify(b"1")
    assert found.answer is None
    assert found.neighbours == ()


def test_a_label_that_could_not_be_parsed_is_shown_as_it_was_written():
    assert str(vmmr.Label("car!", "", "", None)) == "car!"


def test_info_describes_the_model_and_the_index(client):
    served = client.info()
    assert (served.model.name, served.model.fingerprint, served.model.resize) == ("fake-int8", "ab" * 32, "squash")
    assert served.model.limits == vmmr.EmbedLimits(8, 2**20, 2**24, 10, 2**21)
    assert (served.index.version, served.index.items, served.index.metric) == ("000001", 30, "inner_product")
    assert served.index.created == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert served.index.calibration is None
    assert served.same_model
    assert served.index.limits == vmmr.QueryLimits(16, 100, 2**20, 1000, 9000)
    assert (served.index.nprobe, served.index.ef_search, served.index.rerank) == (8, None, None)


def test_info_tells_what_the_index_is_calibrated_on_and_whether_the_models_are_the_same(client, services):
    from vmmr.search.v1 import search_pb2

    services.search.calibration = search_pb2.Calibration(photos=300, false_alarm_rate=0.0625, unknown_threshold=-0.5)
    services.search.model = "cd" * 32
    served = client.info()
    assert served.index.calibration == vmmr.Calibration(300, 0.0625, -0.5)
    assert not served.same_model


def test_labels_come_page_after_page(client, services):
    labels = list(client.labels())
    assert [(entry.label.year, entry.items) for entry in labels] == [(2000, 10), (2001, 10), (2002, 10)]
    assert [call.request.page_token for call in services.search.script.of("ListLabels")] == ["", "2"]


def test_one_request_id_goes_with_all_calls_of_an_operation(client, services):
    found, other = client.identify(b"1"), client.identify(b"1")
    sent = [
        call.metadata["x-request-id"] for call in services.embedder.script.received + services.search.script.received
    ]
    assert sent == [found.request_id, other.request_id, found.request_id, other.request_id]
    assert found.request_id != other.request_id


def test_the_token_goes_with_every_call(connect, services):
    connect(*services.targets, token="secret").identify(b"1")
    for script in (services.embedder.script, services.search.script):
        assert [call.metadata["authorization"] for call in script.received] == ["Bearer secret"]


def test_a_client_says_who_it_is(client, services):
    client.info()
    assert services.embedder.script.received[0].metadata["user-agent"].startswith("vmmr/")


def test_a_photo_that_cannot_be_read_is_named(client, tmp_path: Path):
    with pytest.raises(vmmr.UnreadablePhotoError, match=r"nowhere\.jpg: No such file"):
        client.identify(tmp_path / "nowhere.jpg")


def test_a_photo_that_fits_in_no_message_is_not_read_to_its_end(connect, services):
    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            assert size == 1001
            return bytes(size)

    with pytest.raises(vmmr.UnreadablePhotoError, match="more than 1000 bytes"):
        connect(*services.targets, max_message_bytes=1000).identify(Endless())


@pytest.mark.parametrize("photo", [7, None, io.StringIO("text")])
def test_what_is_no_photo_is_a_type_error(client, photo):
    with pytest.raises(TypeError, match="a photo is bytes, a path, a file opened in binary mode"):
        client.identify(photo)


def test_a_single_photo_where_several_belong_is_a_type_error(client):
    with pytest.raises(TypeError, match="put it in a list"):
        client.embed("photo.jpg")
    with pytest.raises(TypeError, match="put it in a list"):
        client.identify_many(b"1")


@pytest.mark.parametrize("settings", [{"timeout_s": 0}, {"keepalive_s": -1}, {"max_message_bytes": 0}])
def test_settings_that_make_no_sense_are_named(connect, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be > 0"):
        connect(**settings)


@pytest.mark.parametrize("seconds", [math.inf, 1e12, 2147483])
def test_times_that_grpc_can_not_count_are_refused(connect, client, seconds):
    """It would say at once that the deadline has passed."""
    for setting in ("timeout_s", "keepalive_s"):
        with pytest.raises(ValueError, match=f"{setting} must be < 2147483, got "):
            connect(**{setting: seconds})
    with pytest.raises(ValueError, match="timeout_s must be < 2147483, got "):
        client.identify(b"1", timeout_s=seconds)


def test_tls_that_is_none_is_a_type_error_that_says_what_to_give(connect):
    with pytest.raises(TypeError, match=r"tls must be a vmmr\.TLS, such as vmmr\.TLS\(\), got True"):
        connect(tls=True)


@pytest.mark.parametrize("token", ["secret\n", "s\u00e9cret", "a\x00b"])
def test_a_token_that_no_header_may_have_is_refused_and_not_shown(connect, token):
    with pytest.raises(ValueError, match="the token has characters that can't be sent") as caught:
        connect(token=token)
    assert token not in str(caught.value)


def test_a_deadline_or_a_batch_of_nothing_is_refused(client):
    with pytest.raises(ValueError, match="timeout_s must be > 0, got 0"):
        client.identify(b"1", timeout_s=0)
    with pytest.raises(ValueError, match="batch must be > 0, got 0"):
        client.identify_many([b"1"], batch=0)


def test_a_closed_client_says_so(client):
    client.identify(b"1")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.identify(b"1")
