"""`vmmr-embedder serve --workers`: real processes on one port."""

import os
import signal

import pytest
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2

from embedder_svc.network.model import Model
from embedder_svc.photos import preprocess
from embedder_svc.serving.config import EmbedderConfig

TIMEOUT_S = 30


@pytest.fixture
def photo(scene, encode):
    return encode(scene, "JPEG")


def embedded(stub, photo):
    request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=photo)])
    return wire.unpack(stub.Embed(request, timeout=TIMEOUT_S, wait_for_ready=True).embeddings)


def test_every_worker_gives_the_embeddings_of_the_model_before_and_after_one_was_killed(
    tiny_bundle, photo, spawn, dial
):
    model = Model.open(tiny_bundle, device="cpu", threads=1)
    expected = model.embed([preprocess.decode(photo, resize=model.info.resizing, limits=EmbedderConfig().limits)])
    server = spawn("--model", tiny_bundle, "--workers", "2")
    port = server.ready()["port"]

    def ask_over_many_connections():
        answers = [embedded(dial(port), photo) for _ in range(16)]
        assert all((answer == expected).all() for answer in answers)
        server.nth("call", 16)
        return {call["worker"] for call in server.logged("call")}

    assert ask_over_many_connections() == {0, 1}
    os.kill(server.logged("worker ready")[0]["pid"], signal.SIGKILL)
    server.first("worker ended")
    ask_over_many_connections()
    server.popen.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_damaged_model_is_told_once_as_without_workers(make_bundle, tmp_path, spawn):
    make_bundle(tmp_path / "model")
    with (tmp_path / "model/model.onnx").open("ab") as graph:
        graph.write(b"damage")
    alone, together = spawn("--model", tmp_path / "model"), spawn("--model", tmp_path / "model", "--workers", "3")
    assert alone.fatal() == together.fatal()
    assert "model.onnx" in alone.fatal()
