"""A restart of the embedder, seen by its callers: a real process ends, and another takes its port."""

import asyncio
import io
import logging
import signal
import threading

import pytest
import vmmr
from PIL import Image

WAIT_S = 60


@pytest.fixture
def photo() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "green").save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def failed_once(caplog) -> threading.Event:
    """Set when a client has tried in vain, and waits to try again."""
    waits = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "trying again" in record.getMessage():
                waits.set()

    watch = Watch()
    logging.getLogger("vmmr").addHandler(watch)
    with caplog.at_level("INFO", "vmmr"):
        yield waits
    logging.getLogger("vmmr").removeHandler(watch)


def ask_async(target: str, photo: bytes) -> vmmr.Embeddings:
    async def ask() -> vmmr.Embeddings:
        async with vmmr.AsyncClient(target, timeout_s=WAIT_S) as client:
            return await client.embed([photo])

    return asyncio.run(ask())


def ask(target: str, photo: bytes) -> vmmr.Embeddings:
    with vmmr.Client(target, timeout_s=WAIT_S) as client:
        return client.embed([photo])


@pytest.mark.parametrize("caller", [ask, ask_async])
def test_a_caller_who_comes_while_nobody_listens_is_answered(  # noqa: PLR0917
    spawn, tiny_bundle, photo, failed_once, lasting_port, caller
):
    first = spawn("--model", tiny_bundle, "--port", lasting_port)
    first.ready()
    target = f"127.0.0.1:{lasting_port}"
    before = ask(target, photo)
    first.popen.send_signal(signal.SIGTERM)
    assert first.wait() == 0
    answers = []
    asking = threading.Thread(target=lambda: answers.append(caller(target, photo)))
    asking.start()
    assert failed_once.wait(WAIT_S), "the first attempt must have failed before there is a server again"
    spawn("--model", tiny_bundle, "--port", lasting_port).ready()
    asking.join(WAIT_S)
    assert [answer.vectors.tolist() for answer in answers] == [before.vectors.tolist()]


def test_so_is_a_caller_whose_server_is_killed_over_the_call(spawn, tiny_bundle, photo, failed_once, lasting_port):
    first = spawn("--model", tiny_bundle, "--port", lasting_port)
    first.ready()
    answers = []
    with vmmr.Client(f"127.0.0.1:{lasting_port}", timeout_s=WAIT_S) as client:
        before = client.embed([photo])
        first.popen.send_signal(signal.SIGSTOP)  # the call that follows reaches it, and no answer comes
        asking = threading.Thread(target=lambda: answers.append(client.embed([photo])))
        asking.start()
        first.popen.kill()
        assert first.popen.wait(WAIT_S) == -signal.SIGKILL
        assert failed_once.wait(WAIT_S)
        spawn("--model", tiny_bundle, "--port", lasting_port).ready()
        asking.join(WAIT_S)
    assert [answer.vectors.tolist() for answer in answers] == [before.vectors.tolist()]
