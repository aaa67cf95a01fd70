"""What every reader of markup makes, and how it becomes a document with a head.

Draft(body, facts) → <!DOCTYPE html>…
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import yaml

MAX_FRONT_MATTER = 20_000  # characters; more is no front matter
_FENCES = {"---": ("---", "..."), "+++": ("+++",)}
_PAIR = re.compile(r"^([\w-]{1,40})\s*[:=][ \t]*(\S.*)$", re.MULTILINE)
_NAMES = {
    "title": ("title",),
    "description": ("description", "summary", "abstract"),
    "language": ("lang", "language", "locale"),
    "version": ("version",),
    "updated": ("last_update", "last_updated", "lastupdated", "lastmod", "updated", "date"),
}
"""A fact of the page → the names that generators give it, the first one found counts."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The content of a document as HTML, and what it says of itself: title, description, language, version, updated."""

    body: str
    facts: Mapping[str, str] = field(default_factory=dict)


def whole_document(draft: Draft, title: str) -> str:
    facts = draft.facts
    title = facts.get("title") or title
    metas = {
        "description": facts.get("description"),
        "docsearch:version": facts.get("version"),
        "article:modified_time": facts.get("updated"),
    }
    head = f"<title>{escape(title)}</title>" if title else ""
    head += "".join(
        f'<meta {"property" if name.startswith("article:") else "name"}="{name}" content="{escape(value)}">'
        for name, value in metas.items()
        if value
    )
    language = f' lang="{escape(facts["language"])}"' if facts.get("language") else ""
    return (
        f'<!DOCTYPE html><html{language}><head><meta charset="utf-8">{head}</head>\n'
        f"<body><main>\n{draft.body}\n</main></body></html>\n"
    )


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the facts in front of a text, between `---` (YAML) or `+++` (TOML) lines, and the text behind them."""
    lines = text[:MAX_FRONT_MATTER].removeprefix("\ufeff").split("\n")
    fence = lines[0].rstrip()
    end = next((n for n, line in enumerate(lines) if n and line.rstrip() in _FENCES.get(fence, ())), 0)
    if not end:
        return {}, text
    table = _table("\n".join(lines[1:end]), is_yaml=fence == "---")
    if table is None:  # two rules with text between them
        return {}, text
    return facts_of(table), text.removeprefix("\ufeff").split("\n", end + 1)[-1] if len(lines) > end + 1 else ""


def facts_of(table: Mapping[str, object]) -> dict[str, str]:
    """Return the facts in a table of metadata; a nested `last_update: {date: …}` counts as its date."""
    lower = {str(key).lower(): value for key, value in table.items()}
    facts = {fact: next((_line(lower[name]) for name in names if name in lower), "") for fact, names in _NAMES.items()}
    return {fact: value for fact, value in facts.items() if value}


def _line(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("date")
    return " ".join(str(value).split()) if value is not None and not isinstance(value, list | dict) else ""


def _table(text: str, *, is_yaml: bool) -> Mapping[str, object] | None:
    try:
        # BaseLoader makes nothing but text, lists and tables: no object, and version 1.10 stays 1.10
        table = yaml.load(text, Loader=yaml.BaseLoader) if is_yaml else tomllib.loads(text)  # noqa: S506 - as said
    except (yaml.YAMLError, ValueError, RecursionError):  # `title: Errors: a guide` is common, and no YAML
        return dict(_PAIR.findall(text)) or None
    return table if isinstance(table, Mapping) else {} if not text.strip() else None
