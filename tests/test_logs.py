"""Log lines: one for each event, to read or as JSON; what is asked or fetched cannot forge one; documented events."""

import ast
import json
import logging
import re
from pathlib import Path

import pytest

from utils.logs import EventFormatter, log_fields, template_of

ROOT = Path(__file__).parents[1]
LEVELS = {"exception": "error"} | {level: level for level in ("debug", "info", "warning", "error")}

FORGED = 'x\n2026-01-01T00:00:00.000Z ERROR raydex all is lost user="root"'


def formatted(kind, message, *values, exc_info=None, name="raydex.test"):
    record = logging.LogRecord(name, logging.INFO, __file__, 1, message, values, exc_info)
    return EventFormatter(kind).format(record)


def test_a_line_in_json_has_the_event_and_each_field_with_its_type():
    line = json.loads(formatted("json", "shard written shard=%05d seconds=%.2f index=%s", 7, 0.125, "docs"))
    assert (line["event"], line["shard"], line["seconds"], line["index"]) == ("shard written", 7, 0.125, "docs")
    assert (line["level"], line["logger"]) == ("INFO", "raydex.test")
    assert line["time"].endswith("Z")


def test_a_line_of_text_is_the_event_and_its_fields_as_the_template_writes_them():
    line = formatted("text", "shard written shard=%05d seconds=%.2f index=%s", 7, 0.125, "docs")
    assert line.endswith("Z INFO raydex.test shard written shard=00007 seconds=0.12 index=docs")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_value_cannot_begin_a_line_or_a_field_of_its_own(kind):
    with log_fields(request_id=FORGED):
        line = formatted(kind, "page failed url=%s", FORGED)
    assert "\n" not in line
    if kind == "json":
        assert (json.loads(line)["url"], json.loads(line)["request_id"]) == (FORGED, FORGED)
    else:
        assert line.count(json.dumps(FORGED)) == 2


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_line_of_another_library_stays_one_line(kind):
    line = formatted(kind, "cannot reach %s: %s", "host", "no\nroute", name="somebody")
    assert line.splitlines() == [line]
    assert "cannot reach host: no" in line


def test_fields_of_the_context_are_in_every_line_within_and_in_none_after():
    with log_fields(build_id="b1", index="docs"), log_fields(request_id="r1", trace_id=""):
        inner = json.loads(formatted("json", "page failed index=%s", "other"))
    assert (inner["build_id"], inner["request_id"], inner["index"]) == ("b1", "r1", "other")
    assert "trace_id" not in inner
    assert "build_id" not in formatted("json", "page failed")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_traceback_never_looks_like_an_event(kind):
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        text = formatted(kind, "build failed", exc_info=(type(error), error, error.__traceback__))
    first, *others = text.splitlines()
    assert "build failed" in first
    assert all(line.startswith("    ") for line in others)
    assert not others or kind == "text"


def events_in_the_source():
    """Yield (event, level, fields, values given) of every call of a logger."""
    scripts = [ROOT / name for name in ("build_index.py", "serve_index.py", "test_client.py")]
    for path in [*(ROOT / "raydex").rglob("*.py"), *(ROOT / "utils").glob("*.py"), *scripts]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("logger"), attr=level), args=[message, *values]):
                    assert isinstance(message, ast.Constant), f"{path.name}:{node.lineno} is no plain template"
                    event, fields = template_of(message.value)
                    yield event, LEVELS[level], tuple(name for name, _ in fields), len(values)


def test_every_event_is_some_fixed_words_and_a_named_field_for_each_value():
    for event, _, fields, given in events_in_the_source():
        assert "%" not in event
        assert len(fields) == given, event
        assert {"time", "level", "logger", "event", "traceback"}.isdisjoint(fields), event


def test_every_event_is_documented_with_its_level_and_fields_and_no_other_is():
    table = (ROOT / "docs" / "logs.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| (debug|info|warning|error) \| ([^|]*)\|", table, re.MULTILINE)
    documented = {(event, level, tuple(filter(None, fields.strip().split(", ")))) for event, level, fields in rows}
    assert {event[:3] for event in events_in_the_source()} == documented
