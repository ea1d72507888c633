"""Who may do what, of one server: who calls, what that caller may ask for, and what is noted of it."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from svckit.access import facts
from svckit.access.audit import AuditLog
from svckit.access.callers import ANYBODY, NO_LIMITS, ROLES, Caller, current
from svckit.access.identity import Identity
from svckit.access.methods import METHODS, UNKNOWN, Method
from svckit.access.quotas import Bucket, Quotas, Spent
from svckit.access.settings import AccessConfig
from svckit.errors import Reason, ServiceError
from svckit.metrics import Metrics
from svckit.streams import Context

REFUSALS = frozenset((Reason.UNAUTHENTICATED, Reason.ROLE_REQUIRED, Reason.LABEL_NOT_ALLOWED, Reason.QUOTA_EXCEEDED))
"""Why callers are refused for who they are, rather than for what they sent."""

_LOOK_S = 1.0
"""How often files are looked at for changes."""
_STRANGERS_PER_S = 1
"""Refusals of strangers that the audit log has lines for. Of more it has the number alone: else anybody could drive out what it holds."""
_KNOWN_PER_S = 10
"""Refusals of all known callers together that it has lines for."""
_REFUSALS_AT_ONCE = 100
"""Refusals of either kind that it has lines for at once, after a while with none."""
_LONGEST_ERROR = 500


@dataclass
class Call:
    """One call, as it is let through, and as the audit log tells of it."""

    method: str
    """Its full name, `/package.Service/Method`."""
    peer: str
    request_id: str
    asks: Method = field(init=False)
    """What the table says of the method."""
    caller: Caller | None = None
    """None until it is known."""
    spent: Spent = field(default_factory=Spent)
    """What it has taken of its caller's share."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What it is about and what came of it, for the audit log."""
    noted: asyncio.Future[None] | None = None
    """Done when the audit log has its line; None if it gets none."""

    def __post_init__(self) -> None:
        self.asks = METHODS.get(self.method, UNKNOWN)


class Access:
    """Lets calls through by caller, role and quota, and notes writes and refusals in the audit log."""

    def __init__(self, settings: AccessConfig, metrics: Metrics, *, certificates: bool) -> None:
        """`certificates`: every caller has shown a certificate that was verified.

        Raise ConfigError if a file is not as it should be.
        """
        self._identity = Identity(settings, certificates=certificates)
        self._quotas = Quotas()
        self._audit: AuditLog | None = None
        if settings.audit_log:
            self._audit = AuditLog(settings.audit_log, settings.audit_bytes, metrics.audit_line_lost)
            metrics.audit_stuck(lambda audit=self._audit: float(audit.stuck))  # type: ignore[misc]  # mypy knows no default
        self._strangers = Bucket(_STRANGERS_PER_S, _REFUSALS_AT_ONCE)
        self._known = Bucket(_KNOWN_PER_S, _REFUSALS_AT_ONCE)
        self._left_out = 0
        """Refusals since the last line of one."""
        for source in self._identity.sources:
            metrics.access_problem(source.name, lambda source=source: float(bool(source.problem)))  # type: ignore[misc]  # mypy knows no default

    async def watch(self) -> None:
        """Read files anew whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self._identity.refresh)

    def close(self) -> None:
        """Write what waits for the audit log. It may block."""
        if self._audit:
            if self._left_out:
                self._audit.append({"left_out": self._left_out})
            self._audit.close()

    async def known(self, context: Context) -> bool:
        """Return whether the caller has said who they are, and it is true."""
        try:
            return await self._identity.of(context) is not ANYBODY
        except ServiceError:
            return False

    async def enter(self, call: Call, context: Context) -> None:
        """Find out who calls. Raise ServiceError: UNAUTHENTICATED, or ROLE_REQUIRED if that caller may not call this method."""
        call.caller = await self._identity.of(context)
        current.set(call.caller)
        if call.caller.role < call.asks.role:
            wanted = call.asks.role.word
            raise ServiceError(
                Reason.ROLE_REQUIRED,
                f"{call.caller.name} has {_role(call.caller)}, and {call.method} needs {wanted}",
                metadata={"role": call.caller.role.word, "needed": wanted},
            )

    def place(self, call: Call) -> AbstractContextManager[None]:
        """Count the call while it is served. Raise ServiceError, QUOTA_EXCEEDED, if it is one too many."""
        return self._quotas.call(_caller(call), call.spent)

    def check(self, call: Call, request: Any) -> None:
        """Hold the request to the caller's quotas, and note what a write is about. Raise ServiceError, QUOTA_EXCEEDED."""
        asks, caller = call.asks, _caller(call)
        if self._audit and asks.asked:
            call.facts.update(asks.asked(request))
            facts.noted.set(call.facts)
        if caller.limits is not NO_LIMITS:
            self._quotas.check(caller, call.spent, photos=asks.photos(request), k=asks.k(request))

    def done(self, call: Call, response: Any) -> None:
        """Note what came of a write."""
        if self._audit:
            call.facts.update(call.asks.done(response))

    def note(self, call: Call, outcome: str, error: ServiceError | None) -> None:
        """Put a line into the audit log if the call was to change the gallery, or was refused for who called."""
        refused = error is not None and error.reason in REFUSALS
        if not self._audit or not (refused or call.asks.asked):
            return
        fields = {
            "caller": call.caller.name if call.caller else None,
            "peer": call.peer,
            "method": call.method,
            "outcome": outcome,
            **(_why(error) if error else {}),
            **call.facts,
            "request_id": call.request_id,
        }
        if not refused:
            call.noted = _appended(self._audit, fields)
        elif (self._strangers if _is_stranger(call) else self._known).take():
            self._left_out += 1
        else:
            call.noted = _appended(self._audit, {**fields, **({"left_out": self._left_out} if self._left_out else {})})
            self._left_out = 0


def _appended(audit: AuditLog, fields: Mapping[str, Any]) -> asyncio.Future[None]:
    """Append a line. Return what is done when it is in the file, or lost."""
    loop = asyncio.get_running_loop()
    noted: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not noted.done():  # the caller may have left
            noted.set_result(None)

    def then() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(resolve)

    audit.append(fields, then)
    return noted


def _caller(call: Call) -> Caller:
    assert call.caller is not None
    return call.caller


def _is_stranger(call: Call) -> bool:
    """Return whether it is not known who calls, or the caller may do nothing: of both there may be any number."""
    return call.caller is None or not call.caller.role


def _role(caller: Caller) -> str:
    if caller.role:
        return f"the role {caller.role.word}"
    return f"none of the roles {', '.join(ROLES)} in the claim `roles` of its JWT, and its subject is that of no caller that is listed"


def _why(error: ServiceError) -> Mapping[str, Any]:
    return {"reason": error.reason.value, "error": str(error)[:_LONGEST_ERROR], "details": error.metadata}
