"""`vmmr-web serve`, as a process: it listens, tells, and ends in order."""

import http.client
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import grpc
import pytest
import trustme

from tests.conftest import TIMEOUT_S


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until(condition: Callable[[], object]) -> None:
    """Ask over and over: what asks for health gives up within seconds, in which this machine may be busy."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end


def test_it_serves_tells_its_ports_and_ends_by_itself_when_asked_to(run, services, tmp_path):
    embedder, search = services.targets
    ports = tmp_path / "ports.json"
    places = ("--embedder", embedder, "--search", search, "--port", 0, "--metrics-port", 0, "--port-file", ports)
    web = run("-m", "web", "serve", *places, "--drain-pause-s", 0)
    ready = web.ready()
    assert json.loads(ports.read_text()) == {"port": ready["port"], "metrics_port": ready["metrics_port"]}
    until(lambda: get(ready["port"], "/readyz") == (200, '{"status":"ready","problems":[]}'))
    assert web.first("request")["route"] == "/readyz"
    _, metrics = get(ready["metrics_port"], "/metrics")
    assert 'http_requests_total{method="GET",route="/readyz",status="200"} 1.0' in metrics
    probe = {"VMMR_WEB_PORT": str(ready["port"])}
    until(lambda: run("-m", "web.probe", env=probe).wait() == 0)
    web.popen.send_signal(signal.SIGTERM)
    assert web.wait() == 0
    assert run("-m", "web.probe", env=probe).wait() == 1
    assert [line["message"] for line in map(json.loads, web.lines)][-2:] == ["draining", "stopped"]


def test_a_call_that_runs_is_answered_before_the_program_ends(run, services, stuck):
    embedder, search = services.targets
    places = ("--embedder", embedder, "--search", search, "--port", 0)
    web = run("-m", "web", "serve", *places, "--drain-pause-s", 0)
    connection = http.client.HTTPConnection("127.0.0.1", web.ready()["port"], timeout=TIMEOUT_S)
    connection.request("POST", "/v1/identify", b"7", {"Content-Type": "image/jpeg"})
    assert stuck.waits.wait(TIMEOUT_S)
    web.popen.send_signal(signal.SIGTERM)
    assert web.first("draining")
    stuck.leave.set()
    reply = connection.getresponse()
    assert reply.status == 200
    assert json.loads(reply.read())["answers"][0]["text"] == "honda pilot 2007"
    connection.close()
    assert web.wait() == 0


def test_a_new_certificate_is_presented_to_those_who_connect_from_then_on(run, services, tmp_path):
    ca = trustme.CA()
    first, second = ca.issue_cert("cars.example"), ca.issue_cert("cars.example")

    def write(issued) -> None:
        (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
        (tmp_path / "cert.pem").write_bytes(issued.cert_chain_pems[0].bytes())

    write(first)
    places = ("--embedder", services.targets[0], "--search", services.targets[1], "--port", 0, "--metrics-port", 0)
    web = run("-m", "web", "serve", *places, "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    ready = web.ready()

    def presented() -> str:
        return ssl.get_server_certificate(("127.0.0.1", ready["port"])).strip()

    assert presented() == first.cert_chain_pems[0].bytes().decode().strip()
    (tmp_path / "key.pem").write_bytes(second.private_key_pem.bytes())
    assert presented() == first.cert_chain_pems[0].bytes().decode().strip(), "the pair is written by half"
    assert "vmmr_tls_stale 1.0" in get(ready["metrics_port"], "/metrics")[1]
    write(second)
    assert presented() == second.cert_chain_pems[0].bytes().decode().strip()
    assert web.first("TLS files cannot be used")["level"] == "ERROR"


def test_a_problem_of_its_certificate_is_told_though_nobody_connects(run, services, tmp_path):
    issued = trustme.CA().issue_cert("cars.example")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    places = ("--embedder", services.targets[0], "--search", services.targets[1], "--port", 0)
    web = run("-m", "web", "serve", *places, "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    web.ready()
    (tmp_path / "cert.pem").write_text("no certificate")
    assert web.first("TLS files cannot be used")["level"] == "ERROR"


def test_it_shows_its_certificate_to_services_that_want_one(run, serve, services, tmp_path):
    ca = trustme.CA()
    for name in ("server", "client"):
        issued = ca.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = [((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())]
    mutual = grpc.ssl_server_credentials(pair, ca.cert_pem.bytes(), require_client_auth=True)
    targets = serve(services.embedder, mutual), serve(services.search, mutual)
    places = ("--embedder", targets[0], "--search", targets[1], "--port", 0, "--services-tls-ca", tmp_path / "ca.pem")
    certificate = ("--services-tls-cert", tmp_path / "client.pem", "--services-tls-key", tmp_path / "client.key")
    web = run("-m", "web", "serve", *places, *certificate)
    assert get(web.ready()["port"], "/readyz") == (200, '{"status":"ready","problems":[]}')
    stranger = run("-m", "web", "serve", *places)
    assert get(stranger.ready()["port"], "/readyz")[0] == 503


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--max-photo-bytes", 2, "--max-upload-bytes", 1), "--max-photo-bytes (VMMR_WEB_MAX_PHOTO_BYTES) must be <="),
        (("--tls-cert", "x"), "--tls-cert (VMMR_WEB_TLS_CERT) and --tls-key"),
        (("--services-tls-key", "x"), "--services-tls-cert (VMMR_WEB_SERVICES_TLS_CERT) and --services-tls-key"),
        (("--tls-cert", "gone", "--tls-key", "gone"), "TLS file gone: No such file or directory"),
        (("--photos", "/gone"), "there is no folder /gone"),
        (("--trusted-proxies", "10.0.0.1,nonsense"), "got 'nonsense'"),
        (("--token-file", "/gone"), "token file /gone"),
        (("--embedder", "http://127.0.0.1:50051"), "--embedder http://127.0.0.1:50051"),
        (("--host", "203.0.113.1"), "cannot listen on 203.0.113.1:0"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_served(run, flags, says):
    web = run("-m", "web", "serve", "--port", 0, *flags)
    assert web.wait() == 1
    ended = web.first("ended by an error")
    assert ended["program"] == "vmmr-web"
    assert says in ended["error"]
