import asyncio
import threading

import pytest
from grpc import StatusCode

from svckit.errors import Reason
from svckit.metrics import Metrics

TIMEOUT_S = 10


async def test_a_batcher_is_measured_under_its_name():
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    async with metrics.batcher("embed", lambda items: items, max_batch=4, max_queue=8) as batcher:
        await batcher.submit(range(6))
    assert value("vmmr_batch_items_count", {"batcher": "embed"}) == 2
    assert value("vmmr_batch_items_sum", {"batcher": "embed"}) == 6
    assert value("vmmr_batch_seconds_count", {"batcher": "embed"}) == 2
    assert value("vmmr_queue_items", {"batcher": "embed"}) == 0


async def test_the_queue_is_read_when_asked_for():
    metrics = Metrics()
    began, go = threading.Event(), threading.Event()

    def blocks(items):
        began.set()
        assert go.wait(TIMEOUT_S)
        return items

    async with metrics.batcher("embed", blocks, max_batch=1, max_queue=8) as batcher:
        task = asyncio.create_task(batcher.submit(range(5)))
        assert await asyncio.to_thread(began.wait, TIMEOUT_S)
        assert metrics.registry.get_sample_value("vmmr_queue_items", {"batcher": "embed"}) == 4
        age = metrics.registry.get_sample_value("vmmr_queue_age_seconds", {"batcher": "embed"})
        assert 0 < age < metrics.registry.get_sample_value("vmmr_queue_age_seconds", {"batcher": "embed"})
        go.set()
        await task
        assert metrics.registry.get_sample_value("vmmr_queue_age_seconds", {"batcher": "embed"}) == 0


async def test_a_batch_that_fails_is_measured_too():
    metrics = Metrics()

    def fails(items):
        raise ZeroDivisionError

    async with metrics.batcher("embed", fails, max_batch=1, max_queue=1) as batcher:
        with pytest.raises(ZeroDivisionError):
            await batcher.submit([1])
    assert metrics.registry.get_sample_value("vmmr_batch_seconds_count", {"batcher": "embed"}) == 1


def test_two_servers_in_one_process_do_not_share_metrics():
    one, other = Metrics(), Metrics()
    one.call_began()
    one.call_ended("/a.B/C", StatusCode.INTERNAL, Reason.INTERNAL, 0.1)
    assert one.registry.get_sample_value("vmmr_errors_total", {"reason": "INTERNAL"}) == 1
    assert other.registry.get_sample_value("vmmr_errors_total", {"reason": "INTERNAL"}) is None
