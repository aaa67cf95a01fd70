"""Logging for scripts: one line an event, to read or as JSON. Modules only ever call logging.getLogger(__name__).

logger.info("snapshot served index=%s snapshot=%s", name, snapshot_id)    within log_fields(request_id="r1"):

text   2026-01-01T12:00:00.000Z INFO raydex.serve.swapping snapshot served index=docs snapshot=s1 request_id=r1
json   {"time": "2026-01-01T12:00:00.000Z", "level": "INFO", "logger": …, "event": "snapshot served", "index": …}

The fields are read from the template, not from the line: a value with blanks or line ends is quoted in text, and stays
one value in JSON, where numbers are numbers.
"""

import functools
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

TELL_SECRETS = ("botocore", "aiobotocore", "s3fs")
"""Below INFO these print requests with their headers, the token of the session among them."""

LogFormat = Literal["text", "json"]

PLAIN = re.compile(r"[^\s\"\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""Values that need no quotes in text; any other could forge a line or a field."""

_FIELD = re.compile(r"(?:^| )([a-z_]+)=(%[-+ #0]*[0-9.]*[sdrfg])(?= |$)")

_context: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default={})  # noqa: B039 - it is never changed


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Add these fields to every line written within, in this thread or task and those it starts; "" adds none."""
    token = _context.set({**_context.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _context.reset(token)


def add_log_fields(**fields: str) -> None:
    """Add fields, in this task, to all that is written before the block of log_fields() around it ends."""
    _context.set({**_context.get(), **fields})


@functools.lru_cache(maxsize=512)
def template_of(message: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the event and its fields, each a name and a conversion: `page failed url=%s` → page failed, (url, %s)."""
    fields = tuple(_FIELD.findall(message))
    return _FIELD.sub("", message).strip(), fields


class EventFormatter(logging.Formatter):
    """Formats what our modules log, and what others log as an event without fields of its own, unless by `others`."""

    def __init__(self, kind: LogFormat, *, others: logging.Formatter | None = None) -> None:
        super().__init__()
        self._kind, self._others = kind, others

    def format(self, record: logging.LogRecord) -> str:
        if self._others and not record.name.startswith("raydex"):
            return self._others.format(record)
        head = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
        }
        event, fields = _event_of(record)
        for name, value in _context.get().items():
            fields.setdefault(name, (value, value))
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._kind == "json":
            told = {**head, "event": event, **{name: value for name, (_, value) in fields.items()}}
            return json.dumps({**told, **({"traceback": trace} if trace else {})})
        line = " ".join([*head.values(), event, *(f"{name}={_quoted(text)}" for name, (text, _) in fields.items())])
        return line + "".join(f"\n    {part}" for part in trace.splitlines())  # indented: none begins like an event


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, tuple[str, Any]]]:
    """Return the event and, by name, each field as text and as a value of JSON."""
    event, fields = template_of(str(record.msg))
    arguments = record.args if isinstance(record.args, tuple) else ()
    if "%" in event or len(arguments) != len(fields):  # not one of ours
        return json.dumps(record.getMessage())[1:-1], {}
    return event, {
        name: (conversion % (value,), value if isinstance(value, int | float) else str(value))
        for (name, conversion), value in zip(fields, arguments, strict=True)
    }


def _quoted(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def configure_logging(*, level: str = "WARNING", kind: LogFormat = "text") -> None:
    """Send log lines of this level and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(kind))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TELL_SECRETS:
        logging.getLogger(name).setLevel(logging.INFO)
