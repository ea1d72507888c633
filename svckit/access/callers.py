"""Who calls: a name, a role, the labels it may change, and its limits."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from svckit.errors import Reason, ServiceError


class Role(IntEnum):
    """What a caller may do. Each role may do all that those before it may."""

    NONE = 0
    """Nothing: a JWT that its issuer has given none of the others."""
    QUERY = 1
    """Ask: embed and detect, search and classify, and read whatever is there."""
    ENROL = 2
    """Also change the gallery: add and delete items."""
    ADMIN = 3
    """Also compact the gallery, and call what no table knows."""

    @property
    def word(self) -> str:
        """The role as files and messages write it."""
        return self.name.lower()


ROLES = {role.word: role for role in Role if role}
"""Those that files and JWTs may name."""


@dataclass(frozen=True)
class Limits:
    """The most that a caller may ask of one process; None is as much as the service itself allows."""

    requests_per_s: float | None = None
    photos_per_s: float | None = None
    """Photos, queries or gallery items, each of which is the embedding of a photo."""
    concurrent_calls: int | None = None
    photos_per_call: int | None = None
    max_k: int | None = None
    """Most neighbours that a search may ask for."""


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Caller:
    """Somebody who was let in."""

    name: str
    role: Role
    label_prefixes: tuple[str, ...] = ()
    """The beginnings of the labels that it may add and delete; empty: any label."""
    limits: Limits = NO_LIMITS
    listed: bool = True
    """Whether our own settings name it: of others there may be any number."""


ANYBODY = Caller("anybody", Role.ADMIN)
"""The caller of a server that asks nobody who they are."""

current: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""The caller of the call being served."""


def check_label(prefixes: tuple[str, ...], label: str) -> None:
    """Raise ServiceError, LABEL_NOT_ALLOWED, unless the label begins with one of the prefixes; any does if there are none."""
    if prefixes and not label.startswith(prefixes):
        allowed = ", ".join(map(repr, prefixes))
        raise ServiceError(
            Reason.LABEL_NOT_ALLOWED,
            f"this caller may add and delete labels that begin with {allowed}, and {label[:80]!r} does not",
            metadata={"label": label[:80]},
        )
