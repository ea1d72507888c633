"""Ports that are kept for several processes, against real sockets."""

import json
import re
import socket
from contextlib import contextmanager

import pytest

from svckit import ports
from svckit.config import ConfigError

HOST = "127.0.0.1"
SHARING = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
"""The socket option that gRPC sets with `grpc.so_reuseport`."""


@contextmanager
def listening(port, *options):
    """A socket that listens as a server would that sets these options."""
    with socket.socket() as server:
        for option in options:
            server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind((HOST, port))
        server.listen()
        yield server


def refused(port, *options):
    with pytest.raises(OSError, match="in use"), listening(port, *options):
        pass
    return True


def test_connections_go_to_those_that_listen():
    with ports.shared(HOST, 0) as port, listening(port, *SHARING) as server:
        for _ in range(20):
            with socket.create_connection((HOST, port)):
                server.accept()[0].close()
        with listening(port, *SHARING):
            pass


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,)])
def test_nobody_else_may_have_the_port_whether_anybody_listens_or_not(options):
    with ports.shared(HOST, 0) as port:
        assert refused(port, *options)
        with listening(port, *SHARING):
            assert refused(port, *options)


def test_a_port_can_be_kept_by_one_alone(lasting_port):
    taken = "cannot listen on .*: is the port taken"
    with (
        ports.shared(HOST, lasting_port),
        pytest.raises(ConfigError, match=taken),
        ports.shared(HOST, lasting_port),
    ):
        pass
    with ports.shared(HOST, lasting_port) as again:
        assert again == lasting_port


def test_a_port_that_somebody_serves_on_is_refused():
    with listening(0, *SHARING) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError), ports.shared(HOST, port):
            pass


@pytest.mark.parametrize("options", [(socket.SO_REUSEADDR,), SHARING])
def test_the_connections_of_an_earlier_server_do_not_keep_the_port(options, lasting_port):
    with listening(lasting_port, *options) as server, socket.create_connection((HOST, lasting_port)) as client:
        server.accept()[0].close()
        assert client.recv(1) == b""
    with ports.shared(HOST, lasting_port), listening(lasting_port, *SHARING):
        pass


def test_a_host_that_is_not_this_machines_is_refused():
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(ConfigError, match=f"cannot listen on {host}:0: "), ports.shared(host, 0):
            pass


def test_addresses_are_written_as_grpc_reads_them():
    assert ports.address("::1", 5) == "[::1]:5"
    assert ports.address("a.b", 5) == "a.b:5"


def test_the_file_is_written_if_it_is_wanted(tmp_path):
    ports.write(None, port=1, metrics_port=None)
    ports.write(tmp_path / "ports", port=1, metrics_port=None)
    assert json.loads((tmp_path / "ports").read_text()) == {"port": 1, "metrics_port": None}


@pytest.mark.parametrize("host", ["unix:/run/vmmr.sock", "unix-abstract:vmmr", "/run/vmmr.sock"])
def test_a_unix_socket_is_told_to_be_no_place_to_listen(host):
    told = f"--host {host}: servers listen on a TCP port, not on a Unix socket"
    with pytest.raises(ConfigError, match=re.escape(told)), ports.shared(host, 0):
        pass
