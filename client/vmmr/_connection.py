"""The channels to both services, opened when first used."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import grpc

from vmmr import _failures, _requests
from vmmr._calls import Call, Service
from vmmr._errors import CallError
from vmmr._flows import Reply
from vmmr.embedder.v1 import embedder_pb2
from vmmr.embedder.v1.embedder_pb2_grpc import EmbedderServiceStub
from vmmr.gallery.v1.gallery_pb2_grpc import GalleryServiceStub
from vmmr.search.v1.search_pb2_grpc import SearchServiceStub

T = TypeVar("T")

_EMBEDDER = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"]


def _embedder_stub(channel: Any) -> Any:
    """Its Embed takes the photos as they are, instead of an EmbedRequest."""
    stub: Any = EmbedderServiceStub(channel)
    stub.Embed = channel.unary_unary(
        f"/{_EMBEDDER.full_name}/Embed",
        request_serializer=_requests.embed,
        response_deserializer=embedder_pb2.EmbedResponse.FromString,
    )
    return stub


def _search_stub(channel: Any) -> Any:
    """The methods of both of its services."""
    return SimpleNamespace(**vars(SearchServiceStub(channel)), **vars(GalleryServiceStub(channel)))


_STUBS: Mapping[Service, Callable[[Any], Any]] = {"embedder": _embedder_stub, "search": _search_stub}
_NAMES: Mapping[Service, str] = {"embedder": "embedder", "search": "search service"}


@dataclass
class Connection:
    """May be shared by threads, or by the tasks of one event loop, as its channels may."""

    channel_module: ModuleType
    """`grpc` or `grpc.aio`."""
    targets: Mapping[Service, str]
    options: Mapping[Service, list[tuple[str, Any]]]
    credentials: grpc.ChannelCredentials | None
    token: str | None
    connections: int = 1
    """Channels to each service, used in turn."""
    closed: bool = False
    _channels: list[Any] = field(default_factory=list)
    _stubs: dict[Service, Iterator[Any]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def check_open(self) -> None:
        """Raises RuntimeError if an operation would start on what is closed."""
        if self.closed:
            raise RuntimeError("this client is closed")

    def method(self, call: Call[Any]) -> Any:
        """The call's method on its channel. Raises CallError if that was closed since the operation started."""
        with self._lock:
            if self.closed:
                raise closed_during_call()
            if call.service not in self._stubs:
                self._open(call.service)
            return getattr(next(self._stubs[call.service]), call.method)

    def metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        authorization = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        return (("x-request-id", request_id), *authorization)

    @contextmanager
    def errors(self, call: Call[Any], request_id: str) -> Iterator[None]:
        """What gRPC raises within it comes out as a CallError."""
        try:
            yield
        except grpc.RpcError as error:
            service = f"{_NAMES[call.service]} at {self.targets[call.service]}"
            raise _failures.call_error(error, service=service, request_id=request_id) from error
        except ValueError as error:
            # Of a channel that was closed by another thread a moment ago.
            if self.closed:
                raise closed_during_call() from error
            raise

    def close(self) -> list[Any]:
        """Gives what closing the channels gave: of `grpc.aio`, something to await."""
        with self._lock:
            self.closed = True
            return [channel.close() for channel in self._channels]

    def _open(self, service: Service) -> None:
        """Channels connect when they are first used, so those that have no turn cost nothing."""
        channels = [self._channel(service) for _ in range(self.connections)]
        self._channels += channels
        self._stubs[service] = cycle([_STUBS[service](channel) for channel in channels])

    def _channel(self, service: Service) -> Any:
        target, options = self.targets[service], self.options[service]
        if self.credentials is None:
            return self.channel_module.insecure_channel(target, options)
        return self.channel_module.secure_channel(target, self.credentials, options)


def closed_during_call() -> CallError:
    return CallError("the client was closed during the call", status="CANCELLED")


def new_request_id() -> str:
    """Sent with all calls of one operation, so that both services' logs tell one story."""
    return uuid.uuid4().hex


def reply_to(call: Call[T], message: Any, round_trip_s: float, request_id: str) -> Reply[T]:
    return Reply(call.parse(message), 1000 * round_trip_s, request_id)
