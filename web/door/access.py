"""Who may change the gallery: a program that sends the token, or a browser that was signed in with it."""

import hmac
import secrets
import time
from collections.abc import Callable

from starlette.requests import Request

from web.door.problems import DoorError, Reason

COOKIE = "vmmr_session"
SESSION_S = 12 * 3600
_MAX_SESSIONS = 1000


class Access:
    """Checks tokens, and remembers the browsers that were signed in. A restart of the program signs all of them out."""

    def __init__(self, token: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`token` None: nobody may change the gallery."""
        self._token = token
        self._clock = clock
        self._sessions: dict[str, float] = {}

    @property
    def writes(self) -> bool:
        """Whether anybody may change the gallery."""
        return self._token is not None

    def check(self, request: Request) -> None:
        """Raise DoorError unless whoever sent the request may change the gallery."""
        self._check_writes()
        if not (self.signed_in(request) or self._is_token(_bearer(request))):
            raise DoorError(
                Reason.TOKEN_WANTED, "changing the gallery needs the token: sign in, or send it as a bearer token"
            )

    def signed_in(self, request: Request) -> bool:
        """Return whether the request is of a browser that was signed in."""
        return self._sessions.get(request.cookies.get(COOKIE, ""), 0.0) > self._clock()

    def sign_in(self, token: str) -> str:
        """Return the name of a new session, for the cookie. Raise DoorError if the token is wrong."""
        self._check_writes()
        if not self._is_token(token):
            raise DoorError(Reason.TOKEN_WANTED, "that is not the token")
        now = self._clock()
        self._sessions = {name: ends for name, ends in self._sessions.items() if ends > now}
        if len(self._sessions) >= _MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        name = secrets.token_urlsafe(32)
        self._sessions[name] = now + SESSION_S
        return name

    def sign_out(self, request: Request) -> None:
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def _check_writes(self) -> None:
        if not self.writes:
            raise DoorError(
                Reason.WRITES_OFF, "the gallery can't be changed here: the program was started without --token-file"
            )

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
