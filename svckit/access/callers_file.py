"""The file of callers: TOML that lists who may call, how each is known, and what each may do.

[caller.importer]
role = "enrol"
label_prefixes = ["acme_"]
certificates = ["importer.example.org"]
photos_per_s = 50

[[token]]
caller = "importer"
sha256 = "..."
expires = 2027-06-01
"""

import dataclasses
import math
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from svckit.access.callers import NO_LIMITS, ROLES, Caller, Limits, Role

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIMITS = tuple(field.name for field in dataclasses.fields(Limits))
_RATES = ("requests_per_s", "photos_per_s")
_LISTS = {
    "label_prefixes": "leave it out to allow every label",
    "certificates": "leave it out for none",
    "subjects": "leave it out for none",
}
"""Lists of texts, and what to do in place of an empty one."""


@dataclass(frozen=True)
class Token:
    """A token, known by its hash alone."""

    caller: Caller
    expires: float = math.inf
    """When it ends, in seconds since 1970."""


@dataclass(frozen=True)
class Callers:
    """What a file of callers says."""

    by_name: Mapping[str, Caller] = field(default_factory=dict)
    by_token: Mapping[str, Token] = field(default_factory=dict)
    """By the token's sha256, as hexadecimal digits."""
    by_certificate: Mapping[str, Caller] = field(default_factory=dict)
    """By the common name of the subject, or an alternative name."""
    by_subject: Mapping[str, Caller] = field(default_factory=dict)
    """By the `sub` of a JWT."""
    defaults: Limits = NO_LIMITS
    """The limits of callers that the file does not name."""


def parse(content: bytes) -> Callers:
    """Return what the file says. Raise ValueError that names what is wrong with it, and where, or that it says nothing."""
    callers = parse_any(content)
    if callers == Callers():
        # An editor or a disk that is full has left it so, or nobody has written it yet: who is to be locked out is taken out by name.
        raise ValueError("is empty: it lists no caller, and no limits")
    return callers


def parse_any(content: bytes) -> Callers:
    """Return what the file says, also if that is nothing yet. Raise ValueError that names what is wrong with it, and where."""
    try:
        tables = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"is not TOML: {error}") from error
    _check_keys("the file", tables, ("caller", "token", "defaults"))
    given = _table("defaults", tables.get("defaults", {}))
    _check_keys("[defaults]", given, _LIMITS)
    defaults = _limits("[defaults]", given, NO_LIMITS)
    listed = {
        name: _table(f"[caller.{name}]", table) for name, table in _table("[caller]", tables.get("caller", {})).items()
    }
    callers = {name: _caller(name, table, defaults) for name, table in listed.items()}
    return Callers(
        callers,
        _tokens(tables.get("token", []), callers),
        _known_by("certificates", listed, callers),
        _known_by("subjects", listed, callers),
        defaults,
    )


def without_effect(callers: Callers, *, certificates: bool, jwts: bool) -> list[str]:
    """Return what the file says that has no effect on a server, a sentence each, with the caller's name.

    `certificates`: clients show certificates that are verified. `jwts`: there is an issuer of JWTs.
    """
    limited = (each.name for each in callers.by_name.values() if each.label_prefixes and each.role < Role.ENROL)
    told = [f"label_prefixes of {name}: its role may add and delete nothing" for name in limited]
    if not certificates:
        named = _names(callers.by_certificate)
        told += [f"certificates of {name}: without --tls-client-ca, no certificate is looked at" for name in named]
    if not jwts:
        told += [f"subjects of {name}: without --jwt-keys, no JWT is taken" for name in _names(callers.by_subject)]
    held = (token.caller.name for token in callers.by_token.values())
    known = {*held, *_names(callers.by_certificate), *_names(callers.by_subject)}
    told += [f"{name}: it has no token, certificate or subject" for name in callers.by_name if name not in known]
    if not callers.by_name and not jwts:
        told.append("[defaults]: no caller is listed, and without --jwt-keys there are no others")
    return told


def _names(known: Mapping[str, Caller]) -> list[str]:
    return list(dict.fromkeys(caller.name for caller in known.values()))


def _caller(name: str, table: Mapping[str, Any], defaults: Limits) -> Caller:
    where = f"[caller.{name}]"
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{where}: a name has 1 to 128 of the characters A-Z a-z 0-9 . _ @ / -, and begins with one of the first"
        )
    _check_keys(where, table, ("role", *_LISTS, *_LIMITS))
    if (role := table.get("role")) not in tuple(ROLES):  # a list, which no dict can be asked for, is none either
        raise ValueError(f"{where}: role must be one of {', '.join(ROLES)}, got {role!r}")
    prefixes = tuple(unicodedata.normalize("NFC", prefix) for prefix in _texts(where, table, "label_prefixes"))
    return Caller(name, ROLES[role], prefixes, _limits(where, table, defaults))


def _limits(where: str, table: Mapping[str, Any], defaults: Limits) -> Limits:
    given = {name: table[name] for name in _LIMITS if name in table}
    for name, value in given.items():
        kinds = (int, float) if name in _RATES else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
            raise ValueError(
                f"{where}: {name} must be a {'' if name in _RATES else 'whole '}number above 0, got {value!r}"
            )
    return dataclasses.replace(defaults, **given) if given else defaults


def _tokens(tables: Any, callers: Mapping[str, Caller]) -> dict[str, Token]:
    if not isinstance(tables, list):
        raise ValueError("a token is a table [[token]], with two pairs of brackets")  # noqa: TRY004 (of the file's content)
    tokens: dict[str, Token] = {}
    for number, table in enumerate(tables, 1):
        where = f"[[token]] number {number}"
        _check_keys(where, _table(where, table), ("caller", "sha256", "expires"))
        if (name := table.get("caller")) not in tuple(callers):
            raise ValueError(f"{where}: there is no [caller.{name}]")
        if not _SHA256.fullmatch(sha256 := str(table.get("sha256"))):
            raise ValueError(f"{where}: sha256 must be 64 hexadecimal digits in lower case")
        if sha256 in tokens:
            raise ValueError(f"{where}: the same token is there before, of {tokens[sha256].caller.name!r}")
        tokens[sha256] = Token(callers[name], _expiry(where, table.get("expires")))
    return tokens


def _expiry(where: str, value: Any) -> float:
    if value is None:
        return math.inf
    if isinstance(value, datetime) and value.tzinfo:
        return value.timestamp()
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    raise ValueError(
        f"{where}: expires must be a date, or a time with its zone, such as 2027-06-01T00:00:00Z, got {value}"
    )


def _known_by(key: str, listed: Mapping[str, Mapping[str, Any]], callers: Mapping[str, Caller]) -> dict[str, Caller]:
    known: dict[str, Caller] = {}
    for name, table in listed.items():
        for text in _texts(f"[caller.{name}]", table, key):
            if text in known:
                raise ValueError(f"[caller.{name}]: {text!r} of {key} is that of {known[text].name!r}, too")
            known[text] = callers[name]
    return known


def _texts(where: str, table: Mapping[str, Any], key: str) -> Iterable[str]:
    texts: list[str] = table.get(key, [])
    if key in table and not (isinstance(texts, list) and texts and all(isinstance(t, str) and t for t in texts)):
        raise ValueError(f'{where}: {key} must be a list of texts that are not empty, such as ["a"]; {_LISTS[key]}')
    return texts


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a table")  # noqa: TRY004 (of the file's content)
    return value


def _check_keys(where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    if strangers := sorted(table.keys() - set(known)):
        raise ValueError(f"{where}: there is no {strangers[0]!r}; what there is: {', '.join(known)}")
