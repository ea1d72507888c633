"""Logs on stderr: one JSON object a line, or text for people."""

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from svckit.redaction import without_secrets

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "text")

request_id: ContextVar[str] = ContextVar("request_id")
"""The request id of the call being served, which every line logged meanwhile carries."""

trace_ids: ContextVar[Mapping[str, str]] = ContextVar("trace_ids")
"""The `trace_id` and `span_id` of the call being served, if it has any, which every line logged meanwhile carries."""

_tags: dict[str, object] = {}

_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes that every record has; all others are extra fields of its line."""


def configure(level: str, form: str) -> None:
    """Send everything that this process logs to stderr. `level` is one of LEVELS, `form` one of FORMATS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    handler.addFilter(_add_ids)
    handler.addFilter(_add_tags)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def in_json() -> bool:
    """Return whether this process logs JSON."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger().handlers)


def tag(**fields: object) -> None:
    """Add fields to every line that this process logs after this call; a field of the line's own wins over one of the same name."""
    _tags.update(fields)


class _JsonFormatter(logging.Formatter):
    """Formats a record as `{"level": ..., "logger": ..., "message": ..., extras, "time": ...}`; quickly, for each call has a line."""

    # Made once: `json.dumps` would make an encoder for each line, because it is given a `default`.
    _encode = json.JSONEncoder(default=str).encode

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        fields.update(_extras(record))
        if record.exc_info:
            fields["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack_info"] = self.formatStack(record.stack_info)
        fields["time"] = datetime.fromtimestamp(record.created, UTC).isoformat()
        line = self._encode(fields)
        # A line break that JSON escapes would hide where a URL ends.
        return self._encode(_without_secrets(fields)) if without_secrets(line) != line else line


class _TextFormatter(logging.Formatter):
    """Formats a record as `time LEVEL logger: message key=value ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        extras = (f" {key}={value}" for key, value in _extras(record).items())
        return super().formatMessage(record) + "".join(extras)

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    # Libraries add fields of their own, as Ray does to all records once it is imported: their names begin with an underscore.
    return {key: value for key, value in vars(record).items() if key not in _RESERVED and not key.startswith("_")}


def _without_secrets(value: Any) -> Any:
    """Return a value that can be a line's, without the secrets in the URLs of its texts."""
    match value:
        case Mapping():
            return {key: _without_secrets(each) for key, each in value.items()}
        case list() | tuple():
            return [_without_secrets(each) for each in value]
        case int() | float() | None:
            return value
        case _:
            return without_secrets(str(value))


def _add_ids(record: logging.LogRecord) -> bool:
    if not hasattr(record, "request_id") and (current := request_id.get(None)):
        record.request_id = current
    if ids := trace_ids.get(None):
        vars(record).update(ids)
    return True


def _add_tags(record: logging.LogRecord) -> bool:
    vars(record).update({key: value for key, value in _tags.items() if not hasattr(record, key)})
    return True
