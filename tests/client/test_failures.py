"""What goes wrong comes out as one of our exceptions, with all that the service said."""

import contextlib
import pickle
import select
import socket
import threading
import time
from contextlib import suppress

import grpc
import numpy as np
import pytest
import vmmr
from google.rpc import error_details_pb2
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2
from vmmr.search.v1 import search_pb2

from svckit.errors import STATUS, Reason, Violation
from tests.conftest import TIMEOUT_S

BY_REASON = {
    Reason.INVALID_IMAGE: vmmr.InvalidPhotoError,
    Reason.MODEL_MISMATCH: vmmr.ModelMismatchError,
    Reason.ITEM_NOT_FOUND: vmmr.ItemNotFoundError,
    Reason.UNKNOWN_MODEL: vmmr.CallError,
    Reason.NO_DETECTOR: vmmr.CallError,
    Reason.JOURNAL_FULL: vmmr.OverloadedError,
    Reason.JOURNAL_UNWRITABLE: vmmr.UnavailableError,
    Reason.COMPACTION_RUNNING: vmmr.CallError,
    Reason.COMPACTION_FAILED: vmmr.CallError,
    Reason.GALLERY_DAMAGED: vmmr.ServerError,
    Reason.UNAUTHENTICATED: vmmr.UnauthenticatedError,
    Reason.ROLE_REQUIRED: vmmr.UnauthenticatedError,
    Reason.LABEL_NOT_ALLOWED: vmmr.UnauthenticatedError,
    Reason.QUOTA_EXCEEDED: vmmr.OverloadedError,
    Reason.QUEUE_FULL: vmmr.OverloadedError,
    Reason.TOO_MANY_STREAMS: vmmr.OverloadedError,
    Reason.DEADLINE_EXCEEDED: vmmr.DeadlineExceededError,
    Reason.SHARD_TIMEOUT: vmmr.DeadlineExceededError,
    Reason.SEQUENCE_NOT_REACHED: vmmr.DeadlineExceededError,
    Reason.NOT_READY: vmmr.UnavailableError,
    Reason.SHUTTING_DOWN: vmmr.UnavailableError,
    Reason.INTERNAL: vmmr.ServerError,
}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_of_the_services_has_its_exception(client, services, fail, attempts, reason):
    attempts(1)
    services.embedder.script.marked[b""] = fail(reason, "told so")
    with pytest.raises(vmmr.CallError) as caught:
        client.identify(b"1")
    error = caught.value
    assert type(error) is BY_REASON.get(reason, vmmr.InvalidRequestError)
    assert error.reason == reason
    assert error.status == STATUS.get(reason, grpc.StatusCode.INVALID_ARGUMENT).name
    assert str(error) == f"embedder at {services.embedder_target}: told so"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, vmmr.InvalidRequestError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, vmmr.OverloadedError),
        (grpc.StatusCode.PERMISSION_DENIED, vmmr.UnauthenticatedError),
        (grpc.StatusCode.UNKNOWN, vmmr.ServerError),
        (grpc.StatusCode.DATA_LOSS, vmmr.ServerError),
        (grpc.StatusCode.FAILED_PRECONDITION, vmmr.CallError),
    ],
)
def test_a_status_without_details_a_proxy_s_say_has_an_exception_too(client, services, status, kind):
    services.search.script.then(lambda _, context: context.abort(status, "no"))
    with pytest.raises(vmmr.CallError) as caught:
        client.identify(b"1")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.reason, caught.value.violations) == (status.name, None, ())
    assert str(caught.value) == f"search service at {services.search_target}: no"


def test_services_that_were_swapped_say_so(connect, services):
    client = connect(embedder=services.search_target)
    with pytest.raises(vmmr.ServerError, match="isn't one, or is another version"):
        client.embed([b"1"])


def test_an_error_carries_its_details(client, services, fail):
    services.embedder.script.then(
        fail(
            "QUEUE_FULL",
            violations=[Violation("images", "TOO_MANY", "fewer"), Violation("images[0].crop", "INVALID_CROP", "")],
            retry_after_s=3600,
            metadata={"queued": "64"},
        )
    )
    with pytest.raises(vmmr.OverloadedError) as caught:
        client.embed([b"1"])
    error = caught.value
    assert error.violations == (
        vmmr.Violation("images", "TOO_MANY", "fewer"),
        vmmr.Violation("images[0].crop", "INVALID_CROP", ""),
    )
    assert error.retry_after_s == 3600
    assert error.metadata == {"queued": "64"}
    assert error.request_id == services.embedder.script.received[0].metadata["x-request-id"]
    assert str(error) == f"embedder at {services.embedder_target}: on purpose"


def test_an_error_survives_a_trip_to_another_process(client, services, fail):
    services.embedder.script.then(fail("INVALID_IMAGE", violations=[Violation("images[0].content", "X", "bad")]))
    with pytest.raises(vmmr.InvalidPhotoError) as caught:
        client.identify(b"1")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (type(caught.value), str(caught.value), vars(caught.value))


@pytest.mark.parametrize("trailer", [b"\xff\xff\xff", b""])
def test_details_that_cannot_be_read_are_no_details(client, services, trailer):
    def behaviour(_, context):
        context.set_trailing_metadata((("grpc-status-details-bin", trailer),))
        context.abort(grpc.StatusCode.INTERNAL, "oops")

    services.embedder.script.then(behaviour)
    with pytest.raises(vmmr.ServerError, match="oops") as caught:
        client.identify(b"1")
    assert caught.value.reason is None


def test_photos_that_are_refused_are_named(client):
    with pytest.raises(vmmr.InvalidPhotoError) as caught:
        client.embed([b"1", b"x", b"2", b"y"])
    assert caught.value.photos == (1, 3)
    assert isinstance(caught.value, vmmr.PhotoError)
    assert isinstance(caught.value, vmmr.InvalidRequestError)
    of_one = caught.value.of(3)
    assert of_one.violations == (vmmr.Violation("content", "IMAGE_FORMAT", "not an image"),)
    assert (of_one.reason, of_one.request_id) == ("INVALID_IMAGE", caught.value.request_id)
    assert str(of_one) == "content: not an image"


def test_a_service_that_is_not_there_is_unavailable(connect, attempts):
    attempts(1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: connections are refused
        target = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(vmmr.UnavailableError) as caught:
            connect(target, target, timeout_s=TIMEOUT_S).identify(b"1")
    said = "Failed to connect to remote host: Connection refused"
    assert str(caught.value) == f"no vmmr server answers at {target} (embedder): {said}"


class Wire:
    """A way to a server that can go dead, as when a machine loses its power: nothing comes, and nothing is closed."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections: list[threading.Event] = []
        """Set one and it is dead."""
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._over.set()
        while self._threads:
            self._threads.pop().join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                near, dead = self._listener.accept()[0], threading.Event()
                far = socket.create_connection((self._host, int(self._port)))
                self.connections.append(dead)
                self._threads += [threading.Thread(target=self._carry, args=(near, far, dead))]
                self._threads[-1].start()

    def _carry(self, near: socket.socket, far: socket.socket, dead: threading.Event) -> None:
        with near, far, contextlib.suppress(ConnectionError):  # an end that closes while the other sends resets it
            while not self._over.is_set():
                for source in select.select([near, far], [], [], 0.05)[0]:
                    content = source.recv(65536)
                    if not content:
                        return
                    if not dead.is_set():
                        (far if source is near else near).sendall(content)


@pytest.fixture
def wire_to_embedder(services):
    wire = Wire(services.embedder_target)
    yield wire
    wire.close()


def test_a_connection_that_went_dead_is_noticed_and_replaced(connect, services, wire_to_embedder):
    client = connect(wire_to_embedder.target, services.search_target, keepalive_s=0.3, timeout_s=60)
    client.identify(b"1")
    dead = list(wire_to_embedder.connections)
    for each in dead:
        each.set()
    assert client.identify(b"2").answer.year == 2002
    assert len(wire_to_embedder.connections) > len(dead)


def test_there_is_a_deadline_without_asking(connect, services):
    connect(*services.targets).identify(b"1")
    for script in (services.embedder.script, services.search.script):
        assert 0 < script.received[0].time_left_s < 11


def test_the_deadline_is_of_the_whole_operation(client, services):
    services.embedder.script.then(lambda *_: time.sleep(0.3))
    client.identify(b"1", timeout_s=60)
    assert services.search.script.received[0].time_left_s < 59.8


def test_a_service_that_does_not_answer_in_time_is_given_up(connect, services):
    client = connect(*services.targets, timeout_s=0.2)
    client.info(timeout_s=60)  # it is connected
    leave = threading.Event()
    services.embedder.script.then(lambda *_: leave.wait(60) and None)
    with pytest.raises(vmmr.DeadlineExceededError) as caught:
        client.identify(b"1")
    leave.set()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.status == "DEADLINE_EXCEEDED"


def test_a_time_out_that_passed_before_a_call_is_a_deadline_exceeded(client, services):
    client.info(timeout_s=60)  # it is connected
    services.embedder.script.then(lambda *_: time.sleep(0.15))
    with pytest.raises(vmmr.DeadlineExceededError):
        client.identify(b"1", timeout_s=0.1)


def test_too_large_a_request_is_not_mistaken_for_an_overload(connect, serve, services):
    target = serve(services.embedder, options=[("grpc.max_receive_message_length", 1000)])
    with pytest.raises(vmmr.MessageTooLargeError):
        connect(target, services.search_target).identify(b"1".rjust(5000))
    with pytest.raises(vmmr.MessageTooLargeError):
        connect(*services.targets, max_message_bytes=1000).embed([b"1".rjust(900), b"1".rjust(900)])


def embeddings(vectors) -> embedder_pb2.EmbedResponse:
    return embedder_pb2.EmbedResponse(embeddings=wire.pack("ab" * 32, np.array(vectors)))


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (embeddings(np.zeros((2, 4))), "the embedder gave 2 answers to 1 questions"),
        (embeddings([[float("nan")]]), "the embedder's embeddings are malformed: row 0"),
        (embedder_pb2.EmbedResponse(), "the embedder's embeddings are malformed: dimension"),
    ],
)
def test_embeddings_that_break_the_contract_are_refused(client, services, reply, complaint):
    services.embedder.script.then(lambda *_: reply)
    with pytest.raises(vmmr.ProtocolError, match=complaint):
        client.identify(b"1")


def test_answers_of_the_wrong_number_are_refused(client, services):
    embedded = client.embed([b"1"])
    services.search.script.then(lambda *_: search_pb2.ClassifyResponse(results=[search_pb2.Classification()] * 2))
    with pytest.raises(vmmr.ProtocolError, match="the search service gave 2 answers to 1 questions"):
        client.classify(embedded)
    services.search.script.then(lambda *_: search_pb2.SearchResponse(results=[search_pb2.Neighbours()] * 2))
    with pytest.raises(vmmr.ProtocolError, match="the search service gave 2 answers to 1 questions"):
        client.search(embedded)


def test_a_metric_of_the_future_is_refused(client, services):
    services.search.script.then(lambda *_: search_pb2.GetIndexResponse(index=search_pb2.Index(metric=99)))
    with pytest.raises(vmmr.ProtocolError, match="metric unknown to this SDK: 99"):
        client.info()


def test_nobody_at_a_unix_socket_is_told_in_words_of_its_own(connect, attempts, tmp_path):
    attempts(1)
    target = f"unix:{tmp_path}/vmmr.sock"
    with pytest.raises(vmmr.UnavailableError) as caught:
        connect(target, target, timeout_s=TIMEOUT_S).info()
    said = f"no vmmr server listens on the Unix socket {tmp_path}/vmmr.sock (embedder): No such file or directory"
    assert str(caught.value) == said


def test_another_kind_of_detail_is_no_hindrance(client, services):
    def behaviour(_, context):
        from google.protobuf import any_pb2
        from google.rpc import status_pb2

        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.Help(links=[error_details_pb2.Help.Link(url="https://example.com")]))
        status = status_pb2.Status(code=13, message="help", details=[packed])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.INTERNAL, "help")

    services.embedder.script.then(behaviour)
    with pytest.raises(vmmr.ServerError, match="help"):
        client.identify(b"1")
