import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from svckit import probe
from svckit.cli import CommandError
from tests.conftest import TIMEOUT_S

IN_TIME = ("--timeout", str(TIMEOUT_S))
"""Of probes that are answered, if only by the port."""
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def time_to_answer_for_tls(monkeypatch):
    """Servers that are asked about TLS answer, however late this machine is."""
    monkeypatch.setattr(probe, "_PROBE_S", TIMEOUT_S)


@pytest.fixture
def servicer():
    """Says that the server and `cars` are well, and `boats` is not."""
    servicer = grpc_health.HealthServicer()
    for service, status in {"": SERVING, "cars": SERVING, "boats": NOT_SERVING}.items():
        servicer.set(service, status)
    return servicer


@pytest.fixture
def start(servicer):
    """Starts a server that speaks nothing but health; gives its address."""
    servers = []

    def start(credentials=None):
        server = grpc.server(ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        add = server.add_secure_port if credentials else server.add_insecure_port
        port = add("127.0.0.1:0", *([credentials] if credentials else []))
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def test_a_serving_server_is_well(start):
    assert probe.health(start(), timeout_s=TIMEOUT_S) == "SERVING"


@pytest.mark.parametrize("service", ["", "cars"])
def test_the_command_ends_quietly_if_all_is_well(start, service):
    probe.main([start(), "--service", service, *IN_TIME])


def test_a_service_that_does_not_serve_fails_the_probe(start):
    with pytest.raises(CommandError, match=r"NOT_SERVING$"):
        probe.main([start(), "--service", "boats", *IN_TIME])


def test_a_service_that_is_not_there_fails_the_probe(start):
    with pytest.raises(CommandError, match="NOT_FOUND"):
        probe.main([start(), "--service", "planes", *IN_TIME])


def test_a_server_that_is_not_there_fails_the_probe():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"127.0.0.1:{port}: UNAVAILABLE"):
            probe.main([f"127.0.0.1:{port}", *IN_TIME])


def test_a_server_that_does_not_answer_fails_the_probe_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(CommandError, match=r"DEADLINE_EXCEEDED|UNAVAILABLE"):
            probe.main([f"127.0.0.1:{port}", "--timeout", "0.3"])


@pytest.mark.parametrize("mutual", [False, True])
def test_a_server_with_tls_is_asked_over_tls(start, tmp_path, mutual):
    """The prober shows a certificate of its own where the server wants one."""
    ca = trustme.CA()
    files = {"ca": ca.cert_pem.bytes()}
    for name in ("server", "client"):
        certificate = ca.issue_cert("127.0.0.1")
        files[name] = certificate.cert_chain_pems[0].bytes()
        files[f"{name}_key"] = certificate.private_key_pem.bytes()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pair = [(files["server_key"], files["server"])]
    address = start(grpc.ssl_server_credentials(pair, files["ca"], require_client_auth=mutual))

    shown = ["--tls-cert", str(tmp_path / "client"), "--tls-key", str(tmp_path / "client_key")]
    trusted = ["--tls-ca", str(tmp_path / "ca")]
    probe.main([address, *trusted, *(shown if mutual else []), *IN_TIME])
    with pytest.raises(
        CommandError, match="UNAVAILABLE: .*Socket closed" if mutual else "UNAVAILABLE: it expects TLS: give"
    ):
        probe.main([address, *(trusted if mutual else []), *IN_TIME])


def test_a_server_without_tls_that_is_asked_over_tls_is_told_to_have_none(start, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    with pytest.raises(CommandError, match="UNAVAILABLE: it does not speak TLS"):
        probe.main([start(), "--tls-ca", str(tmp_path / "ca.pem"), *IN_TIME])


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("http://127.0.0.1:50051", "leave out http://"),
        ("127.0.0.1", "the port is missing"),
        ("127.0.0.1:", "the port is missing"),
        ("127.0.0.1:99999", "the port must be 1 to 65535"),
        ("::1:50051", "in brackets"),
    ],
)
def test_an_address_that_makes_no_sense_is_a_usage_error_with_the_right_form(address, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        probe.main([address])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert "write it like cars.example:50051" in said


def test_other_ways_to_write_an_address_are_understood():
    with pytest.raises(CommandError, match="UNAVAILABLE"):
        probe.main(["dns:///127.0.0.1:1", *IN_TIME])


def test_it_is_a_command_with_an_exit_code(start, servicer):
    """Runs the probe as an image's health check does."""
    command = [sys.executable, "-m", "svckit.probe", address := start(), *IN_TIME]
    well = subprocess.run(command, check=False, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
    servicer.set("", NOT_SERVING)
    ill = subprocess.run(command, check=False, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "")
    assert (ill.returncode, ill.stderr) == (1, f"probe: error: {address}: NOT_SERVING\n")


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key"])
def test_a_certificate_without_a_ca_to_trust_is_not_quietly_ignored(flag, capsys):
    with pytest.raises(SystemExit):
        probe.main(["127.0.0.1:1", flag, "client.pem"])
    assert "--tls-cert and --tls-key need --tls-ca" in capsys.readouterr().err
