"""Who calls: found by a bearer token, a JWT or a client certificate."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmmr import _tokens

from svckit.access import callers_file, sources
from svckit.access.callers import ANYBODY, ROLES, Caller, Role
from svckit.access.callers_file import Callers, Token
from svckit.access.settings import AccessConfig
from svckit.access.sources import Source
from svckit.config import ConfigError
from svckit.errors import Reason, ServiceError
from svckit.extras import needing
from svckit.streams import Context

if TYPE_CHECKING:
    from svckit.access.jwts import Claims, Keys

_log = logging.getLogger(__name__)

_MOST_KEPT = 4096
"""JWTs whose signature is not checked again while they hold."""
_REFRESH_S = 10.0
"""The least time between two reads of an issuer's keys for the sake of tokens that none of them signed."""
_BEARER = "bearer "


class Identity:
    """Tells who calls, by what was read from files and an issuer; `refresh` reads them anew where they have changed."""

    def __init__(self, settings: AccessConfig, *, certificates: bool) -> None:
        """`certificates`: every caller has shown a certificate that was verified.

        Raise ConfigError if a file is not as it should be.
        """
        self._asks = settings.asks_who_calls
        self._takes_jwts = settings.jwt_keys is not None
        self._certificates = certificates
        self._token = _opened(settings.token_file, "token file", _parse_token, "")
        self._callers = _opened(settings.callers, "callers file", self._parse_callers, Callers())
        self._jwts = _Jwts(settings, lambda: self._callers.value) if settings.jwt_keys else None

    @property
    def sources(self) -> list[Source[Any]]:
        """What was read, and is to be read anew when it changes."""
        found = (self._token, self._callers, *((self._jwts.keys,) if self._jwts else ()))
        return [source for source in found if source.place]

    def refresh(self) -> None:
        """Read anew what has changed. It may block."""
        for source in self.sources:
            source.refresh()

    async def of(self, context: Context) -> Caller:
        """Return who calls. Raise ServiceError, UNAUTHENTICATED, if that is not known."""
        if not self._asks:
            return self._anybody(context)
        if given := _authorization(context):
            if given[: len(_BEARER)].lower() != _BEARER:
                raise _stranger("scheme", "no valid token in the metadata `authorization: Bearer TOKEN`")
            return await self._of_token(given[len(_BEARER) :])
        if self._certificates and (caller := self._of_certificate(context)):
            return caller
        nothing = "no valid token in the metadata `authorization: Bearer TOKEN`: there is none"
        if self._certificates and (names := [name[:80] for name in _names(context)]):
            shown = ", ".join(map(repr, names[:5]))
            raise _stranger(
                "unknown_certificate", f"{nothing}, and no caller that is listed has a certificate of {shown}"
            )
        raise _stranger("missing", nothing)

    def _parse_callers(self, content: bytes) -> Callers:
        """Return what the file says, and warn of whatever of it has no effect. Raise ValueError if it is not as it should be."""
        callers = callers_file.parse(content)
        for told in callers_file.without_effect(callers, certificates=self._certificates, jwts=self._takes_jwts):
            _log.warning("the callers file says something that has no effect", extra={"what": told})
        return callers

    def _anybody(self, context: Context) -> Caller:
        if not self._certificates:
            return ANYBODY
        return Caller(next(_names(context), "certificate"), Role.ADMIN)

    def _of_certificate(self, context: Context) -> Caller | None:
        known = self._callers.value.by_certificate
        return next((known[name] for name in _names(context) if name in known), None)

    async def _of_token(self, token: str) -> Caller:
        sha256 = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        if sha256 == self._token.value:
            return _HOLDER
        if known := self._callers.value.by_token.get(sha256):
            return _unexpired(known)
        if self._jwts and token.count(".") == 2:
            return await self._jwts.caller(token, sha256)
        raise _stranger(
            "unknown_token", "no valid token in the metadata `authorization: Bearer TOKEN`: it is not known"
        )


_HOLDER = Caller("token-file", Role.ADMIN)
"""Whoever has the one token of `--token-file`."""


class _Jwts:
    """Finds out whose a JWT is."""

    def __init__(self, settings: AccessConfig, callers: Callable[[], Callers]) -> None:
        with needing("jwt", ConfigError, "{library}, which --jwt-keys needs, is not installed"):
            from svckit.access import jwts  # noqa: PLC0415 (of an extra)
        self._jwts = jwts
        self._issuer, self._audience = str(settings.jwt_issuer), str(settings.jwt_audience)
        self._callers = callers
        place = str(settings.jwt_keys)
        self.keys: Source[Keys]
        if place.startswith("https://"):
            self.keys = sources.url("JWT keys", place, jwts.parse_keys, jwts.Keys())
            self.keys.refresh()  # an issuer that does not answer keeps no server from starting
        else:
            self.keys = sources.file("JWT keys", Path(place), jwts.parse_keys, jwts.Keys())
            self.keys.open()
        self._refreshed = time.monotonic()
        self._refreshing: asyncio.Task[None] | None = None
        self._kept: OrderedDict[str, tuple[Claims, Keys]] = OrderedDict()

    async def caller(self, token: str, sha256: str) -> Caller:
        claims = await self._claims(token, sha256)
        if known := self._callers().by_subject.get(claims.subject):
            return known
        role = max((ROLES[role] for role in claims.roles if role in ROLES), default=Role.NONE)
        # Not the name of a caller that is listed, whatever the subject is.
        return Caller(f"jwt:{claims.subject[:128]}", role, limits=self._callers().defaults, listed=False)

    async def _claims(self, token: str, sha256: str) -> "Claims":
        """Return what the token says; its signature is checked once."""
        if (kept := self._kept.get(sha256)) and kept[1] is self.keys.value:
            if time.time() < kept[0].expires + self._jwts.LEEWAY_S:
                return kept[0]
            del self._kept[sha256]
        claims = await self._checked(token)
        self._kept[sha256] = claims, self.keys.value
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return claims

    async def _checked(self, token: str) -> "Claims":
        try:
            try:
                return self._check(token)
            except self._jwts.UnknownKeyError:
                # The issuer may have begun to sign with a new key.
                await self._refresh()
                return self._check(token)
        except self._jwts.InvalidTokenError as error:
            raise _stranger("bad_jwt", f"the JWT is not valid: {error}") from error

    async def _refresh(self) -> None:
        """Read the keys again, unless that was done a moment ago; whoever asks for it while they are read waits, too."""
        running = self._refreshing is not None and not self._refreshing.done()
        if not running and time.monotonic() >= self._refreshed + _REFRESH_S:
            self._refreshed = time.monotonic()
            self._refreshing = asyncio.create_task(asyncio.to_thread(self.keys.refresh, at_once=True))
        if self._refreshing:
            await asyncio.shield(self._refreshing)

    def _check(self, token: str) -> "Claims":
        return self._jwts.claims(token, self.keys.value, issuer=self._issuer, audience=self._audience)


def _opened(path: Path | None, name: str, parse: Callable[[bytes], Any], initial: Any) -> Source[Any]:
    if path is None:
        return Source(name, "", read=bytes, parse=lambda _: initial, version=lambda: None, initial=initial)
    source = sources.file(name, path, parse, initial)
    source.open()
    return source


def _parse_token(content: bytes) -> str:
    """Return the sha256 of the token in a file of a single token. Raise ValueError if there is none that can be sent."""
    return hashlib.sha256(_tokens.parse(content).encode()).hexdigest()


def _unexpired(token: Token) -> Caller:
    if time.time() >= token.expires:
        ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires))
        raise _stranger("expired", f"the token of {token.caller.name} expired at {ended}")
    return token.caller


def _names(context: Context) -> Iterator[str]:
    """Yield the names in the caller's certificate, the alternative ones first."""
    properties = context.auth_context()
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        yield from (name.decode(errors="replace") for name in properties.get(key, ()))


def _authorization(context: Context) -> str:
    return next((str(value) for name, value in context.invocation_metadata() or () if name == "authorization"), "")


def _stranger(cause: str, message: str) -> ServiceError:
    return ServiceError(Reason.UNAUTHENTICATED, message, metadata={"cause": cause})
