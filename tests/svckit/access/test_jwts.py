"""JSON Web Tokens, signed by keys of the test's own, as an issuer signs them and as an attacker would."""

import asyncio
import base64
import http.server
import json
import ssl
import threading
import time

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from svckit.access import identity, sources
from svckit.access.callers_file import Callers
from svckit.access.jwts import InvalidTokenError, Keys, UnknownKeyError, claims, parse_keys
from svckit.access.settings import AccessConfig

NESTED = base64.urlsafe_b64encode(b'{"a":' + b"[" * 6000).decode() + ".a.b"
ISSUER, AUDIENCE = "https://issuer.example", "vmmr"


@pytest.fixture(scope="session")
def private():
    return ec.generate_private_key(ec.SECP256R1())


def jwk(private, **fields):
    kind = (
        jwt.algorithms.ECAlgorithm if isinstance(private, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return {**json.loads(kind.to_jwk(private.public_key())), "use": "sig", **fields}


def key_set(*keys):
    return json.dumps({"keys": keys}).encode()


@pytest.fixture
def keys(private):
    return parse_keys(key_set(jwk(private, kid="1", alg="ES256")))


def signed(private, kid="1", algorithm="ES256", without=(), **fields):
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "exp": time.time() + 60, **fields}
    said = {name: value for name, value in said.items() if name not in without}
    return jwt.encode(said, private, algorithm, headers={"kid": kid} if kid else None)


def check(token, keys):
    return claims(token, keys, issuer=ISSUER, audience=AUDIENCE)


def test_a_token_of_the_issuer_for_us_says_whose_it_is(private, keys):
    found = check(signed(private, roles=["query", "other", 1], exp=4e9), keys)
    assert (found.subject, found.roles, found.expires) == ("shop", ("query", "other"), 4e9)


@pytest.mark.parametrize(("claim", "roles"), [("enrol", ("enrol",)), (None, ()), ({"a": 1}, ())])
def test_the_claim_of_roles_is_a_text_or_a_list(private, keys, claim, roles):
    assert check(signed(private, roles=claim), keys).roles == roles


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exp": 1}, "expired"),
        ({"nbf": 4e9}, "not yet valid"),
        ({"aud": "another"}, "Audience"),
        ({"iss": "https://issuer.example.evil"}, "issuer"),
        *(({"without": (claim,)}, claim) for claim in ("exp", "aud", "iss", "sub")),
    ],
)
def test_a_token_that_is_not_for_here_and_now_is_refused(private, keys, fields, message):
    with pytest.raises(InvalidTokenError, match=message):
        check(signed(private, **fields), keys)


def test_a_clock_that_is_a_little_off_is_forgiven(private, keys):
    assert check(signed(private, exp=time.time() - 5), keys)


def test_a_token_without_a_signature_is_refused(private, keys):
    header, said, signature = signed(private).split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"1"}').rstrip(b"=").decode()
    for forged in (f"{none}.{said}.", f"{none}.{said}.{signature}", f"{header}.{said}."):
        with pytest.raises(InvalidTokenError):
            check(forged, keys)


def test_the_public_key_is_no_shared_secret(keys, private):
    """The old trick: what everybody may read signs a token, if the token may choose the algorithm."""
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"1"}').rstrip(b"=").decode()
    said = signed(private).split(".")[1]
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{header}.{said}".encode(), public)
    with pytest.raises(InvalidTokenError):
        check(f"{header}.{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}", keys)


@pytest.mark.parametrize("token", ["a.b.c", "..", "e30.e30.e30", "\udcff.a.b", NESTED])
def test_what_is_no_token_is_refused(keys, token):
    with pytest.raises(InvalidTokenError):
        check(token, keys)


def test_a_token_of_another_key_is_refused(keys):
    stranger = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(InvalidTokenError, match="Signature"):
        check(signed(stranger), keys)
    with pytest.raises(UnknownKeyError, match="no key has the id '2'"):
        check(signed(stranger, kid="2"), keys)


def test_a_single_key_needs_no_id_and_one_of_several_does(private):
    rsa_key = rsa.generate_private_key(65537, 2048)
    assert check(signed(private, kid=None), parse_keys(key_set(jwk(private))))
    both = parse_keys(key_set(jwk(private, kid="1"), jwk(rsa_key, kid="2")))
    assert check(signed(rsa_key, kid="2", algorithm="RS256"), both)
    with pytest.raises(UnknownKeyError):
        check(signed(private, kid=None), both)


def test_only_public_keys_for_signatures_are_taken(private):
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}
    found = parse_keys(key_set(secret, jwk(private, kid="enc", use="enc"), jwk(private, kid="1")))
    assert found.by_id.keys() == {"1"}
    with pytest.raises(ValueError, match="has no public key"):
        parse_keys(key_set(secret, {"kty": "EC"}))


def test_a_key_of_a_kind_that_is_not_known_spoils_no_other(private):
    """RFC 7517 has it so: an issuer that adds a key of a new kind must not make the others unknown."""
    strange = {"kty": "OKP", "crv": "X25519", "x": "A" * 43, "kid": "new"}
    assert parse_keys(key_set(strange, jwk(private, kid="1"))).by_id.keys() == {"1"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys": [1]}', b"\xff"])
def test_what_is_no_set_of_keys_is_told(content):
    with pytest.raises(ValueError, match="is not a JSON Web Key Set"):
        parse_keys(content)


class _Issuer(http.server.BaseHTTPRequestHandler):
    replies: dict[str, tuple[int, bytes]] = {}  # noqa: RUF012 (of the test's)

    def do_GET(self):
        status, content = self.replies[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/keys")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def issuer(monkeypatch, tmp_path, private):
    """The https address of an issuer that trusts itself."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    _Issuer.replies = {"/keys": (200, key_set(jwk(private, kid="1"))), "/away": (302, b""), "/gone": (404, b"")}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Issuer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_come_from_an_https_address(issuer):
    source = sources.url("JWT keys", f"{issuer}/keys", parse_keys, Keys())
    source.refresh()
    assert (source.problem, list(source.value.by_id)) == ("", ["1"])


def test_an_address_that_leads_elsewhere_or_nowhere_leaves_the_keys_and_is_told(issuer, caplog):
    for path in ("/away", "/gone"):
        source = sources.url("JWT keys", issuer + path, parse_keys, Keys())
        source.refresh()
        assert source.problem.startswith(f"JWT keys {issuer}{path}: ")
        assert source.value == Keys()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_an_issuer_whose_certificate_is_not_trusted_is_not_asked(issuer, monkeypatch, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    source = sources.url("JWT keys", f"{issuer}/keys", parse_keys, Keys())
    source.refresh()
    assert "CERTIFICATE_VERIFY_FAILED" in source.problem


async def test_who_comes_while_a_new_key_is_fetched_waits_for_it(private, tmp_path, monkeypatch):
    """Else a new key of the issuer costs all calls but the one that made the server ask for it."""
    old = rsa.generate_private_key(65537, 2048)
    (tmp_path / "keys.json").write_bytes(key_set(jwk(old, kid="old")))
    settings = AccessConfig(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_keys=str(tmp_path / "keys.json"))
    jwts = identity._Jwts(settings, Callers)
    jwts._refreshed = -1e9
    (tmp_path / "keys.json").write_bytes(key_set(jwk(private, kid="1")))
    asked, answer, refresh, times = asyncio.Event(), threading.Event(), jwts.keys.refresh, []
    loop = asyncio.get_running_loop()

    def slow(**more):
        times.append(1)
        loop.call_soon_threadsafe(asked.set)
        answer.wait(60)
        refresh(**more)

    monkeypatch.setattr(jwts.keys, "refresh", slow)
    tokens = [signed(private, roles="query", sub=str(number)) for number in range(3)]
    first = asyncio.create_task(jwts.caller(tokens[0], "0"))
    await asked.wait()
    others = [asyncio.create_task(jwts.caller(token, token)) for token in tokens[1:]]
    await asyncio.sleep(0)
    first.cancel()
    answer.set()
    assert [caller.name for caller in await asyncio.gather(*others)] == ["jwt:1", "jwt:2"]
    assert len(times) == 1
