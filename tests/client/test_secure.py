"""TLS, client certificates and tokens, against real certificates."""

import datetime as dt
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme
import vmmr
from vmmr import _tls_probe

from tests.conftest import TIMEOUT_S


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> vmmr.TLS:
    """The CA's certificate, and a client's certificate and key."""
    issued = ca.issue_cert("client@example.com")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for link in issued.cert_chain_pems:
        link.write_to_path(tmp_path / "cert.pem", append=True)
    return vmmr.TLS(ca=tmp_path / "ca.pem", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")


@pytest.fixture
def secured(ca: trustme.CA, serve, services):
    """Serves the pair with a certificate for an identity; gives its targets."""

    def start(identity: str = "127.0.0.1", *, mutual: bool = False, **valid: dt.datetime) -> tuple[str, str]:
        issued = ca.issue_cert(identity, **valid)
        chain = b"".join(link.bytes() for link in issued.cert_chain_pems)
        credentials = grpc.ssl_server_credentials(
            [(issued.private_key_pem.bytes(), chain)],
            root_certificates=ca.cert_pem.bytes() if mutual else None,
            require_client_auth=mutual,
        )
        return serve(services.embedder, credentials), serve(services.search, credentials)

    return start


def test_a_server_with_a_trusted_certificate_is_talked_to(connect, secured, files):
    assert connect(*secured(), tls=vmmr.TLS(ca=files.ca)).identify(b"1").answer.year == 2001


def test_a_server_whose_certificate_nobody_vouches_for_is_not(connect, secured, services):
    with pytest.raises(vmmr.UnavailableError, match="has a certificate that is not trusted: give the ca") as caught:
        connect(*secured(), tls=vmmr.TLS()).identify(b"1")
    assert caught.value.reason == "TLS_FAILED"
    assert services.embedder.script.received == []


@pytest.mark.parametrize(
    ("days", "said"), [(-2, "that has expired: renew it"), (2, "that is not valid yet: set the clock")]
)
def test_a_trusted_certificate_is_told_to_be_out_of_its_time(connect, secured, files, days, said):
    begins = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    embedder, search = secured(not_before=begins, not_after=begins + dt.timedelta(days=1))
    with pytest.raises(vmmr.UnavailableError, match=f"embedder at {embedder} has a certificate {said}") as caught:
        connect(embedder, search, tls=vmmr.TLS(ca=files.ca)).identify(b"1")
    assert caught.value.reason == "TLS_FAILED"


def test_a_server_that_expects_tls_is_told_from_one_that_is_gone(connect, secured):
    embedder, search = secured()
    with pytest.raises(vmmr.UnavailableError) as caught:
        connect(embedder, search).identify(b"1")
    assert str(caught.value) == f"embedder at {embedder} expects TLS, and this client has none: give tls"
    assert (caught.value.reason, caught.value.status) == ("TLS_FAILED", "UNAVAILABLE")


def test_so_is_one_that_expects_a_client_certificate_too(connect, secured):
    with pytest.raises(vmmr.UnavailableError, match="expects TLS, and this client has none"):
        connect(*secured(mutual=True)).identify(b"1")


def test_a_server_without_tls_is_told_to_be_one(connect, services, files):
    with pytest.raises(vmmr.UnavailableError) as caught:
        connect(*services.targets, tls=vmmr.TLS(ca=files.ca)).identify(b"1")
    told = "does not speak TLS: connect without tls, or have it serve with a certificate"
    assert str(caught.value) == f"embedder at {services.embedder_target} {told}"
    assert caught.value.reason == "TLS_FAILED"


def test_what_tls_has_nothing_to_do_with_is_no_matter_of_tls(connect, services, attempts):
    attempts(2)  # between them, the server is asked about TLS
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        over = threading.Event()
        hanging_up = threading.Thread(target=hang_up, args=(listener, over))
        hanging_up.start()
        with pytest.raises(vmmr.UnavailableError, match="no vmmr server answers at") as caught:
            connect(target, services.search_target, timeout_s=TIMEOUT_S).identify(b"1")
        over.set()
        socket.create_connection(listener.getsockname()).close()
        hanging_up.join()
    assert caught.value.reason is None


def hang_up(listener: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        listener.accept()[0].close()


def test_nor_is_one_with_a_certificate_for_another_host(connect, secured, files):
    with pytest.raises(vmmr.UnavailableError, match="has a certificate for another host"):
        connect(*secured("elsewhere.example"), tls=vmmr.TLS(ca=files.ca)).identify(b"1")


def test_a_server_that_asks_for_a_certificate_gets_it(connect, secured, files):
    targets = secured(mutual=True)
    assert connect(*targets, tls=files).identify(b"1").answer.year == 2001
    said = (
        f"embedder at {targets[0]} expects a client's certificate, and this client has none: give cert and key of tls"
    )
    with pytest.raises(vmmr.UnavailableError, match=said) as caught:
        connect(*targets, tls=vmmr.TLS(ca=files.ca)).identify(b"1")
    assert caught.value.reason == "TLS_FAILED"


@pytest.fixture(params=["another CA", "expired"])
def refused(request, ca, files, tmp_path):
    """The files of a client whose certificate no server takes."""
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    if request.param == "expired":
        issued = ca.issue_cert("client@example.com", not_before=ended - dt.timedelta(days=1), not_after=ended)
    else:
        issued = trustme.CA().issue_cert("client@example.com")
    issued.private_key_pem.write_to_path(tmp_path / "refused.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "refused.pem")
    return vmmr.TLS(ca=files.ca, cert=tmp_path / "refused.pem", key=tmp_path / "refused.key")


def test_a_certificate_that_the_server_does_not_take_is_told_by_file(connect, secured, refused):
    targets = secured(mutual=True)
    told = f"embedder at {targets[0]} does not take this client's certificate {refused.cert}: a CA that"
    with pytest.raises(vmmr.UnavailableError, match=re.escape(told)) as caught:
        connect(*targets, tls=refused).identify(b"1")
    assert caught.value.reason == "TLS_FAILED"


@pytest.mark.parametrize("hung_up", [(True, True), (True, False)])
def test_a_server_that_hangs_up_once_may_just_be_ending(monkeypatch, files, hung_up):
    for ask, more in ((_tls_probe.wants_certificate, ()), (_tls_probe.refuses_certificate, (files,))):
        answers = list(hung_up)
        monkeypatch.setattr(_tls_probe, "_hangs_up", lambda *_, answers=answers: answers.pop(0))
        assert ask("127.0.0.1:1", 1.0, *more) is all(hung_up)


def test_the_token_goes_over_tls(connect, secured, files, services):
    connect(*secured(), tls=vmmr.TLS(ca=files.ca), token="secret").identify(b"1")
    assert services.search.script.received[0].metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize("target", ["cars.example:50051", "10.0.0.1:50051", "dns:///cars.example:50051"])
def test_the_token_does_not_leave_this_machine_in_the_clear(connect, target):
    with pytest.raises(ValueError, match=f"the token would be sent to {target} in the clear"):
        connect("127.0.0.1:50051", target, token="secret")


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "dns:///localhost:1", "unix:/run/vmmr"])
def test_but_may_be_given_to_a_service_on_it(connect, target):
    connect(target, target, token="secret")


@pytest.fixture
def proxy(monkeypatch):
    """A listening socket that the environment says is a proxy."""
    for variable in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        for variable in ("grpc_proxy", "http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield listener


def test_what_is_for_this_machine_and_its_token_goes_to_no_proxy(connect, services, proxy):
    assert connect(*services.targets, token="secret").identify(b"1").answer.year == 2001
    proxy.setblocking(False)
    with pytest.raises(BlockingIOError):
        proxy.accept()


def test_what_is_for_elsewhere_goes_to_the_proxy_of_the_environment(connect, attempts, proxy):
    attempts(1)

    def refuse() -> bytes:
        with proxy.accept()[0] as connection:
            return connection.recv(1000)

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(refuse)
        with pytest.raises(vmmr.CallError):
            connect("cars.example:50051", timeout_s=TIMEOUT_S).info()
        assert asked.result(TIMEOUT_S).startswith(b"CONNECT cars.example:50051 ")


def test_a_certificate_without_its_key_is_refused(files):
    with pytest.raises(ValueError, match="give both cert and key, or neither"):
        vmmr.TLS(cert=files.cert)


def test_a_missing_file_is_named(connect, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        connect(tls=vmmr.TLS(ca=tmp_path / "nowhere.pem"))
