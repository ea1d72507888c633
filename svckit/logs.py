"""Logs on stderr: one JSON object a line, or text for people."""

import logging
import sys
from contextvars import ContextVar

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "text")

request_id: ContextVar[str] = ContextVar("request_id")
"""The call being served; every line logged meanwhile carries it."""

_tags: dict[str, object] = {}


def configure(level: str, form: str) -> None:
    """Sends everything this process logs to stderr. `level` is one of LEVELS, `form` one of FORMATS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json_formatter() if form == "json" else _TextFormatter())
    handler.addFilter(_add_request_id)
    handler.addFilter(_add_tags)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def tag(**fields: object) -> None:
    """Adds fields to every line that this process logs from now on; a line's own win."""
    _tags.update(fields)


def _json_formatter() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"], rename_fields={"levelname": "level", "name": "logger"}, timestamp="time"
    )


class _TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        extras = (f" {key}={value}" for key, value in vars(record).items() if key not in RESERVED_ATTRS)
        return super().formatMessage(record) + "".join(extras)


def _add_request_id(record: logging.LogRecord) -> bool:
    if not hasattr(record, "request_id") and (current := request_id.get(None)):
        record.request_id = current
    return True


def _add_tags(record: logging.LogRecord) -> bool:
    vars(record).update({key: value for key, value in _tags.items() if not hasattr(record, key)})
    return True
