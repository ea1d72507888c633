"""The connection to a Ray cluster, for commands that spread their work over one."""

import importlib
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from svckit.cli import CommandError
from svckit.extras import needing

_REACHED_WITHIN_S = 5.0
_FIRST_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The call of Ray that every program which connects makes first. Its request is empty."""
_TOKEN = "RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN (by default ~/.ray/auth_token is read)"  # noqa: S105 (no token)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect this process, on a node of the cluster at HOST:PORT, to it, and yield the module `ray`; what it started there ends with the block.

    Raise CommandError if Ray is not installed, or there is no cluster.
    """
    ray = connect(address, "--ray")
    try:
        yield ray
    finally:
        ray.shutdown()


def connect(address: str, flag: str, **options: Any) -> Any:
    """Connect this process as above, with these options of `ray.init`, until it calls `ray.shutdown`; return the module `ray`.

    Raise CommandError, naming the flag.
    """
    ray = check(address, flag)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **options)
    except ray.exceptions.AuthenticationError as error:
        raise _unauthenticated(address, flag) from error
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise CommandError(f"{flag}: there is no Ray cluster at {address}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray takes it
    return ray


def check(address: str, flag: str = "--ray") -> Any:
    """Return the module `ray`. Raise CommandError, naming the flag, if it is not installed, or this process cannot connect to a cluster at HOST:PORT.

    That nothing listens there, or that the cluster wants another token, Ray itself would find out in half a minute, and say in lines of its own.
    """
    check_form(address, flag)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needing("ray", CommandError):
        import ray  # noqa: PLC0415 (it takes seconds, and is an extra)
    if problem := unreachable(address):
        raise CommandError(f"{flag}: there is no Ray cluster at {address}: {problem}")
    if _refuses_token(address):
        raise _unauthenticated(address, flag)
    return ray


def check_form(address: str, flag: str) -> None:
    """Raise CommandError, naming the flag, unless the address is HOST:PORT."""
    host, _, port = address.rpartition(":")
    if "/" in address or not (host and port.isdecimal() and int(port) < 2**16):
        raise CommandError(
            f"{flag} must be HOST:PORT of the Ray cluster's GCS, as `ray start --head --port 6379` opens it, got {address}"
        )


def unreachable(address: str) -> str:
    """Return why no connection to HOST:PORT can be made; empty if one can."""
    return Dialer(address).unreachable()


class Dialer:
    """Tries connections to HOST:PORT. While the name cannot be resolved, it goes by the addresses that it found last: Ray's connection to them stays, too."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._found: list[str] = []

    def unreachable(self) -> str:
        """Return why no connection can be made; empty if one can."""
        try:
            self._connect()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _connect(self) -> None:
        failed = OSError("the name has no address")
        for host in self._addresses():
            try:
                socket.create_connection((host, self._port), _REACHED_WITHIN_S).close()
            except OSError as error:
                failed = error
            else:
                return
        raise failed

    def _addresses(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            if not self._found:
                raise
        else:
            self._found = [str(address[0]) for *_, address in found]
        return self._found


def _refuses_token(address: str) -> bool:
    """Return whether the cluster refuses the token that Ray would send, or that there is none. What else may be wrong is left to Ray."""
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        call: Any = channel.unary_unary(_FIRST_CALL)
        try:
            call(b"", timeout=_REACHED_WITHIN_S, metadata=_token())
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


def _token() -> tuple[tuple[str, str], ...]:
    """Return the metadata by which Ray's own calls say who makes them: nothing unless RAY_AUTH_MODE is token."""
    tokens = _raylet().AuthenticationTokenLoader.instance()
    return tuple(tokens.get_token_for_http_header().items()) if _sends_token() and tokens.has_token() else ()


def _sends_token() -> bool:
    return bool(_raylet().get_authentication_mode() == _raylet().AuthenticationMode.TOKEN)


def _raylet() -> Any:
    """Return the part of Ray that knows the token. It has no public name."""
    return importlib.import_module("ray._raylet")


def _unauthenticated(address: str, flag: str) -> CommandError:
    if not _sends_token():
        found = "and RAY_AUTH_MODE is not token here, so none is sent"
    elif _token():
        found = "and the one that is found here is another"
    else:
        found = "and none is found here"
    return CommandError(
        f"{flag}: the Ray cluster at {address} wants a token (Ray's token authentication), {found}: "
        f"set RAY_AUTH_MODE=token, and the cluster's token by {_TOKEN}"
    )


def result(ray: Any, reference: Any, work: str) -> Any:
    """Return what a task returned. Raise what it raised, or CommandError if Ray gave it up; `work` names it then."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise CommandError(f"Ray gave up on {work}: {error}") from error


def put(ray: Any, value: Any) -> bytes:
    """Put a value into the cluster's object store, for as long as this process is connected, and return what `get` finds it by."""
    # Pickled: of a plain reference, Ray would warn that no actor can be started again once it is lost, which it is with this process alone.
    pickled: bytes = ray.cloudpickle.dumps(ray.put(value))
    return pickled


def get(reference: bytes) -> Any:
    """Return a value of the object store, in a process of the cluster."""
    import ray  # noqa: PLC0415 (an extra, which such a process has)

    return ray.get(ray.cloudpickle.loads(reference))


def room(nodes: Sequence[Mapping[str, Any]], needed: Mapping[str, float]) -> int:
    """Return how many processes that need so much each the nodes, as `ray.nodes` gives them, have room for in all."""
    return sum(
        int(min(node["Resources"].get(kind, 0) / amount for kind, amount in needed.items() if amount))
        for node in nodes
        if node["Alive"]
    )
