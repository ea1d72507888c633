"""Where a service is: `host:port`, or another kind of target that gRPC knows. What gRPC would misread is refused."""

import ipaddress
import re

_RIGHT = "cars.example:50051, 127.0.0.1:50051 or [::1]:50051"
_SCHEMES = ("dns", "unix", "unix-abstract", "ipv4", "ipv6", "vsock", "xds", "google-c2p")
"""The kinds of targets that gRPC knows beside `host:port`."""
_MOST_PORT = 65535


def check_target(target: str) -> None:
    """Raise ValueError, which shows the right form, if the target is neither `host:port` nor one of gRPC's other kinds."""
    scheme = target.partition(":")[0]
    if scheme not in _SCHEMES:
        _check_address(target, target)
    elif scheme in ("ipv4", "ipv6"):
        for address in target.partition(":")[2].split(","):
            _check_address(address, target)
    elif scheme == "dns":
        _check_address(target.partition(":")[2].rpartition("/")[2], target)
    elif not target.partition(":")[2].strip("/"):
        raise _wrong(target, f"nothing follows {scheme}:")


def is_local(target: str) -> bool:
    """Return whether the target is on this machine for certain."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition(":")[0].rpartition("/")[2].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(address: str, target: str) -> None:
    """Raise ValueError about the target unless the address in it is `host:port`, an IPv6 host in brackets."""
    if "://" in address:
        scheme = address.partition("://")[0]
        secure = ", and give tls for a secure connection" if scheme.lower() == "https" else ""
        raise _wrong(target, f"leave out {scheme}://{secure}")
    host, colon, port = address.rpartition(":")
    if _is_ipv6(address) or (_is_ipv6(host) and not host.startswith("[")):
        raise _wrong(target, "an IPv6 address is written in brackets, before the port")
    if not colon or address.endswith("]"):
        raise _wrong(target, "the port is missing")
    if not re.fullmatch("[0-9]+", port):
        raise _wrong(target, f"{port!r} is no port" if port else "the port is missing")
    if not 1 <= int(port) <= _MOST_PORT:
        # gRPC would cut the port to 16 bits without a word.
        raise _wrong(target, f"the port must be 1 to {_MOST_PORT}")
    if not re.fullmatch(r"\[[0-9a-fA-F:.%\w]+\]|[^\s\[\]/@:]+", host):
        raise _wrong(target, "the host is missing" if not host else f"{host!r} is no host")


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _wrong(target: str, why: str) -> ValueError:
    shown = target if len(target) <= 100 else f"{target[:100]}..."
    return ValueError(f"{shown!r} is not host:port: {why}; write it like {_RIGHT}")
