"""Configuration: one frozen dataclass per program, from flags over environment variables over defaults.

The field `max_batch` of a class loaded with the prefix `VMMR_EMBEDDER` is the flag `--max-batch` and the variable
`VMMR_EMBEDDER_MAX_BATCH`. Types are int, float, str, bool and Path, and each of them `| None`.
"""

import argparse
import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")
Number = int | float

_REQUIRED: Any = dataclasses.MISSING
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_FLAG = re.compile(r"--[a-z][a-z-]*")
# Kubernetes tells every container of a namespace's Services in variables named after them: a Service `vmmr-embedder` sets
# VMMR_EMBEDDER_PORT=tcp://10.0.0.1:50051, and others. No setting of ours is such an address.
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_SERVICE_VARIABLE = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class ConfigError(Exception):
    """A setting is wrong; the message names the flag or the variable it came from."""


def option(
    default: Any = _REQUIRED,
    *,
    help: str,  # noqa: A002 (argparse's word)
    minimum: Number | None = None,
    maximum: Number | None = None,
    choices: Sequence[str] | None = None,
    needs: str | None = None,
    not_with: str | None = None,
) -> Any:
    """Return a field of a configuration class. A field without a default must be given; the bounds are inclusive.

    `needs` names another field, by default None, without which this one means nothing, so that it must not be given alone;
    `not_with` one that is true or false, with which it means nothing, so that it must not be given, either.
    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices}
    company = {"needs": needs, "not_with": not_with}
    return dataclasses.field(default=default, metadata={"help": help, **company, **limits})


def found(find: Callable[[], Path], *, help: str, shown: str) -> Any:  # noqa: A002 (argparse's word)
    """Return a field whose default is looked for when it is wanted; `find` may raise ConfigError. Help texts show `shown` as the default."""
    limits = dict.fromkeys(("minimum", "maximum", "choices"))
    return dataclasses.field(default_factory=find, metadata={"help": help, "shown": shown, **limits})


def add_arguments(parser: argparse.ArgumentParser, cls: type, prefix: str) -> None:
    """Add a flag to the parser for every field of the class."""
    group = parser.add_argument_group("settings", "each can also be set by the environment variable named with it")
    for setting in _settings(cls, prefix):
        setting.add_to(group)


def from_namespace(
    cls: type[Config], prefix: str, args: argparse.Namespace, env: Mapping[str, str] = os.environ
) -> Config:
    """Build the configuration from parsed flags and the environment.

    A variable that is empty, or that Kubernetes has set to the address of a Service, counts as not set.

    Raise ConfigError if a setting is wrong. If the class itself raises it, of several settings that do not go together, the
    variables are added to the message, behind the flags that it names.
    """
    settings = _settings(cls, prefix)
    values = ((setting, setting.find(args, env)) for setting in settings)
    given = {setting.name: value for setting, value in values if value is not dataclasses.MISSING}
    with _naming_variables(settings):
        _check_company(settings, given)
        return cls(**given)


def _check_company(settings: Iterable["_Setting"], given: Mapping[str, Any]) -> None:
    flags = {setting.name: setting.flag for setting in settings}
    for setting in settings:
        if setting.needs and setting.name in given and setting.needs not in given:
            raise ConfigError(f"{setting.flag} means nothing without {flags[setting.needs]}, which is not given")
        if setting.not_with and setting.name in given and given.get(setting.not_with):
            raise ConfigError(f"{setting.flag} means nothing with {flags[setting.not_with]}")


def setting(cls: type, prefix: str, name: str, args: argparse.Namespace, env: Mapping[str, str] = os.environ) -> Any:
    """Return one setting of the class, for a command that is not configured by it: from a flag, if it has one, or the variable.

    Raise ConfigError.
    """
    settings = _settings(cls, prefix)
    (wanted,) = (each for each in settings if each.name == name)
    value = wanted.find(args, env)
    with _naming_variables(settings):
        return wanted.default_value() if value is dataclasses.MISSING else value


@contextmanager
def _naming_variables(settings: Iterable["_Setting"]) -> Iterator[None]:
    """Add the variables to the message of a ConfigError, behind the flags that it names."""
    variables = {setting.flag: setting.variable for setting in settings}
    try:
        yield
    except ConfigError as error:
        message = _FLAG.sub(lambda flag: f"{flag[0]} ({variables[flag[0]]})", str(error))
        raise ConfigError(message) from error


def unheeded(cls: type, prefix: str, env: Mapping[str, str] = os.environ) -> list[str]:
    """Return a warning for each variable that seems to be meant for the class, and is not read.

    These are variables with the prefix that name no field, and fields named without the prefix's first word, as they were
    before there was one.
    """
    known = {setting.variable for setting in _settings(cls, prefix)}
    strangers = sorted(name for name in env if name.startswith(f"{prefix}_") and name not in known)
    told = [_stranger(prefix, name.removeprefix(f"{prefix}_"), known) for name in strangers]
    return [*filter(None, told), *_without_first_word(known, env)]


def _stranger(prefix: str, name: str, known: Collection[str]) -> str | None:
    if _SERVICE_VARIABLE.fullmatch(name):
        return None
    near = difflib.get_close_matches(name, [each.removeprefix(f"{prefix}_") for each in known], n=1)
    return f"{prefix}_{name} is not read: there is no such setting" + (f"; {prefix}_{near[0]} is one" if near else "")


def _without_first_word(known: Collection[str], env: Mapping[str, str]) -> Iterator[str]:
    for variable in sorted(known):
        _, short = variable.split("_", 1)
        if short in env and not _SERVICE_ADDRESS.match(env[short]):
            yield f"{short} is not read: the setting is {variable}"


@dataclasses.dataclass(frozen=True)
class _Setting:
    """A field of a configuration class, with the flag and the variable that set it."""

    name: str
    kind: type
    default: Any
    make: Any
    """Makes the default, where it is not a value."""
    help: str
    minimum: Number | None
    maximum: Number | None
    choices: Sequence[str] | None
    variable: str
    shown: str = ""
    """The default in help texts; nothing if it is what the value is."""
    needs: str | None = None
    """The setting without which this one means nothing, if there is one."""
    not_with: str | None = None
    """The setting with which this one means nothing, if there is one."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def add_to(self, group: Any) -> None:
        text = f"{self.help} ({self._default_text()}, env {self.variable})".replace("%", "%%")
        if self.kind is bool:
            group.add_argument(self.flag, dest=self.name, action=argparse.BooleanOptionalAction, help=text)
        else:
            metavar = f"{{{','.join(self.choices)}}}" if self.choices else _METAVARS[self.kind]
            group.add_argument(self.flag, dest=self.name, metavar=metavar, help=text)

    def find(self, args: argparse.Namespace, env: Mapping[str, str]) -> Any:
        """Return the checked value of the flag or else of the variable; MISSING if neither is given and there is a default."""
        given = getattr(args, self.name, None)
        if given is not None:
            return given if self.kind is bool else self._parse(self.flag, given)
        if (text := env.get(self.variable)) and not _SERVICE_ADDRESS.match(text):
            return self._parse(self.variable, text)
        if self._is_required:
            raise ConfigError(f"{self.flag} or {self.variable} must be given")
        return dataclasses.MISSING

    def _parse(self, source: str, text: str) -> Any:
        value = self._convert(source, text)
        if self.minimum is not None and not value >= self.minimum:
            raise ConfigError(f"{source} must be >= {self.minimum}, got {text}")
        if self.maximum is not None and not value <= self.maximum:
            raise ConfigError(f"{source} must be <= {self.maximum}, got {text}")
        if self.choices is not None and value not in self.choices:
            raise ConfigError(f"{source} must be one of {', '.join(self.choices)}, got {text}")
        return value

    def _convert(self, source: str, text: str) -> Any:
        try:
            return _CONVERTERS[self.kind](text)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{source} must be {_EXPECTED[self.kind]}, got {text!r}") from error

    def default_value(self) -> Any:
        return self.make() if self.default is dataclasses.MISSING else self.default

    @property
    def _is_required(self) -> bool:
        return self.default is _REQUIRED and self.make is _REQUIRED

    def _default_text(self) -> str:
        if self.shown:
            return f"default: {self.shown}"
        if self._is_required:
            return "required"
        return "not set by default" if self.default is None else f"default {self.default}"


def _path(text: str) -> Path:
    if not text:
        raise ValueError("empty")
    return Path(text)


_CONVERTERS: Mapping[type, Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    bool: lambda text: _BOOLEANS[text.lower()],
    Path: _path,
}


def _settings(cls: type, prefix: str) -> list[_Setting]:
    hints = typing.get_type_hints(cls)
    return [
        _Setting(
            name=field.name,
            kind=_kind(hints[field.name]),
            default=field.default,
            make=field.default_factory,
            variable=f"{prefix}_{field.name}".upper(),
            **field.metadata,
        )
        for field in dataclasses.fields(cls)
    ]


def _kind(hint: Any) -> type:
    """Return the type that text is converted to: int for `int | None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return typing.cast("type", hint)
