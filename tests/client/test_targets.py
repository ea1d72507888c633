"""Where services are said to be: what is right is taken, what gRPC would misread is refused with the right form."""

import pytest
import vmmr
from vmmr._targets import check_target, is_local

RIGHT = "write it like cars.example:50051, 127.0.0.1:50051 or [::1]:50051"


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "localhost:50051",
        "cars_embedder.internal:1",
        "[::1]:50051",
        "[fe80::1%eth0]:50051",
        "dns:cars.example:50051",
        "dns:///cars.example:50051",
        "dns://8.8.8.8/cars.example:50051",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
        "ipv6:[::1]:50051,[::2]:50051",
        "unix:vmmr.sock",
        "unix:///run/vmmr.sock",
        "unix-abstract:vmmr",
        "xds:///cars",
    ],
)
def test_what_grpc_understands_is_taken(target):
    check_target(target)


WRONG = {
    "http://cars.example:50051": "leave out http://",
    "HTTP://cars.example:50051": "leave out HTTP://",
    "https://cars.example:50051": "leave out https://, and give tls for a secure connection",
    "grpc://cars.example:50051": "leave out grpc://",
    "tcp://10.0.0.1:50051": "leave out tcp://",
    "cars.example": "the port is missing",
    "cars.example:": "the port is missing",
    "127.0.0.1": "the port is missing",
    "[::1]": "the port is missing",
    "dns:///cars.example": "the port is missing",
    "ipv4:10.0.0.1:50051,10.0.0.2": "the port is missing",
    "": "the port is missing",
    "50051": "the port is missing",
    ":50051": "the host is missing",
    "::1:50051": "an IPv6 address is written in brackets, before the port",
    "::1": "an IPv6 address is written in brackets, before the port",
    "2001:db8::7:50051": "an IPv6 address is written in brackets, before the port",
    "cars.example:50051/": "'50051/' is no port",
    "cars.example:port": "'port' is no port",
    "cars.example:-1": "'-1' is no port",
    "cars.example:0": "the port must be 1 to 65535",
    "127.0.0.1:99999": "the port must be 1 to 65535",
    "cars example:50051": "'cars example' is no host",
    "user@cars.example:50051": "'user@cars.example' is no host",
    "unix:": "nothing follows unix:",
}


@pytest.mark.parametrize("client", [vmmr.Client, vmmr.AsyncClient])
@pytest.mark.parametrize("target", WRONG)
def test_what_it_would_misread_is_refused_with_the_right_form(client, target):
    for places in ({"embedder": target}, {"search": target}):
        with pytest.raises(ValueError) as caught:
            client(**places)
        assert str(caught.value) == f"{target!r} is not host:port: {WRONG[target]}; {RIGHT}"


def test_a_long_one_is_not_repeated_whole():
    with pytest.raises(ValueError) as caught:
        check_target("x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.2:1", "[::1]:1", "dns:///localhost:1", "unix:/run/vmmr"])
def test_what_is_on_this_machine_is_known(target):
    assert is_local(target)
    assert not is_local("cars.example:1")
