"""What attackers try, on a real server with TLS: each is refused, named, counted and in the audit log.

What TLS or gRPC itself refuses (another CA, no TLS, too much metadata, too many connections) never becomes a call: it is refused, no more.
"""

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import threading
import time
from functools import partial
from types import SimpleNamespace

import grpc
import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc

from svckit.access import access
from svckit.access.identity import Identity
from svckit.access.quotas import Bucket, Quotas
from svckit.access.settings import AccessConfig
from svckit.config import ConfigError

TIMEOUT_S = 60
ISSUER, AUDIENCE = "https://issuer.example", "vmmr"
EMBED = "/vmmr.embedder.v1.EmbedderService/Embed"
COMPACT = "/vmmr.gallery.v1.GalleryService/Compact"
TOKENS = ("shop", "importer", "chief", "late", "thrifty")


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


CALLERS = """
[caller.shop]
role = "query"
certificates = ["shop.example"]
subjects = ["shop-by-jwt"]

[caller.importer]
role = "enrol"

[caller.chief]
role = "admin"

[caller.late]
role = "admin"

[caller.thrifty]
role = "query"
requests_per_s = 1
photos_per_s = 0.5
photos_per_call = 3
concurrent_calls = 1
""" + "\n".join(
    f'[[token]]\ncaller = "{name}"\nsha256 = "{sha256(name)}"\n' + ("expires = 2026-01-01\n" if name == "late" else "")
    for name in TOKENS
)


class Gallery(gallery_pb2_grpc.GalleryServiceServicer):
    """Says that whatever is asked was done."""

    async def AddItems(self, request, context):  # noqa: N802 (the protocol's name)
        return gallery_pb2.AddItemsResponse(added=len(request.items), journal_sequence=7)

    async def Compact(self, request, context):  # noqa: N802 (the protocol's name)
        return gallery_pb2.CompactResponse(index_version="000002", journal_sequence=7)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def settings(ca, key, tmp_path):
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "callers.toml").write_text(CALLERS)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [public]}))
    return {
        "tls_cert": tmp_path / "cert.pem",
        "tls_key": tmp_path / "key.pem",
        "callers": tmp_path / "callers.toml",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_keys": str(tmp_path / "keys.json"),
        "audit_log": tmp_path / "audit.jsonl",
    }


@pytest.fixture
async def served(echo, settings, ca, monkeypatch):
    """`served(...)` starts a server of both services; its `call` sends a request to it with the token of a caller."""
    monkeypatch.setattr(access, "_LOOK_S", 0.01)
    async with contextlib.AsyncExitStack() as stack:

        async def start(**more):
            config = echo.EchoConfig(**{"drain_pause_s": 0.0, **settings, **more})
            server, batcher = echo.build(config)
            server.add(
                gallery_pb2_grpc.add_GalleryServiceServicer_to_server, Gallery(), "vmmr.gallery.v1.GalleryService"
            )
            stack.push_async_callback(batcher.close)
            stack.push_async_callback(server.stop)
            await server.start()
            await server.open()
            credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
            channel = await stack.enter_async_context(grpc.aio.secure_channel(f"localhost:{server.port}", credentials))
            return SimpleNamespace(server=server, channel=channel, audit=settings["audit_log"])

        yield start


def photos(count=1):
    return embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"1")] * count)


async def embed(channel, token=None, count=1, authorization=None):
    given = authorization if token is None else f"Bearer {token}"
    metadata = (("authorization", given),) if given else ()
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    return await stub.Embed(photos(count), metadata=metadata, timeout=TIMEOUT_S)


async def gallery(channel, method, request, token):
    call = getattr(gallery_pb2_grpc.GalleryServiceStub(channel), method)
    return await call(request, metadata=(("authorization", f"Bearer {token}"),), timeout=TIMEOUT_S)


def lines(served):
    return [json.loads(line) for line in served.audit.read_text().splitlines()]


def counted(served, reason):
    return served.server.metrics.registry.get_sample_value("vmmr_errors_total", {"reason": reason}) or 0


def details(error):
    found = {}
    for detail in rpc_status.from_call(error).details:
        message = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])()
        assert detail.Unpack(message)
        found[type(message).__name__] = message
    return found


@contextlib.asynccontextmanager
async def refused(served, code, reason, caller, method=EMBED):
    """The calls in the block fail so, and each is counted and in the audit log, under this name. Gives their details."""
    before, noted = counted(served, reason), len(lines(served))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield caught
    assert caught.value.code() is code
    caught.details = details(caught.value)
    assert caught.details["ErrorInfo"].reason == reason
    assert counted(served, reason) == before + 1
    (line,) = lines(served)[noted:]
    told = {name: line[name] for name in ("caller", "method", "outcome", "reason", "error")}
    assert told == {
        "caller": caller,
        "method": method,
        "outcome": code.name,
        "reason": reason,
        "error": caught.value.details(),
    }
    assert line["peer"].startswith(("ipv4:", "ipv6:"))
    assert line["details"] == dict(caught.details["ErrorInfo"].metadata)
    assert line["request_id"] == caught.details["RequestInfo"].request_id


def stranger(served):
    return refused(served, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", None)


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "cause", "says"),
    [
        (None, "missing", "there is none"),
        ("Bearer wrong", "unknown_token", "it is not known"),
        ("Bearer ", "unknown_token", "it is not known"),
        (f"Bearer {sha256('chief')}", "unknown_token", "it is not known"),
        ("chief", "scheme", "no valid token"),
        ("Basic chief", "scheme", "no valid token"),
        ("Bearer late", "expired", "the token of late expired at 2026-01-01T00:00:00Z"),
        ("Bearer a.b.c", "bad_jwt", "the JWT is not valid"),
    ],
)
async def test_a_stranger(served, authorization, cause, says):
    server = await served()
    async with stranger(server) as caught:
        await embed(server.channel, authorization=authorization)
    assert caught.details["ErrorInfo"].metadata["cause"] == cause
    assert says in caught.value.details()


async def test_a_token_that_was_revoked_or_added_while_the_server_runs(served, settings):
    server = await served()
    await embed(server.channel, "shop")
    settings["callers"].write_text(CALLERS.replace(sha256("shop"), sha256("shop's next")))
    await until(lambda: embed(server.channel, "shop's next"))
    async with stranger(server):
        await embed(server.channel, "shop")


@pytest.mark.parametrize("content", ["[caller", ""])
async def test_a_broken_file_of_callers_lets_in_those_it_let_in_before(served, settings, content):
    server = await served()

    def problem(source):
        return server.server.metrics.registry.get_sample_value("vmmr_access_problem", {"source": source})

    assert problem("callers file") == problem("JWT keys") == 0
    settings["callers"].write_text(content)
    async with asyncio.timeout(TIMEOUT_S):
        while problem("callers file") == 0:  # noqa: ASYNC110 (a gauge has no event)
            await asyncio.sleep(0.01)
    await embed(server.channel, "shop")


def test_an_empty_file_of_callers_ends_a_server_at_its_start(tmp_path):
    (tmp_path / "callers.toml").touch()
    with pytest.raises(ConfigError, match=r"^callers file /.*/callers\.toml: is empty: it lists no caller"):
        Identity(AccessConfig(callers=tmp_path / "callers.toml"), certificates=False)


async def until(call):
    """Wait until the call is let in."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return await call()
            await asyncio.sleep(0.01)


def signed(key, **fields):
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "exp": time.time() + 600, **fields}, key, "ES256")


@pytest.mark.parametrize("fields", [{"exp": 1}, {"aud": "another"}, {"iss": "another"}], ids=str)
async def test_a_jwt_that_is_not_for_here_and_now(served, key, fields):
    server = await served()
    async with stranger(server):
        await embed(server.channel, signed(key, roles=["admin"], **fields))


async def test_a_jwt_that_somebody_else_signed_or_nobody(served):
    server = await served()
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "exp": time.time() + 600, "roles": ["admin"]}
    for forged in (signed(ec.generate_private_key(ec.SECP256R1()), **said), jwt.encode(said, None, "none")):
        async with stranger(server):
            await embed(server.channel, forged)


async def test_a_jwt_has_the_role_it_says_or_that_of_the_caller_who_is_listed_and_cannot_take_a_name(served, key):
    server = await served()
    for _ in range(2):
        await embed(server.channel, signed(key, roles=["query"]))
    assert await gallery(
        server.channel, "Compact", gallery_pb2.CompactRequest(), signed(key, sub="chief", roles="admin")
    )
    assert lines(server)[-1]["caller"] == "jwt:chief"
    low = grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED"
    for roles in ({}, {"roles": ["other", "none"]}):
        async with refused(server, *low, "jwt:u") as caught:
            await embed(server.channel, signed(key, **roles))
        assert caught.details["ErrorInfo"].metadata == {"role": "none", "needed": "query"}
        assert caught.value.details().startswith("jwt:u has none of the roles query, enrol, admin in the claim `roles`")
    async with refused(server, *low, "jwt:u", "/vmmr.gallery.v1.GalleryService/DeleteItems"):
        await gallery(server.channel, "DeleteItems", gallery_pb2.DeleteItemsRequest(batch_id="b"), signed(key))
    async with refused(server, *low, "shop", COMPACT):
        token = signed(key, sub="shop-by-jwt", roles=["admin"])
        await gallery(server.channel, "Compact", gallery_pb2.CompactRequest(), token)


async def test_an_issuer_that_signs_with_a_new_key_is_asked_for_it(served, settings, key, monkeypatch):
    monkeypatch.setattr("svckit.access.identity._REFRESH_S", 0.0)
    monkeypatch.setattr(access, "_LOOK_S", 3600)
    server = await served()
    fresh = ec.generate_private_key(ec.SECP256R1())
    keys = [
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(k.public_key())), "kid": str(k is fresh)} for k in (key, fresh)
    ]
    settings["callers"].with_name("keys.json").write_text(json.dumps({"keys": keys}))
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "exp": time.time() + 600, "roles": ["query"]}
    # Until then there was one key, which tokens need not name.
    with pytest.raises(grpc.aio.AioRpcError):
        await embed(server.channel, jwt.encode(said, fresh, "ES256"))
    await embed(server.channel, jwt.encode(said, fresh, "ES256", headers={"kid": "True"}))


# --- roles and quotas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_", "caller"),
    [
        ("AddItems", gallery_pb2.AddItemsRequest(items=[gallery_pb2.Item(item_id="1")]), "shop"),
        ("Compact", gallery_pb2.CompactRequest(), "importer"),
    ],
)
async def test_a_role_that_is_too_low(served, method, request_, caller):
    server = await served()
    full = f"/vmmr.gallery.v1.GalleryService/{method}"
    async with refused(server, grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", caller, full) as caught:
        await gallery(server.channel, method, request_, caller)
    assert caught.details["ErrorInfo"].metadata["role"] == {"shop": "query", "importer": "enrol"}[caller]
    await gallery(server.channel, method, request_, "chief")


async def test_writes_are_noted_with_who_what_how_many_and_the_sequence(served, caplog):
    caplog.set_level("INFO", "svckit.calls")
    server = await served()
    items = [gallery_pb2.Item(item_id=str(n), label="lada_niva_1999", batch_id="b") for n in range(3)]
    await gallery(server.channel, "AddItems", gallery_pb2.AddItemsRequest(items=items), "importer")
    await embed(server.channel, "importer")
    (line,) = lines(server)
    told = {name: line[name] for name in line if name not in ("time", "peer", "request_id")}
    assert told == {
        "caller": "importer",
        "method": "/vmmr.gallery.v1.GalleryService/AddItems",
        "outcome": "OK",
        "items": 3,
        "item_ids": ["0", "1", "2"],
        "labels": ["lada_niva_1999"],
        "labels_in_all": 1,
        "batch_ids": ["b"],
        "added": 3,
        "replaced": 0,
        "unchanged": 0,
        "journal_sequence": 7,
    }
    assert [record.caller for record in caplog.records if record.message == "call"] == ["importer", "importer"]


def over(served):
    return refused(served, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "thrifty")


@pytest.fixture
def frozen_quotas(monkeypatch):
    """No time passes in which callers could get anything anew."""
    monkeypatch.setattr(access, "Quotas", partial(Quotas, clock=lambda: 0.0))


async def test_more_requests_a_second_than_agreed(served, frozen_quotas):
    server = await served()
    await embed(server.channel, "thrifty")
    async with over(server) as caught:
        await embed(server.channel, "thrifty")
    assert caught.details["ErrorInfo"].metadata == {"quota": "requests_per_s", "limit": "1"}
    assert 0 < caught.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() <= 1
    await embed(server.channel, "shop")


async def test_the_holders_of_many_jwts_get_no_more_by_driving_each_other_out_of_what_is_remembered(
    served, settings, key, monkeypatch
):
    monkeypatch.setattr("svckit.access.quotas._MOST_CALLERS", 1)
    settings["callers"].write_text(f"{CALLERS}\n[defaults]\nrequests_per_s = 0.001\n")
    server = await served()
    await embed(server.channel, signed(key, sub="a", roles=["query"]))
    quotas = []
    for subject in "bca":
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(server.channel, signed(key, sub=subject, roles=["query"]))
        quotas.append(details(caught.value)["ErrorInfo"].metadata["quota"])
    assert quotas == ["callers", "callers", "requests_per_s"]
    await embed(server.channel, "shop")


async def test_more_photos_in_a_call_or_a_second_than_agreed(served, settings, frozen_quotas):
    settings["callers"].write_text(CALLERS.replace("requests_per_s = 1\n", ""))
    server = await served()
    async with over(server) as caught:
        await embed(server.channel, "thrifty", count=4)
    assert caught.details["ErrorInfo"].metadata["quota"] == "photos_per_call"
    assert "RetryInfo" not in caught.details, "it will not fit later either"
    await embed(server.channel, "thrifty", count=3)
    async with over(server) as caught:
        await embed(server.channel, "thrifty")
    assert caught.details["ErrorInfo"].metadata["quota"] == "photos_per_s"
    assert 1 < caught.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() <= 6


async def test_more_calls_at_once_than_agreed_even_if_their_messages_never_come(served):
    server = await served()
    metadata = (("authorization", "Bearer thrifty"),)
    held = server.channel.stream_unary(EMBED)(metadata=metadata)
    await in_flight(server, 1)
    async with over(server) as caught:
        await embed(server.channel, "thrifty")
    assert caught.details["ErrorInfo"].metadata["quota"] == "concurrent_calls"
    assert "RetryInfo" in caught.details
    held.cancel()


async def in_flight(served, calls):
    async with asyncio.timeout(TIMEOUT_S):
        while served.server.metrics.registry.get_sample_value("vmmr_calls_in_flight") < calls:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
def frozen_buckets(monkeypatch):
    """Nothing flows into the buckets of refusals, so that each kind has lines for those at once alone."""
    monkeypatch.setattr(access, "Bucket", partial(Bucket, clock=lambda: 0.0))


@pytest.mark.parametrize("anew", [False, True])
async def test_what_has_no_effect_is_warned_of_at_the_start_and_when_the_file_is_read_anew(
    served, settings, caplog, anew
):
    useless = CALLERS.replace('role = "query"\ncert', 'role = "query"\nlabel_prefixes = ["acme_"]\ncert')
    if not anew:
        settings["callers"].write_text(useless)
    await served()
    warned = "label_prefixes of shop: its role may add and delete nothing"
    assert (warned in told_of(caplog)) is not anew
    assert "certificates of shop: without --tls-client-ca, no certificate is looked at" in told_of(caplog)
    if anew:
        settings["callers"].write_text(useless)
        async with asyncio.timeout(TIMEOUT_S):
            while warned not in told_of(caplog):  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def told_of(caplog):
    return [each.what for each in caplog.records if "no effect" in each.message]


async def test_strangers_have_a_few_lines_of_the_audit_log_and_take_none_of_those_of_callers(served, frozen_buckets):
    server = await served()
    outcomes = await asyncio.gather(*(embed(server.channel, "wrong") for _ in range(300)), return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in outcomes)
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError):
            await gallery(server.channel, "Compact", gallery_pb2.CompactRequest(), "shop")
    await gallery(server.channel, "Compact", gallery_pb2.CompactRequest(), "chief")
    noted = lines(server)
    assert [line["caller"] for line in noted] == [None] * 100 + ["shop", "shop", "chief"]
    assert [line.get("left_out") for line in noted[100:]] == [200, None, None]
    assert counted(server, "UNAUTHENTICATED") == 300


async def test_a_jwt_without_a_role_has_no_more_lines_than_a_stranger(served, key, frozen_buckets):
    server = await served()
    token = signed(key, roles=[])
    await asyncio.gather(*(embed(server.channel, token) for _ in range(150)), return_exceptions=True)
    assert len(lines(server)) == 100
    with pytest.raises(grpc.aio.AioRpcError):
        await gallery(server.channel, "Compact", gallery_pb2.CompactRequest(), "shop")
    assert lines(server)[-1]["left_out"] == 50


async def test_callers_who_are_known_do_not_fill_the_audit_log_either(served, frozen_buckets):
    server = await served()
    request = gallery_pb2.CompactRequest()
    calls = (gallery(server.channel, "Compact", request, "shop") for _ in range(150))
    await asyncio.gather(*calls, return_exceptions=True)
    await server.server.stop()
    assert len(lines(server)) == 101
    assert lines(server)[-1]["left_out"] == 50


async def test_a_line_of_a_stranger_is_as_short_as_the_page_says(served):
    server = await served()
    with pytest.raises(grpc.aio.AioRpcError):
        await embed_as("x" * 128, server.channel)
    assert len(server.audit.read_bytes()) < 500


async def embed_as(request_id, channel):
    metadata = (("x-request-id", request_id), ("authorization", "Bearer wrong"))
    await embedder_pb2_grpc.EmbedderServiceStub(channel).Embed(photos(), metadata=metadata, timeout=TIMEOUT_S)


# --- connections ------------------------------------------------------------------------------------------------------


async def unavailable(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def certified(ca, issuer, name):
    issued = issuer.issue_cert(name)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return grpc.ssl_channel_credentials(ca.cert_pem.bytes(), issued.private_key_pem.bytes(), chain)


@pytest.fixture
async def connect():
    async with contextlib.AsyncExitStack() as stack:

        async def connected(server, credentials):
            channel = grpc.aio.secure_channel(f"localhost:{server.server.port}", credentials)
            return await stack.enter_async_context(channel)

        yield connected


async def test_a_certificate_is_who_it_names_if_our_ca_signed_it(served, settings, ca, connect):
    server = await served(tls_client_ca=settings["callers"].with_name("ca.pem"))
    shop = await connect(server, certified(ca, ca, "shop.example"))
    await embed(shop)
    await embed(shop, "importer")
    async with stranger(server) as caught:
        await embed(shop, "wrong")
    assert caught.details["ErrorInfo"].metadata["cause"] == "unknown_token", (
        "a wrong token is not made good by a certificate"
    )
    async with refused(server, grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", "shop", COMPACT):
        await gallery_pb2_grpc.GalleryServiceStub(shop).Compact(gallery_pb2.CompactRequest(), timeout=TIMEOUT_S)
    async with stranger(server) as caught:
        await embed(await connect(server, certified(ca, ca, "somebody.example")))
    assert caught.details["ErrorInfo"].metadata["cause"] == "unknown_certificate"
    assert "no caller that is listed has a certificate of 'somebody.example'" in caught.value.details()
    assert await unavailable(embed(await connect(server, certified(ca, trustme.CA(), "shop.example")), "chief"))
    assert await unavailable(embed(await connect(server, grpc.ssl_channel_credentials(ca.cert_pem.bytes())), "chief"))


async def test_without_a_file_of_callers_whoever_our_ca_knows_may_do_everything_under_its_name(
    served, settings, ca, connect
):
    nobody = dict.fromkeys(("callers", "jwt_issuer", "jwt_audience", "jwt_keys"))
    server = await served(tls_client_ca=settings["callers"].with_name("ca.pem"), **nobody)
    shop = gallery_pb2_grpc.GalleryServiceStub(await connect(server, certified(ca, ca, "shop.example")))
    await shop.Compact(gallery_pb2.CompactRequest(), timeout=TIMEOUT_S)
    assert lines(server)[-1]["caller"] == "shop.example"


def handshake(server, ca, version):
    context = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", server.server.port), TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        return secure.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_an_old_version_of_tls_and_none(served, ca):
    server = await served()
    assert await asyncio.to_thread(handshake, server, ca, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.to_thread(handshake, server, ca, version)
    async with grpc.aio.insecure_channel(f"localhost:{server.server.port}") as plain:
        assert await unavailable(embed(plain, "shop"))


async def test_too_much_metadata(served):
    server = await served()
    huge = tuple((f"x-{number}", "x" * 4000) for number in range(20))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embedder_pb2_grpc.EmbedderServiceStub(server.channel).Embed(photos(), metadata=huge, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "metadata" in caught.value.details()
    await embed(server.channel, "shop")


async def test_more_connections_than_the_server_takes(served):
    server = await served(max_connections=20)
    await embed(server.channel, "shop")
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        held = []
        for _ in range(60):
            raw = stack.enter_context(socket.socket())
            raw.setblocking(False)
            await loop.sock_connect(raw, ("127.0.0.1", server.server.port))
            held.append(raw)
        # Those beyond the limit are closed, at once; the others wait for a handshake.
        closed = 0
        async with asyncio.timeout(TIMEOUT_S):
            while closed < 41:
                with contextlib.suppress(ConnectionResetError, BlockingIOError):
                    closed = sum(_is_closed(raw) for raw in held)
                await asyncio.sleep(0.01)
        await embed(server.channel, "shop")


def _is_closed(raw):
    try:
        return raw.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


# --- what everybody may ask -------------------------------------------------------------------------------------------


async def test_health_is_for_everybody_and_not_noted(served):
    server = await served()
    asked = health_pb2.HealthCheckRequest()
    assert (await health_pb2_grpc.HealthStub(server.channel).Check(asked, timeout=TIMEOUT_S)).status == 1
    assert lines(server) == []


async def test_reflection_is_for_callers_and_can_be_off(served):
    method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    server = await served()
    async with refused(server, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", None, method):
        await server.channel.stream_stream(method)().read()
    server = await served(reflection=False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.channel.stream_stream(method)(metadata=(("authorization", "Bearer chief"),)).read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "more", "warns"),
    [
        ("127.0.0.1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {}, True),
    ],
)
async def test_an_open_door_is_warned_of_loudly(echo, caplog, host, more, warns):
    server, batcher = echo.build(echo.EchoConfig(host=host, **more))
    await server.start()
    await server.stop()
    await batcher.close()
    said = "\n".join(caplog.messages)
    assert ("TLS IS OFF" in said, "ANYBODY MAY DO EVERYTHING" in said) == (warns, warns)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jwt_issuer": "i"}, "--jwt-audience is missing"),
        ({"jwt_issuer": "i", "jwt_audience": "a"}, "--jwt-keys is missing"),
        ({"jwt_issuer": "i", "jwt_audience": "a", "jwt_keys": "http://i/keys"}, "must be a file or an https URL"),
    ],
)
def test_half_a_setting_of_jwts_is_refused(echo, given, message):
    with pytest.raises(Exception, match=message):
        echo.EchoConfig(**given)


async def test_a_write_whose_caller_leaves_while_its_line_waits_is_in_the_audit_log(served, monkeypatch):
    """Else whoever cancels at the right moment would change the gallery without a trace."""
    held, asked = threading.Event(), gallery_pb2.AddItemsRequest(items=[gallery_pb2.Item(label="acme")])
    one = await served()
    log, noted = one.server._access._audit, asyncio.Event()
    append = log.append
    monkeypatch.setattr(log, "append", lambda *line: [append(*line), noted.set()][0])
    log._lines.put((b"", held.wait))
    try:
        stub = gallery_pb2_grpc.GalleryServiceStub(one.channel)
        write = stub.AddItems(asked, metadata=(("authorization", "Bearer importer"),), timeout=TIMEOUT_S)
        await asyncio.wait_for(noted.wait(), TIMEOUT_S)
        write.cancel()
        for _ in range(3):  # the server hears of the cancellation before it hears of these
            await embed(one.channel, "shop")
    finally:
        held.set()
    await one.server.stop()
    (line,) = lines(one)
    assert (line["caller"], line["outcome"], line["added"]) == ("importer", "OK", 1)
