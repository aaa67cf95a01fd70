"""Judge rankings against a golden set: queries that people wrote and the sections that answer them.

    queries.tsv, golden.qrels → Golden        Golden, run (query id → URLs, best first) → {query id: Judged} → Figures

Judged on sections: a section is its URL#anchor, and several hits on one count once, where the first stands. A judgement
on a URL without an anchor counts for any section of that page, again once.

    queries: one a line, `id<TAB>text`        qrels (TREC): `id 0 url relevance`, relevance 0 for "no answer"
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from raydex.errors import ConfigError
from utils.urls import canonical_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Judged queries. qrels: query id → URL of a section or page → relevance (0 and up; higher is better)."""

    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @property
    def digest(self) -> str:
        """What "the same golden set" means: figures of two snapshots are compared only when theirs is the same."""
        whole = json.dumps([dict(self.queries), {query: dict(of) for query, of in self.qrels.items()}], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How one query fared among its first k sections. rank: of the first right one, from 1; 0 when none is there."""

    recall: float
    ndcg: float
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over all queries, each at k."""

    recall: float
    ndcg: float
    mrr: float


def load_golden(queries: str, qrels: str) -> Golden | None:
    """Read the two files; None when neither is named. Raises ConfigError naming file, line and what is wrong."""
    if not queries and not qrels:
        return None
    if not queries or not qrels:
        raise ConfigError(f"golden queries need both files, found only {queries or qrels}")
    texts = dict(_unique(_queries(_lines(queries), queries), queries))
    judgements: dict[str, dict[str, int]] = {}
    for query, url, relevance in _qrels(_lines(qrels), qrels):
        if query not in texts:
            raise ConfigError(f"{qrels}: query {query!r} is not in {queries}")
        judgements.setdefault(query, {})[section_key(url)] = relevance
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


def evaluate(golden: Golden, run: Mapping[str, Sequence[str]], *, k: int) -> dict[str, Judged]:
    """Judge each query's first k sections. run: query id → URLs, best first; a query that it lacks found nothing.

    recall@k: share of the judged answers among the first k. nDCG@k: sum of relevance / log2(rank + 1), over the same
    sum of the best possible ranking (Järvelin and Kekäläinen 2002, with the relevance itself as gain, which is
    trec_eval's ndcg_cut).
    """
    return {query: _judged(golden.qrels[query], run.get(query, ()), k) for query in golden.queries}


def figures(judged: Mapping[str, Judged]) -> Figures:
    """Return the means over the queries. MRR: mean of 1 / rank of the first right section, 0 when there is none."""
    count = len(judged)
    return Figures(
        recall=sum(one.recall for one in judged.values()) / count,
        ndcg=sum(one.ndcg for one in judged.values()) / count,
        mrr=sum(1 / one.rank for one in judged.values() if one.rank) / count,
    )


def _judged(relevances: Mapping[str, int], urls: Sequence[str], k: int) -> Judged:
    ranking = list(dict.fromkeys(_target(section_key(url), relevances) for url in urls))[:k]
    gains = [max(0, relevances.get(target, 0)) for target in ranking]
    answers = sorted((relevance for relevance in relevances.values() if relevance > 0), reverse=True)
    return Judged(
        recall=sum(gain > 0 for gain in gains) / len(answers),
        ndcg=_dcg(gains) / _dcg(answers[:k]),
        rank=next((rank for rank, gain in enumerate(gains, start=1) if gain), 0),
    )


def _target(key: str, relevances: Mapping[str, int]) -> str:
    """Return what a hit is judged as: its section, or its page when only that is judged."""
    page = key.partition("#")[0]
    return page if key not in relevances and page in relevances else key


def _dcg(gains: Iterable[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


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


def _qrels(lines: Iterable[tuple[int, str]], path: str) -> Iterator[tuple[str, str, int]]:
    for number, line in lines:
        fields = line.split()
        if len(fields) != 4 or not fields[3].lstrip("-").isdigit():
            raise ConfigError(f"{path}, line {number}: found {line!r}, expected `id 0 url relevance`")
        yield fields[0], fields[2], int(fields[3])
