"""What is particular to the client for threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import vmmr


def test_threads_share_a_client_and_each_gets_its_own_answers(services):
    with vmmr.Client(*services.targets) as client, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: client.identify(b"%d" % n), range(200)))
    assert [each.answer.year for each in found] == [2000 + n for n in range(200)]
    assert len({each.request_id for each in found}) == 200


def test_threads_may_be_the_first_to_use_a_client_together(services):
    start = threading.Barrier(8)

    def first(n: int) -> int:
        start.wait(10)
        return client.identify(b"%d" % n).answer.year

    with vmmr.Client(*services.targets) as client, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(first, range(8))) == [2000 + n for n in range(8)]


def test_closing_the_client_is_an_error_of_calls_in_other_threads(services):
    waits, leave = threading.Event(), threading.Event()
    services.embedder.script.then(lambda *_: waits.set() or (leave.wait(30) and None))
    client = vmmr.Client(*services.targets, timeout_s=60)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.identify, b"1")
        assert waits.wait(10)
        client.close()
        with pytest.raises(vmmr.CallError) as caught:
            call.result(10)
        assert caught.value.status == "CANCELLED"
    leave.set()


def test_leaving_the_with_block_closes(services):
    with vmmr.Client(*services.targets) as client:
        client.identify(b"1")
    with pytest.raises(RuntimeError, match="closed"):
        client.info()
