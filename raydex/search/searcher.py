"""Answer queries from one open snapshot: both legs, filters, fusion, grouping, near-duplicates, highlights.

Query, its vector → legs (to a fixed depth) → fuse → group → leave out near-duplicates → cut → Found
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from raydex.ann import Mask, Rows
from raydex.errors import QueryError
from raydex.lexical import LexicalIndex, Suggestion
from raydex.query import ParsedQuery, parse_query
from raydex.records import Found, Hit, NameKind, Query, Section, SectionKind, StageTimes, Vectors
from raydex.search.dense import DenseSearcher, merge_hits
from raydex.search.facts import Facts
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
    """Places in the ranking of the hits of one section or page, best first."""

    places: list[int]
    copies: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Candidates best first, in parallel: row, score, parts of the score, cosine and BM25 (NaN: not found so)."""

    rows: Rows
    scored: Scored
    dense: Vectors
    lexical: Vectors
    confidence: float | None = None


class Searcher:
    """Answers queries from one open snapshot of one index. Safe to use from several threads."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        """A snapshot that was made without a lexical index is searched by meaning alone."""
        self.index = index
        self.snapshot = snapshot
        self.lexical = snapshot.lexical
        self.dense = DenseSearcher(index, snapshot)
        self.facts = Facts(snapshot)
        self._is_api = self.facts.facets["kind"].mask(("api",))

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
        terms = {term.term for term in self.lexical.expand(parsed)} if self.lexical else set()
        hits = [
            self._hit(ranking, group, query, terms, rank)
            for rank, group in enumerate(groups[query.offset :][: query.k], start=query.offset + 1)
        ]
        heads = ranking.rows[[group.places[0] for group in groups]] if query.facets and groups else NO_ROWS
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
        if self.lexical is None or not (parsed.phrases or parsed.excluded):
            return mask
        rows = self.lexical.matching(parsed)
        said = np.zeros(len(self.facts.page), bool)
        said[rows] = True
        return said if mask is None else said & mask

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
        rows = np.unique(np.concatenate([lexical[1], dense[1], np.array([*defined], np.int64)]))
        bm25 = np.full(len(rows), np.nan, np.float32)
        bm25[np.searchsorted(rows, lexical[1])] = lexical[0]
        cosine = self.dense.cosines(vector, rows)
        cosine[np.searchsorted(rows, dense[1])] = dense[0]  # to the last bit what mode dense says
        candidates = Candidates(
            rows=rows,
            cosine=cosine.astype(np.float64),
            lexical=bm25.astype(np.float64),
            last_lexical=float(lexical[0][-1]) if len(lexical[1]) >= DEPTH else 0.0,
            best_lexical=index.ideal(parsed),
            bonus=np.array([defined.get(row, 0.0) for row in rows.tolist()]),
        )
        scored = fuse(candidates, parsed.kind, is_api=self._is_api[rows], page_chunks=self.facts.page_chunks[rows])
        order = self.dense.order(scored.total, rows)
        parts = {name: values[order] for name, values in scored.parts.items()}
        whole = Scored(scored.total[order], parts)
        return _Ranking(rows[order], whole, cosine[order], bm25[order], confidence(candidates))

    def _groups(self, ranking: _Ranking, query: Query) -> list[_Group]:
        """Return the groups that stand on the pages up to the one asked for and all after, best first, no group twice.

        Near-duplicates are looked for as far as the page asked for reaches.
        """
        if query.group_by == "none":
            return [_Group([place]) for place in range(len(ranking.rows))]
        numbers = (self.facts.page if query.group_by == "page" else self.facts.section)[ranking.rows]
        groups: dict[int, _Group] = {}
        for place, number in enumerate(numbers.tolist()):
            groups.setdefault(number, _Group([])).places.append(place)
        return self._without_copies(list(groups.values()), ranking, query.offset + query.k)

    def _without_copies(self, groups: list[_Group], ranking: _Ranking, wanted: int) -> list[_Group]:
        """Move groups whose best passage says under the same heading what a better one says to that one's copies."""
        kept: list[_Group] = []
        said: dict[str, list[tuple[_Group, set[str]]]] = {}
        for number, group in enumerate(groups):
            if len(kept) == wanted:
                return kept + groups[number:]
            heading, text = self.dense.heading_and_text(int(ranking.rows[group.places[0]]))
            words = set(_WORD.findall(text.lower()))
            alike = said.setdefault(heading.lower(), [])
            first = next((better for better, its_words in alike if _overlap(words, its_words) >= SAME_WORDS), None)
            if first is not None:
                first.copies.append(group.places[0])
            else:
                kept.append(group)
                alike.append((group, words))
        return kept

    def _hit(self, ranking: _Ranking, group: _Group, query: Query, terms: set[str], rank: int) -> Hit:
        first, *others = (
            self._passage(ranking, place, query, terms, rank) for place in self._shown(ranking, group, query)
        )
        copies = tuple(self.dense.chunk(int(ranking.rows[place])).url for place in group.copies)
        return replace(first, more=tuple(others), copies=copies)

    def _shown(self, ranking: _Ranking, group: _Group, query: Query) -> list[int]:
        """Return the best place of the group and, of a page, those of its next best sections."""
        if query.group_by != "page":
            return group.places[:1]
        sections = self.facts.section[ranking.rows[group.places]].tolist()
        best = dict(zip(reversed(sections), reversed(group.places), strict=True))
        return sorted(best.values())[: 1 + MORE_IN_GROUP]

    def _passage(self, ranking: _Ranking, place: int, query: Query, terms: set[str], rank: int) -> Hit:
        row = int(ranking.rows[place])
        chunk = self.dense.chunk(row)
        marked = highlights(chunk.text, terms, self.facts.facets["language"].value(row)) if terms else ()
        scores = {"dense": float(ranking.dense[place]), "lexical": float(ranking.lexical[place])}
        return Hit(
            rank=rank,
            score=float(ranking.scored.total[place]),
            index=self.index,
            chunk=chunk,
            scores={name: value for name, value in scores.items() if not np.isnan(value)},
            kind=cast(SectionKind, self.facts.facets["kind"].value(row)),
            version=self.facts.facets["version"].value(row),
            highlights=marked,
            excerpt=excerpt(chunk.text, marked),
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
