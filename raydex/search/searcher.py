"""Answer queries from one open snapshot: both legs, filters, fusion, grouping, near-duplicates, highlights.

Query, its vector → legs (to a fixed depth) → fuse → group → leave out near-duplicates → cut → Found
"""

import re
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import cast

import numpy as np

from raydex.ann import Mask, Rows
from raydex.errors import QueryError
from raydex.lexical import LexicalIndex, Suggestion
from raydex.lexical.analysis import Marks
from raydex.query import ParsedQuery, parse_query
from raydex.records import Found, Grouping, Hit, NameKind, Query, Section, SectionKind, StageTimes, Vectors
from raydex.search.dense import DenseSearcher, merge_hits
from raydex.search.facts import Facts, Numbers
from raydex.search.passages import excerpt, highlights
from raydex.search.ranking import DEPTH, SYMBOL_BONUS, Candidates, Scored, confidence, fuse
from raydex.snapshot import Snapshot

MORE_IN_GROUP = 3
"""Hits of the same group that are nested in its best one."""

SAME_WORDS = 0.9
"""Two passages under the same last heading say the same when so many of their words are common to both (Jaccard).

Vectors do not tell: `bytes.lower` and `bytearray.lower` are nearer to each other than one page is to its older version.
"""

_WORD = re.compile(r"\w+")

MOST_WORDS_OF_A_NAME = 3
"""`git commit --amend` may be a name; a longer text is not looked up as one."""

UNQUOTED = "no passage has the quoted words as they stand: searched without the quotes"

NO_ROWS = np.empty(0, np.int64)


@dataclass(slots=True)
class _Group:
    """The hits of one section or page, as places in the ranking. number: of the section or page; place: of its best.

    words: those of the best one, once they were asked for.
    """

    number: int
    place: int
    copies: list[int] = field(default_factory=list)
    words: set[str] | None = None


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Candidates best first, in parallel: row, score, parts of the score, cosine and BM25 (NaN: not found so)."""

    rows: Rows
    scored: Scored
    dense: Vectors
    lexical: Vectors
    confidence: float | None = None


class _MarksByLanguage(dict[str, Marks]):
    def __init__(self, terms: Collection[str]) -> None:
        super().__init__()
        self._terms = terms

    def __missing__(self, language: str) -> Marks:
        return self.setdefault(language, Marks(self._terms, language))


class Searcher:
    """Answers queries from one open snapshot of one index. Safe to use from several threads."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        """A snapshot that was made without a lexical index is searched by meaning alone."""
        self.index = index
        self.snapshot = snapshot
        self.lexical = snapshot.lexical
        self.dense = DenseSearcher(index, snapshot)
        self.facts = Facts(snapshot)
        self._is_api = self.facts.passing("kind", frozenset({"api"}))

    def find(self, query: Query, vector: Vectors | None, *, times: StageTimes | None = None) -> Found:
        """Return the hits of ranks offset + 1 to offset + k, best first; ties are ordered by chunk_id.

        vector: float32 (dim,), L2-normalised; not looked at, and may be None, in mode lexical. Raises QueryError for
        what needs a lexical index where there is none (mode lexical, a phrase, an exclusion), SnapshotIncompatible for
        a vector of another model.
        """
        clock, times = time.perf_counter, times or StageTimes()
        parsed = parse_query(query.text, self.lexical.is_name if self.lexical else lambda _: False)
        self._check(query, parsed)
        started = clock()
        allowed, message = self._allowed(query, parsed), ""
        if parsed.phrases and allowed is not None and not allowed.any():
            parsed, message = _unquoted(parsed), UNQUOTED
            allowed = self._allowed(query, parsed)
        times.add("filter", clock() - started)
        ranking = self._ranking(query, parsed, vector, allowed, times)
        started = clock()
        groups = self._groups(ranking, query)
        marks = _MarksByLanguage({term.term for term in self.lexical.expand(parsed)} if self.lexical else ())
        hits = [
            self._hit(ranking, group, query, marks, rank)
            for rank, group in enumerate(groups[query.offset :][: query.k], start=query.offset + 1)
        ]
        heads = ranking.rows[[group.place for group in groups]] if groups else NO_ROWS
        facets = self.facts.counts(heads) if query.facets else {}
        found = Found(hits=tuple(hits), confidence=ranking.confidence, facets=facets, message=message)
        times.add("present", clock() - started)
        return found

    def suggest(self, prefix: str, k: int) -> list[tuple[Suggestion, str]]:
        """Return what may be meant by what was typed so far, and its URL ("" where an older index does not say)."""
        found = self.lexical.suggest(prefix, k) if self.lexical else []
        return [(one, "" if one.row is None else self._url_of(one.kind, one.row)) for one in found]

    def _url_of(self, kind: NameKind, row: int) -> str:
        shard, local = self.dense.place(row)
        url = str(shard.chunks["url"][local].as_py())
        return url.partition("#")[0] if kind == "title" else url  # a title is that of the whole page

    def section(self, section_id: str) -> Section | None:
        return self.dense.section(section_id)

    def _check(self, query: Query, parsed: ParsedQuery) -> None:
        if self.lexical is None and (query.mode == "lexical" or parsed.phrases or parsed.excluded):
            what = "mode lexical" if query.mode == "lexical" else "a phrase or an exclusion"
            raise QueryError("query", f"{what} needs a lexical index, which index {self.index} has not: build it again")

    def _allowed(self, query: Query, parsed: ParsedQuery) -> Mask | None:
        """Return which rows filters, phrases and exclusions leave; None when all."""
        mask = self.facts.mask(query.filters)
        said = self.lexical.matching(parsed) if self.lexical else None
        return mask if said is None else said if mask is None else said & mask

    def _ranking(
        self, query: Query, parsed: ParsedQuery, vector: Vectors | None, allowed: Mask | None, times: StageTimes
    ) -> _Ranking:
        depth = DEPTH * -(-(query.offset + query.k) // DEPTH)
        if self.lexical is not None and query.mode != "dense":
            started = time.perf_counter()
            scores, rows = self.lexical.search(parsed, depth, query.filters)
            times.add("lexical", time.perf_counter() - started)
            if query.mode == "lexical":
                return _Ranking(rows, _alone("lexical", scores), _nan_like(scores), scores)
        if vector is None:
            raise ValueError(f"mode {query.mode} needs the vector of the query")
        self.dense.check(vector[np.newaxis])
        dense = self.dense.rank(vector, depth, allowed=allowed, times=times)
        if self.lexical is None or query.mode == "dense":
            return _Ranking(dense[1], _alone("dense", dense[0]), dense[0], _nan_like(dense[0]))
        started = time.perf_counter()
        ranking = self._fused(self.lexical, parsed, vector, lexical=(scores, rows), dense=dense, allowed=allowed)
        times.add("fuse", time.perf_counter() - started)
        return ranking

    def _fused(
        self,
        index: LexicalIndex,
        parsed: ParsedQuery,
        vector: Vectors,
        *,
        lexical: tuple[Vectors, Rows],
        dense: tuple[Vectors, Rows],
        allowed: Mask | None,
    ) -> _Ranking:
        defined = _definitions(index, parsed)
        if allowed is not None:
            defined = {row: bonus for row, bonus in defined.items() if allowed[row]}
        rows = _united(lexical[1], dense[1], np.fromiter(defined, np.int64, len(defined)))
        bm25, bonus = np.full(len(rows), np.nan), np.zeros(len(rows))
        bm25[rows.searchsorted(lexical[1])] = lexical[0]
        for row, value in defined.items():
            bonus[rows.searchsorted(row)] = value
        cosine = np.empty(len(rows), np.float32)
        is_unknown = np.ones(len(rows), bool)
        is_unknown[known := rows.searchsorted(dense[1])] = False
        cosine[known], cosine[is_unknown] = dense[0], self.dense.cosines(vector, rows[is_unknown])
        candidates = Candidates(
            rows=rows,
            cosine=cosine.astype(np.float64),
            lexical=bm25,
            last_lexical=float(lexical[0][-1]) if len(lexical[1]) >= DEPTH else 0.0,
            best_lexical=index.ideal(parsed),
            bonus=bonus,
        )
        facts = self.facts
        scored = fuse(
            candidates,
            parsed.kind,
            is_api=self._is_api[rows],
            page=facts.page[rows],
            page_size=facts.page_size[rows],
        )
        order = self.dense.order(scored.total, rows)
        parts = {name: values[order] for name, values in scored.parts.items()}
        whole = Scored(scored.total[order], parts)
        return _Ranking(rows[order], whole, cosine[order], bm25[order], confidence(candidates))

    def _groups(self, ranking: _Ranking, query: Query) -> list[_Group]:
        """Return the groups up to the last one asked for, best first, no group twice; for facets those after it too.

        A group whose best passage says under the same heading what that of a better one says is one of its copies.
        Near-duplicates are looked for as far as the page asked for reaches.
        """
        wanted, numbers = query.offset + query.k, self._numbers(query.group_by, ranking.rows).tolist()
        groups: list[_Group] = []
        known: set[int] = set()
        said: dict[str, list[_Group]] = {}
        for place, number in enumerate(numbers):
            if number in known:
                continue
            if len(groups) >= wanted and not query.facets:
                break
            known.add(number)
            group = _Group(number, place)
            if query.group_by != "none" and len(groups) < wanted:
                alike = said.setdefault(self.dense.last_heading(int(ranking.rows[place])).lower(), [])
                if better := self._said_before(ranking, group, alike):
                    better.copies.append(place)
                    continue
                alike.append(group)
            groups.append(group)
        return groups

    def _numbers(self, group_by: Grouping, rows: Rows) -> Rows | Numbers:
        if group_by == "none":
            return rows
        return (self.facts.page if group_by == "page" else self.facts.section)[rows]

    def _said_before(self, ranking: _Ranking, group: _Group, alike: Sequence[_Group]) -> _Group | None:
        """Return the first of the groups under the same heading that has the same words."""
        words = self._words(ranking, group) if alike else set()
        return next((one for one in alike if _overlap(words, self._words(ranking, one)) >= SAME_WORDS), None)

    def _words(self, ranking: _Ranking, group: _Group) -> set[str]:
        if group.words is None:
            group.words = set(_WORD.findall(self.dense.text(int(ranking.rows[group.place])).lower()))
        return group.words

    def _hit(self, ranking: _Ranking, group: _Group, query: Query, marks: _MarksByLanguage, rank: int) -> Hit:
        first, *others = self._shown(ranking, group, query)
        return self._passage(
            ranking,
            first,
            query,
            marks,
            rank,
            more=tuple([self._passage(ranking, place, query, marks, rank) for place in others]),
            copies=tuple([self.dense.url(int(ranking.rows[place])) for place in group.copies]),
        )

    def _shown(self, ranking: _Ranking, group: _Group, query: Query) -> list[int]:
        """Return the best place of the group and, of a page, those of its next best sections."""
        if query.group_by != "page":
            return [group.place]
        places = np.flatnonzero(self.facts.page[ranking.rows] == group.number).tolist()
        sections = self.facts.section[ranking.rows[places]].tolist()
        best = dict(zip(reversed(sections), reversed(places), strict=True))
        return sorted(best.values())[: 1 + MORE_IN_GROUP]

    def _passage(
        self,
        ranking: _Ranking,
        place: int,
        query: Query,
        marks: _MarksByLanguage,
        rank: int,
        *,
        more: tuple[Hit, ...] = (),
        copies: tuple[str, ...] = (),
    ) -> Hit:
        row = int(ranking.rows[place])
        chunk, facets = self.dense.chunk(row), self.facts.facets
        marked = highlights(chunk.text, marks[facets["language"].value(row)])
        scores = {"dense": float(ranking.dense[place]), "lexical": float(ranking.lexical[place])}
        return Hit(
            rank=rank,
            score=float(ranking.scored.total[place]),
            index=self.index,
            chunk=chunk,
            scores={name: value for name, value in scores.items() if not isnan(value)},
            kind=cast(SectionKind, facets["kind"].value(row)),
            version=facets["version"].value(row),
            highlights=marked,
            excerpt=excerpt(chunk.text, marked),
            more=more,
            copies=copies,
            explanation=_explanation(ranking.scored, place) if query.explain else {},
        )


def merge_found(parts: Sequence[Found], *, k: int, offset: int) -> Found:
    """Merge what several indexes found into one ranking; each must reach from rank 1 to offset + k itself."""
    facets: dict[str, dict[str, int]] = {}
    for part in parts:
        for name, counts in part.facets.items():
            merged = Counter(facets.get(name, {}))
            merged.update(counts)
            facets[name] = dict(sorted(merged.items(), key=lambda pair: (-pair[1], pair[0])))
    return Found(
        hits=tuple(merge_hits([part.hits for part in parts], k=k, offset=offset)),
        message=next((part.message for part in parts if part.message), ""),
        confidence=max((part.confidence for part in parts if part.confidence is not None), default=None),
        facets=facets,
    )


def _united(*parts: Rows) -> Rows:
    """Return all rows, ascending, each once; np.unique takes three times as long for so few."""
    rows = np.sort(np.concatenate(parts))
    is_first = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    united: Rows = rows[is_first]
    return united


def _definitions(index: LexicalIndex, parsed: ParsedQuery) -> dict[int, float]:
    """Return row → bonus of the passages that define what the query names."""
    found: dict[int, float] = {}
    names = {parsed.text.strip(), " ".join(parsed.words)} if len(parsed.words) <= MOST_WORDS_OF_A_NAME else set()
    for name in names:
        for rows, bonus in zip(index.definitions(name), SYMBOL_BONUS, strict=True):
            for row in rows[:DEPTH].tolist():
                found[row] = max(found.get(row, 0.0), bonus)
    return found


def _unquoted(parsed: ParsedQuery) -> ParsedQuery:
    words = tuple(word for phrase in parsed.phrases for word in phrase.split())
    return replace(parsed, words=(*parsed.words, *words), phrases=())


def _explanation(scored: Scored, place: int) -> dict[str, float]:
    return {name: round(float(values[place]), 6) for name, values in scored.parts.items() if values[place]}


def _alone(name: str, scores: Vectors) -> Scored:
    return Scored(scores.astype(np.float64), {name: scores.astype(np.float64)})


def _nan_like(scores: Vectors) -> Vectors:
    return np.full(len(scores), np.nan, np.float32)


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))
