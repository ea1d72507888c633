"""Resolve host names, and tell whether a stranger's URL may lead a program to an address."""

import ipaddress
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any, TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Endpoint:
    """One resolved address of a host. A socket connects to it without resolving a name again."""

    family: socket.AddressFamily
    sockaddr: Any

    @property
    def address(self) -> IPAddress:
        return ipaddress.ip_address(self.sockaddr[0])


def is_public(address: IPAddress) -> bool:
    """Return whether the address is on the open internet: not private, loopback, link-local, shared, reserved or multicast."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if (inner := _ipv4_within(address)) is not None:
        return is_public(inner)
    # 6to4 tunnels to an IPv4 address of the sender's choice.
    return address in _GLOBAL_UNICAST and address.is_global and address.sixtofour is None


def resolve(host: str, port: int, timeout_s: float) -> list[Endpoint]:
    """Return all addresses of the host. Raise OSError if there are none, TimeoutError if the resolver takes too long."""
    answers: queue.Queue[Any] = queue.Queue()
    # getaddrinfo has no time limit. The thread is a daemon, since a resolver that hangs must not keep the program alive.
    threading.Thread(target=_look_up, args=(host, port, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return [Endpoint(family, sockaddr) for family, _, _, _, sockaddr in answer]


def _look_up(host: str, port: int, answers: "queue.Queue[Any]") -> None:
    try:
        answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        answers.put(error)


def _ipv4_within(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, mapped or behind NAT64, if it stands for one."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped
