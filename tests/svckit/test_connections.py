"""Connections end while callers make calls: for their age, and with certificates that are replaced. No call fails."""

import itertools
import queue
import threading
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
import vmmr
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from tests.conftest import TIMEOUT_S

CALLERS = 3
EMBED = "/vmmr.embedder.v1.EmbedderService/Embed"
PHOTO = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"0")])


class Load:
    """Callers who call without a pause, each in a thread, until the end of the block."""

    def __init__(self, call) -> None:
        self.failures = []
        self._call = call
        self._over = False
        self._counts = [0] * CALLERS
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CALLERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over = True
        for thread in self._threads:
            thread.join()

    def go_on(self, calls: int = 30) -> None:
        """Wait until each caller has made so many calls more, from their beginning to their end."""
        aim = [count + calls + 1 for count in self._counts]
        with self._more:
            assert self._more.wait_for(
                lambda: self.failures or all(a <= b for a, b in zip(aim, self._counts, strict=True)), TIMEOUT_S
            )

    def _run(self, number: int) -> None:
        while not self._over:
            try:
                self._call()
            except Exception as error:  # noqa: BLE001 (whatever it is, it is a call that failed)
                self.failures.append(error)
            with self._more:
                self._counts[number] += 1
                self._more.notify_all()


@contextmanager
def channel(port: int):
    """A channel as gRPC makes it: a call that has met the end of its connection, and was not begun, it sends anew by itself."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened


def peers(server) -> set[str]:
    return {line["peer"] for line in server.logged("call")}


def test_calls_go_over_a_new_connection_when_one_has_its_age_and_none_fails(spawn):
    server = spawn("--max-connection-age-s", "0.05")
    with channel(server.ready()["port"]) as opened:
        embed = embedder_pb2_grpc.EmbedderServiceStub(opened).Embed
        with Load(lambda: embed(PHOTO, timeout=TIMEOUT_S)) as load:
            for _ in itertools.takewhile(lambda _: len(peers(server)) < 5, range(300)):
                load.go_on(10)
    assert load.failures == []
    assert len(peers(server)) >= 5


@pytest.mark.parametrize(("age", "others"), [("0.05", True), ("0", False)])
def test_a_call_that_runs_longer_than_a_connection_has_left_is_answered_over_it(spawn, age, others):
    server, messages = spawn("--max-connection-age-s", age), queue.SimpleQueue()
    with channel(server.ready()["port"]) as opened:
        stub = embedder_pb2_grpc.EmbedderServiceStub(opened)
        embed = opened.stream_unary(EMBED, response_deserializer=embedder_pb2.EmbedResponse.FromString)
        running = embed.future(iter(messages.get, None), timeout=TIMEOUT_S)  # its message does not come before that
        calls = 0
        while calls < 30 or (others and len(peers(server)) < 2):
            stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)
            calls += 1
        for message in (PHOTO.SerializeToString(), None):
            messages.put(message)
        assert running.result(TIMEOUT_S).embeddings.dimension == 1
    server.nth("call", calls + 1)
    (held,) = {line["peer"] for line in server.logged("call") if line["method"] == EMBED}
    assert held == server.first("call")["peer"], "the connection that had its age"
    assert (len(peers(server)) > 1) is others


class Parties:
    """The files of a server and of its client, who must have certificates of a CA that the other trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tls = vmmr.TLS(ca=folder / "client-ca.pem", cert=folder / "client.pem", key=folder / "client-key.pem")
        self.server = {"--tls-client-ca": "server-ca.pem", "--tls-cert": "server.pem", "--tls-key": "server-key.pem"}

    @property
    def flags(self) -> list:
        return [part for flag, name in self.server.items() for part in (flag, self.folder / name)]

    def trust(self, *cas: trustme.CA) -> None:
        for side in ("server", "client"):
            (self.folder / f"{side}-ca.pem").write_bytes(b"".join(ca.cert_pem.bytes() for ca in cas))

    def take(self, ca: trustme.CA, load: Load | None = None) -> None:
        """Replace certificates and keys, one file after the other: for a while there are pairs that do not go together."""
        for side, name in (("server", "127.0.0.1"), ("client", "client@example.org")):
            issued = ca.issue_cert(name)
            (self.folder / f"{side}-key.pem").write_bytes(issued.private_key_pem.bytes())
            if load:
                load.go_on()
            (self.folder / f"{side}.pem").write_bytes(b"".join(link.bytes() for link in issued.cert_chain_pems))


def test_certificates_and_their_ca_are_replaced_under_load_and_no_call_fails(spawn, tmp_path):
    old, new, parties = trustme.CA(), trustme.CA(), Parties(tmp_path)
    parties.trust(old)
    parties.take(old)
    server = spawn(*parties.flags, "--max-connection-age-s", "0.1")
    target = f"127.0.0.1:{server.ready()['port']}"

    def newcomer(tls: vmmr.TLS, reconnect_s: float | None = None) -> None:
        with vmmr.Client(target, tls=tls, timeout_s=TIMEOUT_S, reconnect_s=reconnect_s) as client:
            client.embed([b"0"])

    with (
        vmmr.Client(target, tls=parties.tls, timeout_s=TIMEOUT_S) as client,
        Load(lambda: client.embed([b"0"])) as load,
    ):
        for change in (
            lambda: parties.trust(old, new),
            lambda: parties.take(new, load),
            lambda: parties.trust(new),
        ):
            load.go_on()
            change()
            load.go_on()
            newcomer(parties.tls)
    assert load.failures == []
    assert len(peers(server)) > 3
    old_ca = tmp_path / "old.pem"
    old.cert_pem.write_to_path(old_ca)
    with pytest.raises(vmmr.UnavailableError, match="not trusted"):
        newcomer(vmmr.TLS(ca=old_ca, cert=parties.tls.cert, key=parties.tls.key))
    parties.take(old)
    with pytest.raises(vmmr.UnavailableError):
        newcomer(vmmr.TLS(ca=old_ca, cert=parties.tls.cert, key=parties.tls.key), reconnect_s=0.01)
