"""TLS with certificates made for the occasion."""

import grpc
import pytest
import trustme
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from svckit.config import ConfigError
from svckit.tls import read_token, server_credentials

TIMEOUT_S = 10


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def files(ca, tmp_path):
    """The settings of a server with a certificate."""
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    return {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}


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


def test_a_key_of_another_certificate_is_told_by_file(files, tmp_path):
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(ConfigError, match=r"cert\.pem.*other\.pem"):
        server_credentials(files["tls_cert"], tmp_path / "other.pem", None)


def test_a_missing_certificate_is_told_by_file(files, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.pem.*No such file"):
        server_credentials(tmp_path / "nowhere.pem", files["tls_key"], None)


def test_a_ca_that_is_none_is_told_by_file(files, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"client CA .*ca\.pem"):
        server_credentials(files["tls_cert"], files["tls_key"], tmp_path / "ca.pem")


@pytest.mark.parametrize(("given", "message"), [({"tls_cert"}, "go together"), ({"tls_client_ca"}, "needs")])
def test_half_a_tls_setting_is_refused(echo, mutual, given, message):
    with pytest.raises(ConfigError, match=message):
        echo.EchoConfig(**{name: path for name, path in mutual.items() if name in given})


@pytest.mark.parametrize("content", [None, b" \n", b"\xff"], ids=["missing", "blank", "not text"])
def test_a_useless_token_file_is_told(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        read_token(path)
