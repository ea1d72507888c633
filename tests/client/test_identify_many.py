"""Many photos: in order, in bounded batches, and none lost for another's sake."""

import threading
from itertools import count

import numpy as np
import pytest
import vmmr
from hypothesis import given
from hypothesis import strategies as st
from vmmr._batches import Entry, Limits, Packer, read_entry

from svckit.errors import Violation

MODEL = b"ab" * 32  # of the fake embedder


def answer_as_usual(_request, _context):
    return None


def photos(numbers):
    return [b"%d" % n for n in numbers]


def sent_together(services):
    """The photos of each request. Requests that are under way together may arrive in any order."""
    return sorted([int(image.content) for image in c.request.images] for c in services.embedder.script.of("Embed"))


def years(outcomes):
    return [outcome.result().answer.year for outcome in outcomes]


def test_outcomes_come_in_the_order_of_the_photos(client, services):
    outcomes = list(client.identify_many(photos(range(20)), batch=3))
    assert years(outcomes) == [2000 + n for n in range(20)]
    assert [outcome.position for outcome in outcomes] == list(range(20))
    assert outcomes[7].photo == b"7"
    assert outcomes[7].error is None
    assert sent_together(services) == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11],
        [12, 13, 14],
        [15, 16, 17],
        [18, 19],
    ]


@pytest.fixture
def full(fail):
    return fail("QUEUE_FULL", retry_after_s=0.02)


@pytest.mark.parametrize(("service", "mark"), [("embedder", b"3"), ("search", MODEL)])
def test_an_overloaded_service_is_asked_again_when_it_said(client, services, full, service, mark):
    refusals = iter([full] * 3)

    def refuse_thrice(request, context):
        return next(refusals, answer_as_usual)(request, context)

    getattr(services, service).script.marked[mark] = refuse_thrice
    assert years(client.identify_many(photos(range(6)), batch=2)) == [2000 + n for n in range(6)]
    assert next(refusals, None) is None


def test_a_service_that_stays_overloaded_is_the_photos_error(client, services, fail, full):
    for_long = fail("QUEUE_FULL", retry_after_s=3600)
    refusals = iter([full] * 2)

    def refuse(request, context):
        next(refusals, for_long)(request, context)

    services.embedder.script.marked[b"1"] = refuse
    first, second = client.identify_many(photos([1, 2]), batch=1, timeout_s=60)
    assert isinstance(first.error, vmmr.OverloadedError)
    assert next(refusals, None) is None
    assert second.result().answer.year == 2002


def test_of_no_photos_nothing_becomes(client):
    assert list(client.identify_many([])) == []


def test_bad_photos_have_errors_of_their_own_and_the_others_their_answers(client, services, tmp_path):
    missing = tmp_path / "missing.jpg"
    cropped = vmmr.Photo(b"5", vmmr.Box(0, 0, 1, 1))
    outcomes = list(client.identify_many([b"1", b"bad", b"2", missing, b"worse", cropped], batch=6))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False, False, True]
    assert years(o for o in outcomes if o.error is None) == [2001, 2002, 2005]
    assert isinstance(outcomes[1].error, vmmr.InvalidPhotoError)
    assert outcomes[1].error.violations == (vmmr.Violation("content", "IMAGE_FORMAT", "not an image"),)
    assert isinstance(outcomes[3].error, vmmr.UnreadablePhotoError)
    assert outcomes[5].photo is cropped
    with pytest.raises(vmmr.UnreadablePhotoError, match=r"missing\.jpg"):
        outcomes[3].result()
    assert [len(c.request.images) for c in services.embedder.script.of("Embed")] == [5, 3]


def test_a_batch_of_bad_photos_alone_asks_the_search_service_nothing(client, services, tmp_path):
    outcomes = list(client.identify_many([b"bad", tmp_path, b"worse"]))
    assert all(isinstance(outcome.error, vmmr.PhotoError) for outcome in outcomes)
    assert services.search.script.of("Classify") == []


def test_bad_photos_that_an_error_had_no_room_to_name_are_named_by_the_next(client, services, fail):
    incomplete = [Violation("images[1].content", "IMAGE_FORMAT", "")]
    services.embedder.script.marked[b"bad"] = fail("INVALID_IMAGE", violations=incomplete)
    outcomes = list(client.identify_many([b"1", b"bad", b"2", b"worse"]))
    assert [o.error is None for o in outcomes] == [True, False, True, False]


@pytest.mark.parametrize("field", ["images", "images[99].content"])
def test_a_refusal_that_names_no_photo_is_every_photos_error(client, services, fail, field):
    services.embedder.script.marked[b"1111"] = fail("INVALID_IMAGE", violations=[Violation(field, "X", "y")])
    outcomes = list(client.identify_many([b"1111", b"2", b"3"], batch=2))
    assert [type(o.error) for o in outcomes] == [vmmr.InvalidPhotoError, vmmr.InvalidPhotoError, type(None)]


def test_a_failed_call_is_the_error_of_its_batch_alone(client, services, fail):
    services.search.script.marked[np.float32(3).tobytes()] = fail("MODEL_MISMATCH")
    outcomes = list(client.identify_many(photos(range(6)), batch=2))
    assert [type(o.error) for o in outcomes] == [type(None)] * 2 + [vmmr.ModelMismatchError] * 2 + [type(None)] * 2


def test_services_that_cannot_be_asked_raise_before_the_first_photo(client, services, fail):
    services.embedder.script.then(fail("UNAUTHENTICATED"))
    with pytest.raises(vmmr.UnauthenticatedError):
        list(client.identify_many(iter(lambda: pytest.fail("a photo was taken"), None)))


def test_batches_are_no_larger_than_the_services_accept(client, services):
    services.embedder.limits.max_images = 5
    services.search.limits.max_queries = 4
    list(client.identify_many(photos(range(9)), batch=100))
    assert sent_together(services) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


@pytest.mark.parametrize(("k", "sent"), [(None, [2, 2, 1]), (3, [3, 2]), (10, [1] * 5), (11, [1] * 5)])
def test_nor_so_large_that_they_would_find_too_many_neighbours(client, services, k, sent):
    services.search.limits.max_neighbours = 10
    list(client.identify_many(photos(range(5)), options=vmmr.SearchOptions(k=k)))
    assert sorted(map(len, sent_together(services)), reverse=True) == sent


def test_requests_have_no_more_bytes_than_the_embedder_accepts(client, services):
    services.embedder.limits.max_request_bytes = 10_000
    given = [b"%d" % n for n in range(8)]
    given[2:4] = [b"2".rjust(6000), b"3".rjust(6000)]
    given[6] = b"6".rjust(10_000)
    outcomes = list(client.identify_many(given))
    assert [o.error is None for o in outcomes] == [True] * 6 + [False, True]
    assert isinstance(outcomes[6].error, vmmr.UnreadablePhotoError)
    assert sent_together(services) == [[0, 1, 2], [3, 4, 5, 7]]
    assert all(call.request.ByteSize() <= 10_000 for call in services.embedder.script.of("Embed"))


def test_a_photo_that_the_embedder_would_refuse_for_its_size_is_not_sent(client, services):
    services.embedder.limits.max_image_bytes = 1000
    outcomes = list(client.identify_many([b"1".rjust(1000), b"2".rjust(1001), b"3"]))
    assert [o.error is None for o in outcomes] == [True, False, True]
    assert str(outcomes[1].error) == "the photo has more than 1000 bytes, the most that can be sent"
    assert sent_together(services) == [[1, 3]]


def test_a_photo_is_read_before_the_next_is_asked_for(client, tmp_path):
    def opened():
        for n in range(5):
            (tmp_path / "photo").write_bytes(b"%d" % n)
            with (tmp_path / "photo").open("rb") as file:
                yield file

    assert years(client.identify_many(opened())) == [2000, 2001, 2002, 2003, 2004]


def when(event):
    """Answers as usual once the event is set; fails if that takes long."""
    return lambda *_: None if event.wait(60) else 1 / 0


def test_while_a_batch_is_classified_one_is_embedded_and_one_waits_at_the_embedder(client, services):
    classifying, waiting = threading.Event(), threading.Event()
    embedder, search = services.embedder.script, services.search.script
    embedder.marked |= {b"2222": when(waiting), b"3333": lambda *_: waiting.set() if classifying.wait(60) else 1 / 0}
    search.marked[np.float32(1111).tobytes()] = lambda *_: classifying.set() or when(waiting)()
    assert years(client.identify_many([b"1111", b"2222", b"3333"], batch=1)) == [3111, 4222, 5333]


def test_a_batch_that_is_embedded_while_an_earlier_one_is_not_is_classified_at_once(client, services):
    second_is_classified = threading.Event()
    services.embedder.script.marked[b"1111"] = when(second_is_classified)
    services.search.script.marked[np.float32(2222).tobytes()] = lambda *_: second_is_classified.set()
    assert years(client.identify_many([b"1111", b"2222"], batch=1)) == [3111, 4222]


def test_the_services_go_on_while_the_caller_is_busy(services):
    third_is_classified = threading.Event()
    services.search.script.marked[np.float32(3333).tobytes()] = lambda *_: third_is_classified.set()
    with vmmr.Client(*services.targets) as client:
        outcomes = client.identify_many([b"1111", b"2222", b"3333"], batch=1)
        next(outcomes)
        assert third_is_classified.wait(60)
        assert years(outcomes) == [4222, 5333]


def test_outcomes_do_not_wait_for_photos_that_have_yet_to_come(services):
    first_is_seen = threading.Event()

    def slow():
        yield from [b"1", b"2"]
        while not services.search.script.of("Classify"):
            first_is_seen.wait(0.01)
        for n in range(3, 7):
            first_is_seen.wait(0.2)
            yield b"%d" % n
        assert first_is_seen.wait(60)
        yield b"7"

    with vmmr.Client(*services.targets) as client:
        for outcome in client.identify_many(slow(), batch=2):
            assert outcome.error is None
            first_is_seen.set()


@pytest.mark.parametrize(("connections", "in_memory"), [(1, 3), (4, 6)])
def test_photos_are_taken_as_they_are_needed_so_many_batches_at_a_time(services, connections, in_memory):
    taken = []

    def endless():
        for n in count():
            taken.append(n)
            yield b"%d" % n

    with vmmr.Client(*services.targets, connections=connections) as client:
        outcomes = client.identify_many(endless(), batch=2)
        for seen in range(20):
            assert next(outcomes).position == seen
            assert len(taken) <= seen + 2 * in_memory
        outcomes.close()


async def test_photos_may_come_asynchronously(services):
    taken = []

    async def endless():
        for n in count():
            taken.append(n)
            yield b"%d" % n

    async with vmmr.AsyncClient(*services.targets) as client:
        outcomes = client.identify_many(endless(), batch=2)
        for seen in range(10):
            assert (await anext(outcomes)).position == seen
            assert len(taken) <= seen + 6
        await outcomes.aclose()


def test_who_stops_listening_cancels_what_is_under_way_in_both_services(services):
    waits, cancelled, leave = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def stuck(_, context):
        context.add_callback(cancelled.release)
        waits.release()
        leave.wait(60)

    services.embedder.script.marked[b"3333"] = stuck
    services.search.script.marked[np.float32(2222).tobytes()] = stuck
    with vmmr.Client(*services.targets) as client:
        outcomes = client.identify_many([b"1111", b"2222", b"3333", b"4444"], batch=1, timeout_s=60)
        next(outcomes)
        assert all(waits.acquire(timeout=60) for _ in range(2))
        outcomes.close()
        assert all(cancelled.acquire(timeout=60) for _ in range(2))
        leave.set()


def test_who_stops_listening_ends_waits_for_an_overloaded_service(services, fail):
    refused = threading.Event()
    refuse = fail("QUEUE_FULL", retry_after_s=30)
    services.embedder.script.marked[b"2222"] = lambda *call: refused.set() or refuse(*call)
    threads = set(threading.enumerate())
    with vmmr.Client(*services.targets, timeout_s=60) as client:
        outcomes = client.identify_many([b"1111", b"2222"], batch=1)
        next(outcomes)
        assert refused.wait(60)
        batches = [each for each in threading.enumerate() if each not in threads and each.name.startswith("vmmr-batch")]
        outcomes.close()
        for each in batches:
            each.join(60)
        assert batches
        assert not any(each.is_alive() for each in batches)
        assert len(services.embedder.script.of("Embed")) == 2


def test_a_round_trip_does_not_include_the_listeners_time(services, monkeypatch):
    now, looks = [0.0], threading.Semaphore(0)
    monkeypatch.setattr("vmmr._threads.perf_counter", lambda: looks.release() or now[0])
    with vmmr.Client(*services.targets) as client:
        outcomes = client.identify_many(photos(range(4)), batch=2)
        found = [next(outcomes).result()]
        # At the clock, before and after each call: to either service what it accepts, then two batches.
        assert all(looks.acquire(timeout=60) for _ in range(2 * (2 + 4)))
        now[0] = 1000.0  # while the listener is busy
        found += [outcome.result() for outcome in outcomes]
    assert [each.times.round_trip_ms for each in found] == [0.0] * 4


def test_packing_looks_at_no_photo_again():
    packer = Packer(Limits(photos=9, bytes_in_request=1000, bytes_in_photo=1000))
    entries = [Entry(position, b"", image=None, bytes_in_request=400) for position in range(5)]
    batches = [batch for entry in entries for batch in packer.add(entry)] + list(packer.rest())
    assert [len(batch) for batch in batches] == [2, 2, 1]


@given(sizes=st.lists(st.integers(0, 300)), photos=st.integers(1, 5), room=st.integers(364, 1000))
def test_batches_hold_every_entry_once_in_order_within_the_limits(sizes, photos, room):
    limits = Limits(photos=photos, bytes_in_request=room, bytes_in_photo=300)
    packer = Packer(limits)
    entries = [read_entry(position, bytes(size), limits) for position, size in enumerate(sizes)]
    batches = [batch for entry in entries for batch in packer.add(entry)] + list(packer.rest())
    assert [entry for batch in batches for entry in batch] == entries
    assert all(1 <= len(batch) <= photos for batch in batches)
    assert all(sum(entry.bytes_in_request for entry in batch) <= room for batch in batches)
