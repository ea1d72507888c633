"""What the two clients have in common besides flows: their settings and their deadlines."""

from functools import partial
from types import ModuleType

from vmmr import _channel
from vmmr._channel import TLS
from vmmr._connection import Connection
from vmmr._deadlines import TimeLeft, within


class BaseClient:
    _channel_module: ModuleType

    def __init__(
        self,
        embedder: str = "127.0.0.1:50051",
        search: str = "127.0.0.1:50052",
        *,
        timeout_s: float = 10.0,
        tls: TLS | None = None,
        token: str | None = None,
        keepalive_s: float = 30.0,
        max_message_bytes: int = 64 * 2**20,
        connections: int = 1,
    ) -> None:
        """Connects when first used.

        `embedder`, `search`: where the services are, `host:port` or any gRPC target.
        `timeout_s`: the deadline of an operation that isn't given its own. There is always one.
        `tls`: connect securely. Default: in the clear.
        `token`: a bearer token; needs TLS, or services on this machine.
        `keepalive_s`: after so long without a sign of life during a call, ask for one; if none comes within as long
        again, or 20 seconds, connect anew and retry.
        `max_message_bytes`: the largest request and the largest reply.
        `connections`: to each service, used in turn. One connection leads to one of the processes that share a port
        (`--workers`); by how many it takes to reach them all, see docs/client.md.

        Raises ValueError if the settings make no sense, OSError if a file of `tls` can't be read.
        """
        check_positive(timeout_s=timeout_s, keepalive_s=keepalive_s, max_message_bytes=max_message_bytes)
        if not isinstance(connections, int) or connections < 1:
            raise ValueError(f"connections must be a whole number >= 1, got {connections}")
        _channel.check_ports((embedder, search))
        _channel.check_token_is_safe(token, tls, (embedder, search))
        self._timeout_s = timeout_s
        self._max_message_bytes = max_message_bytes
        # One is classified, one embedded, one waits at the embedder.
        self._batches_at_once = 2 + connections
        options = partial(
            _channel.options,
            max_message_bytes=max_message_bytes,
            keepalive_s=keepalive_s,
            shared=connections == 1,
        )
        self._connection = Connection(
            channel_module=self._channel_module,
            targets={"embedder": embedder, "search": search},
            options={"embedder": options(embedder), "search": options(search)},
            credentials=_channel.credentials(tls) if tls else None,
            token=token,
            connections=connections,
        )

    def _within(self, timeout_s: float | None) -> TimeLeft:
        """One deadline for an operation, counted from now, however many calls it takes."""
        return within(self._per_call(timeout_s)())

    def _per_call(self, timeout_s: float | None) -> TimeLeft:
        """A deadline for each call of its own."""
        chosen = self._timeout_s if timeout_s is None else timeout_s
        check_positive(timeout_s=chosen)
        return lambda: chosen


def check_positive(**settings: float) -> None:
    """Raises ValueError, naming the setting that isn't."""
    for name, setting in settings.items():
        if not setting > 0:
            raise ValueError(f"{name} must be > 0, got {setting}")
