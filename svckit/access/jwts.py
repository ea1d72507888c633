"""JSON Web Tokens: who one is of, if its issuer signed it for us and it has not ended. Needs the extra `jwt`.

Only signatures by a private key count: with a shared secret, or none (`alg: none`), whoever can check a token could make one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_KINDS = ("RSA", "EC", "OKP")
LEEWAY_S = 10.0
"""How far the clocks of issuer and server may be apart."""


class InvalidTokenError(Exception):
    """A token is not one to go by; the message says why."""


class UnknownKeyError(InvalidTokenError):
    """None of the keys signed the token; a newer set of keys may have the one that did."""


@dataclass(frozen=True)
class Keys:
    """The public keys of an issuer, by their ids; a single key may have none, under the empty id."""

    by_id: Mapping[str, jwt.PyJWK] = field(default_factory=dict)
    document: str = ""
    """What they were read from."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self.document == other.document

    def __hash__(self) -> int:
        return hash(self.document)


@dataclass(frozen=True)
class Claims:
    """What a valid token says."""

    subject: str
    expires: float
    """In seconds since 1970."""
    roles: tuple[str, ...]
    """Its claim `roles`, a text or a list of texts."""


def parse_keys(content: bytes) -> Keys:
    """Return the keys of a JSON Web Key Set; keys for anything but signatures by a private key are left out, and those that cannot be read.

    Raise ValueError if it is no such set, or has no such key.
    """
    try:
        listed = json.loads(content)["keys"]
        by_id = {str(key.get("kid", "")): usable for key in listed if (usable := _usable(key))}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"is not a JSON Web Key Set: {error}") from error
    if not by_id:
        raise ValueError("has no public key for signatures")
    return Keys(by_id, content.decode())


def claims(token: str, keys: Keys, *, issuer: str, audience: str) -> Claims:
    """Return what the token says. Raise InvalidTokenError unless the issuer signed it for the audience, and it holds now."""
    try:
        header = jwt.get_unverified_header(token)
        key = _key(keys, header.get("kid"))
        said = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm_name],
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise InvalidTokenError(str(error)) from error
    return Claims(str(said["sub"]), float(said["exp"]), _roles(said.get("roles")))


def _usable(key: Mapping[str, Any]) -> jwt.PyJWK | None:
    """Return it if it is a key for signatures that only the issuer can make. A key that names no algorithm has that of its kind.

    One of a kind that is not known here, or that lacks something, is none (RFC 7517, section 5): the others count.
    """
    for_signatures = key.get("kty") in _KINDS and key.get("use", "sig") == "sig"
    if not for_signatures or key.get("alg", _ALGORITHMS[0]) not in _ALGORITHMS:
        return None
    try:
        return jwt.PyJWK(dict(key))
    except jwt.PyJWTError:
        return None


def _key(keys: Keys, key_id: Any) -> jwt.PyJWK:
    if key_id is None and len(keys.by_id) == 1:
        return next(iter(keys.by_id.values()))
    if (found := keys.by_id.get(str(key_id))) is None:
        raise UnknownKeyError(f"no key has the id {str(key_id)[:80]!r}")
    return found


def _roles(claim: Any) -> tuple[str, ...]:
    listed = [claim] if isinstance(claim, str) else claim
    return tuple(role for role in listed if isinstance(role, str)) if isinstance(listed, list) else ()
