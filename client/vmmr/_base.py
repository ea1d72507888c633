"""The settings and deadlines of a client, which the clients for threads and for asyncio share."""

from types import ModuleType

from vmmr import _channel
from vmmr._channel import TLS
from vmmr._connection import Connection
from vmmr._deadlines import TimeLeft, within
from vmmr._types import LONGEST_S, Filter, SearchOptions

DEFAULTS = SearchOptions()
EVERYTHING = Filter()


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
        reconnect_s: float | None = None,
    ) -> None:
        """Make a client. It connects when it is first used.

        `embedder`, `search`: where the services are, `host:port` or any gRPC target.
        `timeout_s`: seconds an operation may take unless its own `timeout_s` says otherwise. There is always a deadline.
        `tls`: how to connect securely. Default: without TLS.
        `token`: a bearer token; needs TLS, or services on this machine.
        `keepalive_s`: seconds of silence in a call before the client pings the server; it reconnects if no answer comes.
        `max_message_bytes`: the largest request and the largest reply.
        `reconnect_s`: seconds after which a service that can't be reached is given up. Default: when the operation's time is over.
        `connections`: how many to open to each service, used in turn; docs/client.md says how many several workers want.

        Raise ValueError if the settings make no sense, OSError if a file of `tls` can't be read.
        """
        check_positive(timeout_s=timeout_s, keepalive_s=keepalive_s, max_message_bytes=max_message_bytes)
        if reconnect_s is not None:
            check_positive(reconnect_s=reconnect_s)
        _check_connections(connections)
        _channel.check_targets((embedder, search), tls, token)
        self._timeout_s = timeout_s
        self._max_message_bytes = max_message_bytes
        # One batch is being classified, one embedded, and one for each connection waits at the embedder.
        self._batches_at_once = 2 + connections
        self._connection = Connection.to(
            self._channel_module,
            {"embedder": embedder, "search": search},
            tls=tls,
            token=token,
            max_message_bytes=max_message_bytes,
            keepalive_s=keepalive_s,
            connections=connections,
            reconnect_s=reconnect_s,
        )

    def _within(self, timeout_s: float | None) -> TimeLeft:
        """Return the time left of one deadline for a whole operation, counted from now, however many calls it makes."""
        return within(self._per_call(timeout_s)())

    def _per_call(self, timeout_s: float | None) -> TimeLeft:
        """Return the time that each call of an operation may take, all of them the same."""
        chosen = self._timeout_s if timeout_s is None else timeout_s
        check_positive(timeout_s=chosen)
        return lambda: chosen


def check_positive(**settings: float) -> None:
    """Raise ValueError, naming the setting, if one isn't positive, or is a time that gRPC can't count."""
    for name, setting in settings.items():
        if not setting > 0:
            raise ValueError(f"{name} must be > 0, got {setting}")
        if name.endswith("_s") and setting >= LONGEST_S:
            raise ValueError(f"{name} must be < {LONGEST_S}, got {setting}")


def _check_connections(connections: int) -> None:
    if not isinstance(connections, int) or connections < 1:
        raise ValueError(f"connections must be a whole number >= 1, got {connections}")
