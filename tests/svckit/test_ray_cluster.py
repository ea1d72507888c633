"""Why a program cannot connect to a Ray cluster, told before Ray tries for half a minute."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from svckit import ray_cluster
from svckit.cli import CommandError

TOKEN = 64 * "a"


@pytest.fixture
def gcs():
    """HOST:PORT of what refuses whoever does not send the token, as Ray's GCS does."""

    class Guard(grpc.GenericRpcHandler):
        def service(self, call):
            known = ("authorization", f"Bearer {TOKEN}") in call.invocation_metadata

            def answer(request, context):
                if not known:
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=(Guard(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def auth(monkeypatch, tmp_path):
    """`auth(mode, token)`: let Ray find these in this process."""
    ray = pytest.importorskip("ray", reason="NO RAY HERE: its token authentication was not tested")
    mode_of, tokens = ray._raylet.get_authentication_mode, ray._raylet.AuthenticationTokenLoader
    modes = ray._raylet.AuthenticationMode

    class Tokens:
        found = ""

        @classmethod
        def instance(cls):
            return cls()

        def has_token(self):
            return bool(self.found)

        def get_token_for_http_header(self):
            return {"authorization": f"Bearer {self.found}"}

    assert callable(mode_of)
    assert {"has_token", "get_token_for_http_header"} <= set(dir(tokens)), "Ray has what the fake stands for"
    monkeypatch.setattr(ray._raylet, "AuthenticationTokenLoader", Tokens)

    def auth(mode, token):
        monkeypatch.setattr(ray._raylet, "get_authentication_mode", lambda: getattr(modes, mode))
        monkeypatch.setattr(Tokens, "found", token)

    return auth


@pytest.mark.parametrize(
    ("mode", "token", "found"),
    [
        ("DISABLED", TOKEN, "RAY_AUTH_MODE is not token here, so none is sent"),
        ("TOKEN", "", "none is found here"),
        ("TOKEN", 64 * "b", "the one that is found here is another"),
    ],
)
def test_a_cluster_that_wants_another_token_is_told_with_what_to_set(gcs, auth, mode, token, found):
    auth(mode, token)
    with pytest.raises(CommandError, match=found) as caught:
        ray_cluster.check(gcs, "--ray-address")
    said = str(caught.value)
    assert said.startswith(f"--ray-address: the Ray cluster at {gcs} wants a token")
    for variable in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN (", "~/.ray/auth_token"):
        assert variable in said


def test_a_cluster_whose_token_is_sent_is_left_to_ray(gcs, auth):
    auth("TOKEN", TOKEN)
    assert ray_cluster.check(gcs).__name__ == "ray"


def test_a_token_that_ray_itself_misses_is_told_as_such(monkeypatch):
    ray = pytest.importorskip("ray", reason="NO RAY HERE: its token authentication was not tested")

    def init(*_, **__):
        raise ray.exceptions.AuthenticationError(
            "Token authentication is enabled but no authentication token was found"
        )

    monkeypatch.setattr(ray_cluster, "check", lambda *_: ray)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(CommandError, match=r"--ray: the Ray cluster at head:1 wants a token"):
        ray_cluster.connect("head:1", "--ray")


@pytest.mark.parametrize(
    "address", ["localhost", "ray://localhost:10001", "http://localhost:6379", ":6379", "head:", "head:70000", "auto"]
)
def test_what_is_no_address_of_a_gcs_is_refused_before_ray_is_looked_for(address, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CommandError, match=f"^--ray must be HOST:PORT of the Ray cluster's GCS, .* got {address}$"):
        ray_cluster.check(address)


def test_an_address_of_ipv6_is_one():
    ray_cluster.check_form("[::1]:6379", "--ray")


def test_a_cluster_whose_name_is_not_resolved_for_a_while_is_where_it_was(monkeypatch):
    def unresolved(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        dialer, new = (ray_cluster.Dialer(f"localhost:{port}") for _ in range(2))
        assert dialer.unreachable() == ""
        resolved = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *args, **options: (unresolved if host == "localhost" else resolved)(host, *args, **options),
        )
        assert dialer.unreachable() == ""
        assert new.unreachable() == "Temporary failure in name resolution"
    assert dialer.unreachable() == "Connection refused"
