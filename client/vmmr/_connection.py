"""The channels to both services, opened when first used."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Any, Self, TypeVar
from weakref import WeakSet

import grpc

from vmmr import _channel, _failures, _tracing
from vmmr._calls import Call, Service
from vmmr._channel import TLS
from vmmr._errors import CallError, UnavailableError
from vmmr._flows import Reply
from vmmr._rereading import Reread
from vmmr._tls_probe import Certificate, refuses_certificate, speaks_tls, wants_certificate
from vmmr._tracing import Metadata
from vmmr.embedder.v1.embedder_pb2_grpc import EmbedderServiceStub
from vmmr.gallery.v1.gallery_pb2_grpc import GalleryServiceStub
from vmmr.search.v1.search_pb2_grpc import SearchServiceStub

T = TypeVar("T")

_LONGEST_REQUEST_ID = 128
_request_id: ContextVar[str] = ContextVar("vmmr_request_id")


def _search_stub(channel: Any) -> Any:
    """Return the methods of both services that the search server has: search and gallery."""
    return SimpleNamespace(**vars(SearchServiceStub(channel)), **vars(GalleryServiceStub(channel)))


_STUBS: Mapping[Service, Callable[[Any], Any]] = {"embedder": EmbedderServiceStub, "search": _search_stub}
_NAMES: Mapping[Service, str] = {"embedder": "embedder", "search": "search service"}
_PROBE_S = 1.0
_OF_PARENTS: list[Any] = []
"""Channels that this process got by being forked: it keeps them, because to free them is to close them."""


@dataclass
class Connection:
    """The channels of one client. Threads may share it, or the tasks of one event loop, as they may share channels."""

    channel_module: ModuleType
    """`grpc` or `grpc.aio`."""
    targets: Mapping[Service, str]
    options: Mapping[Service, list[tuple[str, Any]]]
    credentials: Reread[grpc.ChannelCredentials] | None
    token: str | None
    connections: int = 1
    """Channels to each service, used in turn."""
    reconnect_s: float | None = None
    """Seconds after which a service that can't be reached is given up."""
    certificate: Certificate | None = None
    """The client's own certificate, if it has one."""
    closed: bool = False
    _channels: WeakSet[Any] = field(default_factory=WeakSet)
    """Those in use: by calls to come, or by calls under way that began before the TLS files changed."""
    _used: grpc.ChannelCredentials | None = None
    """The credentials of the channels for calls to come."""
    _stubs: dict[Service, Iterator[Any]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _process: int | None = None
    """The process that opened the channels."""

    @classmethod
    def to(
        cls,
        channel_module: ModuleType,
        targets: Mapping[Service, str],
        *,
        tls: TLS | None,
        token: str | None,
        max_message_bytes: int,
        keepalive_s: float,
        connections: int = 1,
        reconnect_s: float | None = None,
    ) -> Self:
        """Return a connection to `targets` that connects when it is first used.

        Raise OSError if a file of `tls` can't be read.
        """
        shared = connections == 1
        options = {
            name: _channel.options(
                target,
                max_message_bytes=max_message_bytes,
                keepalive_s=keepalive_s,
                shared=shared,
                reconnect_s=reconnect_s,
            )
            for name, target in targets.items()
        }
        credentials = _channel.credentials(tls) if tls else None
        certificate = Certificate(tls.cert, tls.key) if tls and tls.cert and tls.key else None
        return cls(channel_module, targets, options, credentials, token, connections, reconnect_s, certificate)

    def check_open(self) -> None:
        """Raise RuntimeError if the client is closed, or was used before this process was forked, before an operation starts."""
        if self.closed:
            raise RuntimeError("this client is closed")
        self._check_process()

    def method(self, call: Call[Any]) -> Any:
        """Return the call's method on its channel. Raise CallError if it was closed since the operation started."""
        self._check_process()  # before the lock, which a thread that was not forked may hold for ever
        with self._lock:
            if self.closed:
                raise closed_during_call()
            self._look_at_files()
            if call.service not in self._stubs:
                self._open(call.service)
            return getattr(next(self._stubs[call.service]), call.method)

    @contextmanager
    def calling(self, call: Call[Any], request_id: str) -> Iterator[Metadata]:
        """Yield the metadata of a call that is made within the block. Raise a CallError in place of what gRPC raises there."""
        authorization = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        with _tracing.calling(partial(_full_name, call)) as trace, self._errors(call, request_id):
            yield (("x-request-id", request_id), *authorization, *trace)

    @contextmanager
    def _errors(self, call: Call[Any], request_id: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            if self.closed and error.code() is grpc.StatusCode.CANCELLED:
                raise closed_during_call() from error
            service = _service(call, self.targets[call.service])
            raise _failures.call_error(error, service=service, request_id=request_id) from error
        except ValueError as error:
            # gRPC raises it if another thread closed the channel a moment ago.
            if self.closed:
                raise closed_during_call() from error
            raise

    def check_tls(self, call: Call[Any], error: CallError) -> None:
        """Raise UnavailableError if the server hung up because it expects TLS, or a certificate that this client does not have.

        Ask the server, by a connection or two: that takes a moment, two seconds at most.
        """
        target = self.targets[call.service]
        if error.reason is None and (wrong := self._wrong_with_tls(target)):
            raise UnavailableError(
                f"{_service(call, target)} {wrong}",
                status=error.status,
                reason=_failures.TLS_FAILED,
                request_id=error.request_id,
            )

    def _wrong_with_tls(self, target: str) -> str | None:
        """Return what the server expects of the client's TLS and does not get; None if it is not that."""
        if self.credentials is None:
            return "expects TLS, and this client has none: give tls" if speaks_tls(target, _PROBE_S) else None
        if self.certificate is None:
            lacks = "expects a client's certificate, and this client has none: give cert and key of tls"
            return lacks if wants_certificate(target, _PROBE_S) else None
        refused = f"does not take this client's certificate {os.fspath(self.certificate.cert)}: a CA that the server trusts must have signed it, and it must not have expired"
        return refused if refuses_certificate(target, _PROBE_S, self.certificate) else None

    def close(self) -> list[Any]:
        """Close the channels. Return what each `close` returned: with `grpc.aio`, something to await.

        In a process that was forked off, leave the channels alone: they are the parent's, and closing them could hang.
        """
        if self._is_forked():
            self.closed = True
            _OF_PARENTS.extend(self._channels)
            return []
        with self._lock:
            self.closed = True
            return [channel.close() for channel in self._channels]

    def _is_forked(self) -> bool:
        """Return whether another process than this one opened the channels."""
        return self._process not in (None, os.getpid())

    def _check_process(self) -> None:
        if self._is_forked():
            raise RuntimeError(
                f"this client was used by process {self._process}, from which this process, {os.getpid()}, was forked, and its "
                "connections do not survive that: make a client in each process, and start processes that are to make calls with "
                "multiprocessing's 'spawn' or 'forkserver', or before the first call"
            )

    def _look_at_files(self) -> None:
        """Forget all channels if the TLS files have changed. Calls under way keep theirs; each is closed when its last call ends."""
        if self.credentials and (latest := self.credentials.latest()) is not self._used:
            self._used = latest
            self._stubs.clear()

    def _open(self, service: Service) -> None:
        """Make all channels to the service. A channel connects when it is first used, so one that gets no turn costs nothing."""
        self._process = os.getpid()
        channels = [self._channel(service) for _ in range(self.connections)]
        self._channels.update(channels)
        self._stubs[service] = cycle([_stub(service, channel) for channel in channels])

    def _channel(self, service: Service) -> Any:
        target, options = self.targets[service], self.options[service]
        if self._used is None:
            return self.channel_module.insecure_channel(target, options)
        return self.channel_module.secure_channel(target, self._used, options)


def _stub(service: Service, channel: Any) -> Any:
    """Return the methods of the services that a server has. Each holds its channel: once nobody does, it is closed."""
    stub = _STUBS[service](channel)
    for method in vars(stub).values():
        method.channel = channel
    return stub


def _service(call: Call[Any], target: str) -> str:
    return f"{_NAMES[call.service]} at {target}"


def _full_name(call: Call[Any]) -> str:
    """Return the name of the call's method as gRPC has it, without the slash before it."""
    services = call.request.DESCRIPTOR.file.services_by_name.values()
    return next(f"{each.full_name}/{call.method}" for each in services if call.method in each.methods_by_name)


def closed_during_call() -> CallError:
    return CallError("the client was closed during the call", status="CANCELLED")


def new_request_id() -> str:
    """Return an id to send with all calls of one operation, so that it can be followed through both services' logs."""
    return _request_id.get("") or uuid.uuid4().hex


@contextmanager
def request_id(value: str) -> Iterator[None]:
    """Send this request id with all calls of the operations that start within the block, in place of a new one for each.

    A program that serves requests of its own gives theirs, so that one id is in its log and in those of both services. It
    counts for the thread or task that the block is in, and for tasks that start within it.

    Raise ValueError unless it is 1 to 128 printable ASCII characters, for the services take no other.
    """
    if not (0 < len(value) <= _LONGEST_REQUEST_ID and value.isascii() and value.isprintable()):
        raise ValueError(f"a request id must be 1 to {_LONGEST_REQUEST_ID} printable ASCII characters, got {value!r}")
    before = _request_id.set(value)
    try:
        yield
    finally:
        _request_id.reset(before)


def reply_to(call: Call[T], message: Any, round_trip_s: float, request_id: str) -> Reply[T]:
    return Reply(call.parse(message), 1000 * round_trip_s, request_id)
