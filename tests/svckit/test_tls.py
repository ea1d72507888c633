"""TLS with certificates made for the occasion."""

import datetime as dt
import ssl
import urllib.request
from types import SimpleNamespace

import grpc
import pytest
import trustme
from cryptography import x509
from prometheus_client import CollectorRegistry
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from svckit import tls
from svckit.access.identity import Identity
from svckit.access.settings import AccessConfig
from svckit.config import ConfigError
from svckit.tls import ServerCertificate, read_token

TIMEOUT_S = 10


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def files(ca, tmp_path):
    """The settings of a server with a certificate."""
    write(ca.issue_cert("localhost", "127.0.0.1"), tmp_path)
    return {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}


def write(issued, folder) -> None:
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


@pytest.fixture
def mutual(ca, files, tmp_path):
    """The settings of a server that asks clients for certificates."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {**files, "tls_client_ca": tmp_path / "ca.pem"}


async def greet(port: int, credentials: grpc.ChannelCredentials) -> str:
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        return (await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)).model.name


async def refused(call) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_trusts_the_ca_gets_in(serve, files, ca):
    port = (await serve(**files)).server.port
    assert await greet(port, grpc.ssl_channel_credentials(ca.cert_pem.bytes())) == "echo"


async def test_a_client_that_trusts_another_ca_does_not(serve, files):
    port = (await serve(**files)).server.port
    assert await refused(greet(port, grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())))


async def test_a_client_without_tls_does_not(serve, files):
    served = await serve(**files)
    assert await refused(served.stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S))


async def test_mutual_tls_lets_in_the_clients_of_its_ca_alone(serve, mutual, ca):
    port = (await serve(**mutual)).server.port

    def shown(issuer: trustme.CA) -> grpc.ChannelCredentials:
        client = issuer.issue_cert("client@example.org")
        chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
        return grpc.ssl_channel_credentials(ca.cert_pem.bytes(), client.private_key_pem.bytes(), chain)

    assert await greet(port, shown(ca)) == "echo"
    assert await refused(greet(port, shown(trustme.CA())))
    assert await refused(greet(port, grpc.ssl_channel_credentials(ca.cert_pem.bytes())))


def leaf(issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())


def presented(port: int) -> x509.Certificate:
    """What a server presents to whoever connects now."""
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode())


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as reply:
        lines = [line.split(" ") for line in reply.read().decode().splitlines() if line.startswith("vmmr_tls_")]
    return {name: float(value) for name, value in lines}


def test_a_new_certificate_is_presented_to_those_who_connect_from_then_on(spawn, files, ca, tmp_path):
    server = spawn("--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"], "--metrics-port", "0")
    ready = server.ready()
    before = presented(ready["port"])
    issued = ca.issue_cert("localhost")
    write(issued, tmp_path)
    assert presented(ready["port"]) == leaf(issued) != before
    ends = leaf(issued).not_valid_after_utc.timestamp()
    assert metrics(ready["metrics_port"]) == {"vmmr_tls_not_after_seconds": ends, "vmmr_tls_stale": 0}


def test_a_pair_that_was_written_by_half_is_not_presented_and_told_once(spawn, files, ca, tmp_path):
    server = spawn("--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"], "--metrics-port", "0")
    ready = server.ready()
    before = presented(ready["port"])
    issued = ca.issue_cert("localhost")
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    assert [presented(ready["port"]) for _ in range(3)] == [before] * 3
    ends = before.not_valid_after_utc.timestamp()
    assert metrics(ready["metrics_port"]) == {"vmmr_tls_not_after_seconds": ends, "vmmr_tls_stale": 1}
    (tmp_path / "whole.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (tmp_path / "whole.pem").replace(tmp_path / "cert.pem")
    assert presented(ready["port"]) == leaf(issued)
    assert metrics(ready["metrics_port"])["vmmr_tls_stale"] == 0
    assert server.nth("TLS files read", 2)["ends"] == leaf(issued).not_valid_after_utc.isoformat()
    (told,) = server.logged("TLS files cannot be used")
    assert told["level"] == "ERROR"
    assert str(tmp_path / "key.pem") in told["error"]


def test_a_problem_is_seen_by_whoever_reads_the_metrics_though_nobody_connects(spawn, files):
    server = spawn("--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"], "--metrics-port", "0")
    ready = server.ready()
    files["tls_cert"].write_text("-----BEGIN CERTIFICATE-----\n")
    assert metrics(ready["metrics_port"])["vmmr_tls_stale"] == 1
    assert server.first("TLS files cannot be used")


def test_a_problem_is_told_though_nobody_connects_nor_reads_metrics(spawn, files, ca, tmp_path):
    server = spawn("--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"])
    server.ready()
    files["tls_cert"].write_text("-----BEGIN CERTIFICATE-----\n")
    assert server.first("TLS files cannot be used")["level"] == "ERROR"
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    write(ca.issue_cert("localhost", not_before=ended - dt.timedelta(days=1), not_after=ended), tmp_path)
    assert server.first("the TLS certificate has expired: clients refuse it")["level"] == "ERROR"


def test_a_certificate_that_ends_while_it_is_served_is_told_of_once(files, monkeypatch, caplog):
    certificate = ServerCertificate(files["tls_cert"], files["tls_key"])
    (presented,) = x509.load_pem_x509_certificates(files["tls_cert"].read_bytes())
    for seconds in (-1, 1, 2):
        now = presented.not_valid_after_utc.timestamp() + seconds
        monkeypatch.setattr(tls, "time", SimpleNamespace(time=lambda now=now: now))
        certificate.look()
        assert len(caplog.records) == (seconds > 0)
    assert caplog.messages == ["the TLS certificate has expired: clients refuse it"]


def test_the_first_certificate_of_the_chain_to_end_counts(tmp_path):
    issued = trustme.CA().issue_cert("localhost")
    write(issued, tmp_path)
    short = trustme.CA().issue_cert("intermediate", not_after=leaf(issued).not_valid_after_utc.replace(year=2030))
    with (tmp_path / "cert.pem").open("ab") as file:
        file.write(short.cert_chain_pems[0].bytes())
    registry = CollectorRegistry()
    ServerCertificate(tmp_path / "cert.pem", tmp_path / "key.pem").measure(registry)
    assert registry.get_sample_value("vmmr_tls_not_after_seconds") == leaf(short).not_valid_after_utc.timestamp()


def test_a_certificate_that_has_expired_is_told_of_by_the_log(spawn, files, ca, tmp_path):
    server = spawn("--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"], "--metrics-port", "0")
    ready = server.ready()
    expired = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    issued = ca.issue_cert("localhost", not_before=expired - dt.timedelta(days=1), not_after=expired)
    write(issued, tmp_path)
    assert metrics(ready["metrics_port"])["vmmr_tls_stale"] == 0
    told = server.first("the TLS certificate has expired: clients refuse it")
    ends = leaf(issued).not_valid_after_utc.isoformat()
    assert (told["level"], told["certificate"], told["ends"]) == ("ERROR", str(files["tls_cert"]), ends)


async def test_the_ca_of_clients_changes_too(serve, mutual, ca, tmp_path):
    port = (await serve(**mutual)).server.port
    other = trustme.CA()
    client = other.issue_cert("client@example.org")
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    shown = grpc.ssl_channel_credentials(ca.cert_pem.bytes(), client.private_key_pem.bytes(), chain)
    assert await refused(greet(port, shown))
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert await greet(port, shown) == "echo"


def test_a_key_of_another_certificate_is_told_by_file(files, tmp_path):
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(ConfigError, match=r"cert\.pem.*other\.pem"):
        ServerCertificate(files["tls_cert"], tmp_path / "other.pem")


def test_a_missing_file_is_told_alone(files, tmp_path):
    for certificate, key in (
        (tmp_path / "nowhere.pem", files["tls_key"]),
        (files["tls_cert"], tmp_path / "nowhere.pem"),
    ):
        with pytest.raises(ConfigError, match=rf"^TLS file {tmp_path}/nowhere\.pem: No such file or directory$"):
            ServerCertificate(certificate, key)


def test_a_damaged_certificate_is_told_without_its_key(files):
    files["tls_cert"].write_text("no certificate")
    with pytest.raises(ConfigError, match=rf"^TLS certificate {files['tls_cert']}: is no PEM certificate"):
        ServerCertificate(files["tls_cert"], files["tls_key"])


def test_a_ca_that_is_none_is_told_by_file(files, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"client CA .*ca\.pem"):
        ServerCertificate(files["tls_cert"], files["tls_key"], tmp_path / "ca.pem")


@pytest.mark.parametrize(("given", "message"), [({"tls_cert"}, "go together"), ({"tls_client_ca"}, "needs")])
def test_half_a_tls_setting_is_refused(echo, mutual, given, message):
    with pytest.raises(ConfigError, match=message):
        echo.EchoConfig(**{name: path for name, path in mutual.items() if name in given})


USELESS_TOKENS = {"missing": None, "blank": b" \n", "not text": b"\xff", "two lines": b"one\ntwo\n", "a tab": b"a\tb"}


@pytest.mark.parametrize("content", USELESS_TOKENS.values(), ids=USELESS_TOKENS)
@pytest.mark.parametrize(
    "read", [read_token, lambda path: Identity(AccessConfig(token_file=path), certificates=False)], ids=["web", "gRPC"]
)
def test_a_useless_token_file_is_told(tmp_path, content, read):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        read(path)
