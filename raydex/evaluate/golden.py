"""Golden sets: queries that people wrote and the sections that answer them.

    queries.tsv + golden.qrels, or queries.jsonl → Golden

    queries.tsv: one a line, `id<TAB>text`    qrels (TREC): `id 0 url relevance`, relevance 0 for "no answer"

    queries.jsonl: one object a line, {"id", "query", "gold": [url, …]}, and as it likes "kind", "accept" (other
    addresses of the same section) and "accept_section" (of the nearest heading around it). Addresses may be relative.

A judgement on a URL without an anchor counts for any section of that page.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raydex.errors import ConfigError
from utils.urls import canonical_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Judged queries.

    qrels: query id → URL of a section or page → relevance (0 and up; higher is better). aliases: query id → another
    address of a judged section → the judged ones it may stand for. kinds: query id → what sort of query it is.
    """

    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    aliases: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What "the same golden set" means: figures of two snapshots are compared only when theirs is the same."""
        parts: list[object] = [dict(self.queries), {query: dict(of) for query, of in self.qrels.items()}]
        if self.aliases:
            parts.append({query: dict(of) for query, of in self.aliases.items()})
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def targets(self, query: str, key: str) -> tuple[str, ...]:
        """Return the judged addresses that a section stands for: itself, what it is an alias of, or its page."""
        judged, page = self.qrels[query], key.partition("#")[0]
        if key in judged:
            return (key,)
        return self.aliases.get(query, {}).get(key) or ((page,) if page in judged else ())


def load_golden(queries: str, qrels: str, *, base: str = "") -> Golden | None:
    """Read a golden set; None when no file is named. Raises ConfigError naming file, line and what is wrong.

    queries: a .jsonl file, which needs no qrels, or id<TAB>text. base: what relative addresses are relative to.
    """
    if not queries and not qrels:
        return None
    if queries.endswith(".jsonl"):
        if qrels:
            raise ConfigError(f"{queries} holds its own answers; found {qrels} beside it, expected no qrels")
        return _load_jsonl(queries, base)
    if not queries or not qrels:
        raise ConfigError(f"golden queries need both files, found only {queries or qrels}")
    texts = dict(_unique(_queries(_lines(queries), queries), queries))
    judgements: dict[str, dict[str, int]] = {}
    for number, query, url, relevance in _qrels(_lines(qrels), qrels):
        if query not in texts:
            raise ConfigError(f"{qrels}: query {query!r} is not in {queries}")
        judgements.setdefault(query, {})[_judged_key(url, base, f"{qrels}, line {number}")] = relevance
    unjudged = [query for query in texts if not any(judgements.get(query, {}).values())]
    if unjudged or not texts:
        which = f"query {unjudged[0]!r} has no answer (a line with relevance above 0)" if texts else "no query"
        raise ConfigError(f"{qrels}: {which}")
    return Golden(queries=texts, qrels=judgements)


def section_key(url: str) -> str:
    """Return the one spelling of a section's address: canonical page URL, `#`, anchor without percent-encoding."""
    page, _, anchor = url.partition("#")
    page = canonical_url(page) or page
    return f"{page}#{unquote(anchor)}" if anchor else page


class _Question(BaseModel):
    """A line of queries.jsonl."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: str = Field(min_length=1, pattern=r"^\S+$")
    query: str = Field(pattern=r"\S")
    gold: list[str] = Field(min_length=1)
    kind: str = ""
    accept: list[str] = []
    accept_section: list[str] = []


def _load_jsonl(path: str, base: str) -> Golden:
    found: dict[str, _Question] = {}
    qrels: dict[str, dict[str, int]] = {}
    aliases: dict[str, dict[str, tuple[str, ...]]] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        question = _question(line, where)
        if question.id in found:
            raise ConfigError(f"{where}: query {question.id!r} is there twice")
        found[question.id] = question
        qrels[question.id] = {_judged_key(url, base, where): 1 for url in question.gold}
        others = [_judged_key(url, base, where) for url in (*question.accept, *question.accept_section)]
        if known := _aliases(qrels[question.id], others):
            aliases[question.id] = known
    if not found:
        raise ConfigError(f"{path}: no query")
    return Golden(
        queries={query: question.query for query, question in found.items()},
        qrels=qrels,
        aliases=aliases,
        kinds={query: question.kind for query, question in found.items() if question.kind},
    )


def _question(line: str, where: str) -> _Question:
    try:
        return _Question.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field_name = ".".join(str(part) for part in first["loc"])
        expected = 'expected {"id": …, "query": …, "gold": [url, …]}'
        raise ConfigError(f"{where}: {field_name + ': ' if field_name else ''}{first['msg']}; {expected}") from error


def _aliases(judged: Mapping[str, int], others: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return address → the judged ones it may stand for: those of its page, or all where its page holds none."""
    of_page: dict[str, list[str]] = {}
    for key in judged:
        of_page.setdefault(key.partition("#")[0], []).append(key)
    return {other: tuple(of_page.get(other.partition("#")[0], judged)) for other in others if other not in judged}


def _judged_key(url: str, base: str, where: str) -> str:
    resolved = urljoin(base, url)
    if not resolved.startswith(("http://", "https://", "file:")):
        expected = "a whole one, or --base URL (a service: --canary-base)"
        raise ConfigError(f"{where}: found the relative address {url!r}, expected {expected}")
    return section_key(resolved)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of what is neither empty nor a comment."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it is named as golden queries or qrels") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def _queries(lines: Iterable[tuple[int, str]], path: str) -> Iterator[tuple[str, str]]:
    for number, line in lines:
        query, tab, text = line.partition("\t")
        if not tab or not query.strip() or not text.strip():
            raise ConfigError(f"{path}, line {number}: found {line!r}, expected `id<TAB>text`")
        yield query.strip(), text.strip()


def _unique(pairs: Iterable[tuple[str, str]], path: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for query, text in pairs:
        if query in seen:
            raise ConfigError(f"{path}: query {query!r} is there twice")
        seen.add(query)
        yield query, text


def _qrels(lines: Iterable[tuple[int, str]], path: str) -> Iterator[tuple[int, str, str, int]]:
    for number, line in lines:
        fields = line.split()
        if len(fields) != 4 or not fields[3].lstrip("-").isdigit():
            raise ConfigError(f"{path}, line {number}: found {line!r}, expected `id 0 url relevance`")
        yield number, fields[0], fields[2], int(fields[3])
