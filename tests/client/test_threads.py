"""What is particular to the client for threads."""

import _thread
import sys
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

import pytest
import vmmr
from vmmr import _calls, _threads


def test_threads_share_a_client_and_each_gets_its_own_answers(services):
    with vmmr.Client(*services.targets) as client, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: client.identify(b"%d" % n), range(200)))
    assert [each.answer.year for each in found] == [2000 + n for n in range(200)]
    assert len({each.request_id for each in found}) == 200


def test_threads_may_be_the_first_to_use_a_client_together(services):
    start = threading.Barrier(8)

    def first(n: int) -> int:
        start.wait(60)
        return client.identify(b"%d" % n).answer.year

    with vmmr.Client(*services.targets) as client, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(first, range(8))) == [2000 + n for n in range(8)]


def test_closing_the_client_is_an_error_of_calls_in_other_threads(services):
    waits, leave = threading.Event(), threading.Event()
    services.embedder.script.then(lambda *_: waits.set() or (leave.wait(60) and None))
    client = vmmr.Client(*services.targets, timeout_s=60)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.identify, b"1")
        assert waits.wait(60)
        client.close()
        with pytest.raises(vmmr.CallError) as caught:
            call.result(60)
        assert caught.value.status == "CANCELLED"
    leave.set()


def test_closing_between_two_calls_of_an_operation_is_the_same_error(services, monkeypatch):
    client = vmmr.Client(*services.targets)
    classify = _calls.classify
    monkeypatch.setattr(_calls, "classify", lambda *args, **how: client.close() or classify(*args, **how))
    with pytest.raises(vmmr.CallError, match="the client was closed during the call") as caught:
        client.identify(b"1")
    assert caught.value.status == "CANCELLED"


@pytest.mark.parametrize(
    "identify", [vmmr.Client.identify, lambda client, photo: next(client.identify_many([photo])).result()]
)
def test_and_closing_at_the_moment_a_call_is_made(services, monkeypatch, identify):
    client = vmmr.Client(*services.targets)
    find = client._connection.method

    def method(call):
        found = find(call)
        if call.method == "Embed":
            client.close()
        return found

    monkeypatch.setattr(client._connection, "method", method)
    with pytest.raises(vmmr.CallError, match="the client was closed during the call"):
        identify(client, b"1")


def test_photos_after_the_client_was_closed_are_asked_for_in_vain(services):
    client = vmmr.Client(*services.targets)
    outcomes = client.identify_many((b"1" for _ in count()), batch=1)
    next(outcomes)
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        list(outcomes)


def test_leaving_the_with_block_closes(services):
    with vmmr.Client(*services.targets) as client:
        client.identify(b"1")
    with pytest.raises(RuntimeError, match="closed"):
        client.info()


def test_an_interrupt_that_came_just_before_a_wait_ends_it():
    """Python has noted it, and nothing wakes the thread that waits."""
    future, main = Future(), threading.main_thread().ident

    def interrupt():
        while (
            Future.result.__code__
            not in [frame.f_code for frame, _ in traceback.walk_stack(sys._current_frames()[main])][:2]
        ):
            pass
        _thread.interrupt_main()

    interrupting, ending = threading.Thread(target=interrupt), threading.Timer(60, future.set_result, [None])
    ending.start()
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        _threads.result_of(future)
    assert not future.done()
    ending.cancel()
    interrupting.join()


def test_a_future_that_fails_for_want_of_time_is_no_wait_that_goes_on():
    future = Future()
    future.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        _threads.result_of(future)
