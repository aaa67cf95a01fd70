"""Answer queries from one open snapshot: both legs, filters, fusion, grouping, near-duplicates, highlights.

Query, its vector → legs (to a fixed depth) → fuse → group → leave out near-duplicates → cut → Found
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isnan
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from raydex.ann import Mask, Rows
from raydex.errors import QueryError
from raydex.lexical import LexicalIndex, Suggestion
from raydex.lexical.analysis import Marks
from raydex.query import ParsedQuery, parse_query
from raydex.records import Found, Grouping, Hit, Query, Section, SectionKind, StageTimes, Vectors
from raydex.search.dense import check_vectors, merge_hits
from raydex.search.holding import NO_ROWS, NOTHING, Holding, Holdings, Looked, OpenHolding, PassagesGone, united
from raydex.search.passages import excerpt, highlights
from raydex.search.ranking import DEPTH, SYMBOL_BONUS, Candidates, Scored, Scores, confidence, fuse
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
    """Candidates best first, in parallel: row, score, parts of the score, cosine and BM25 (NaN: not found so), and the
    numbers of page and section.
    """

    rows: Rows
    scored: Scored
    dense: Scores
    lexical: Scores
    page: npt.NDArray[np.integer[Any]]
    section: npt.NDArray[np.integer[Any]]
    confidence: float | None = None


class _MarksByLanguage(dict[str, Marks]):
    def __init__(self, terms: Collection[str]) -> None:
        super().__init__()
        self._terms = terms

    def __missing__(self, language: str) -> Marks:
        return self.setdefault(language, Marks(self._terms, language))


class Searcher:
    """Answers queries from one open snapshot of one index. Safe to use from several threads."""

    def __init__(self, index: str, snapshot: Snapshot, holdings: Holdings | None = None) -> None:
        """A snapshot that was made without a lexical index is searched by meaning alone.

        holdings: who has the passages; without it, the shards of the snapshot, which are open here.
        """
        self.index = index
        self.snapshot = snapshot
        self.lexical = snapshot.lexical
        self.holdings = OpenHolding(index, snapshot) if holdings is None else holdings

    def find(
        self,
        query: Query,
        vector: Vectors | None,
        *,
        times: StageTimes | None = None,
        seconds_left: Callable[[], float] = lambda: inf,
    ) -> Found:
        """Return the hits of ranks offset + 1 to offset + k, best first; ties are ordered by chunk_id.

        vector: float32 (dim,), L2-normalised; not looked at, and may be None, in mode lexical. seconds_left: how long
        other processes are waited for. Raises QueryError for what needs a lexical index where there is none (mode
        lexical, a phrase, an exclusion), SnapshotIncompatible for a vector of another model, ShardsLost when no shard
        can be looked at; while some cannot, the answer is that of the others, and says so.
        """
        times, message = times or StageTimes(), ""
        parsed = parse_query(query.text, self.lexical.is_name if self.lexical else lambda _: False)
        self._check(query, parsed, vector)
        started = time.perf_counter()
        if self.lexical and parsed.phrases and not self.lexical.is_anywhere(parsed, query.filters):
            parsed, message = _unquoted(parsed), UNQUOTED
        said = self.lexical.matching(parsed) if self.lexical else None
        times.add("filter", time.perf_counter() - started)
        held = self.holdings.begin(seconds_left)
        while True:
            try:
                ranking = self._ranking(query, parsed, vector, said, held, times)
                return self._found(query, parsed, ranking, held, message, times)
            except PassagesGone:
                pass  # held goes on without them

    def _found(
        self, query: Query, parsed: ParsedQuery, ranking: _Ranking, held: Holding, message: str, times: StageTimes
    ) -> Found:
        wanted = query.offset + query.k
        held.expect(ranking.rows, wanted)
        started = time.perf_counter()
        groups = _groups(ranking, query, held)
        marks = _MarksByLanguage({term.term for term in self.lexical.expand(parsed)} if self.lexical else ())
        hits = [
            self._hit(ranking, group, query, held, marks, rank)
            for rank, group in enumerate(groups[query.offset : wanted], start=query.offset + 1)
        ]
        heads = ranking.rows[[group.place for group in groups]] if groups else NO_ROWS
        facets = held.counts(heads) if query.facets else {}
        times.add("present", time.perf_counter() - started)
        return Found(
            hits=tuple(hits), confidence=ranking.confidence, facets=facets, message=message, shards=held.shards
        )

    def suggest(self, prefix: str, k: int) -> list[tuple[Suggestion, str]]:
        """Return what may be meant by what was typed so far, and its URL ("" where an older index does not say, or
        where it cannot be had now).
        """
        found = self.lexical.suggest(prefix, k) if self.lexical else []
        leading = [one.row for one in found if one.row is not None]
        urls = dict(zip(leading, self.holdings.urls(leading), strict=True))
        return [(one, _url_of(one, urls)) for one in found]

    def section(self, section_id: str) -> Section | None:
        """Raises ShardsLost when it may be in a shard that cannot be looked at."""
        return self.holdings.section(section_id)

    def _check(self, query: Query, parsed: ParsedQuery, vector: Vectors | None) -> None:
        if self.lexical is None and (query.mode == "lexical" or parsed.phrases or parsed.excluded):
            what = "mode lexical" if query.mode == "lexical" else "a phrase or an exclusion"
            raise QueryError("query", f"{what} needs a lexical index, which index {self.index} has not: build it again")
        if query.mode != "lexical":
            if vector is None:
                raise ValueError(f"mode {query.mode} needs the vector of the query")
            check_vectors(self.index, self.snapshot.manifest, vector[np.newaxis])

    def _ranking(
        self,
        query: Query,
        parsed: ParsedQuery,
        vector: Vectors | None,
        said: Mask | None,
        held: Holding,
        times: StageTimes,
    ) -> _Ranking:
        depth = DEPTH * -(-(query.offset + query.k) // DEPTH)
        lexical, defined = NOTHING, NOTHING
        started = time.perf_counter()
        if self.lexical is not None and query.mode != "dense":
            lexical = self.lexical.search(parsed, depth, query.filters)
            if query.mode == "hybrid":
                defined = _definitions(self.lexical, parsed)
            times.add("lexical", time.perf_counter() - started)
        looked = held.look(
            united(lexical[1], defined[1]),
            vector=None if query.mode == "lexical" else vector,
            depth=depth,
            filters=query.filters,
            said=said,
            times=times,
        )
        if query.mode == "lexical":
            return _one_leg("lexical", *_of_those(looked.rows, lexical), looked)
        if self.lexical is None or query.mode == "dense":
            return _one_leg("dense", *looked.dense, looked)
        started = time.perf_counter()
        ranking = _fused(self.lexical, parsed, lexical, defined, looked, held)
        times.add("fuse", time.perf_counter() - started)
        return ranking

    def _hit(
        self, ranking: _Ranking, group: _Group, query: Query, held: Holding, marks: _MarksByLanguage, rank: int
    ) -> Hit:
        first, *others = _shown(ranking, group, query)
        return self._passage(
            ranking,
            first,
            query,
            held,
            marks,
            rank,
            more=tuple([self._passage(ranking, place, query, held, marks, rank) for place in others]),
            copies=tuple([held.url(int(ranking.rows[place])) for place in group.copies]),
        )

    def _passage(
        self,
        ranking: _Ranking,
        place: int,
        query: Query,
        held: Holding,
        marks: _MarksByLanguage,
        rank: int,
        *,
        more: tuple[Hit, ...] = (),
        copies: tuple[str, ...] = (),
    ) -> Hit:
        row = int(ranking.rows[place])
        chunk = held.chunk(row)
        marked = highlights(chunk.text, marks[held.value("language", row)])
        scores = {"dense": float(ranking.dense[place]), "lexical": float(ranking.lexical[place])}
        return Hit(
            rank=rank,
            score=float(ranking.scored.total[place]),
            index=self.index,
            chunk=chunk,
            scores={name: value for name, value in scores.items() if not isnan(value)},
            kind=cast(SectionKind, held.value("kind", row)),
            version=held.value("version", row),
            highlights=marked,
            excerpt=excerpt(chunk.text, marked),
            more=more,
            copies=copies,
            explanation=_explanation(ranking.scored, place) if query.explain else {},
        )


def _fused(
    index: LexicalIndex,
    parsed: ParsedQuery,
    lexical: tuple[Scores, Rows],
    defined: tuple[Scores, Rows],
    looked: Looked,
    held: Holding,
) -> _Ranking:
    """lexical: scores and rows of that leg, best first. defined: bonus and row of each definition."""
    rows = looked.rows
    candidates = Candidates(
        rows=rows,
        cosine=looked.cosine.astype(np.float64),
        lexical=_placed(rows, lexical, np.nan),
        last_lexical=float(lexical[0][-1]) if len(lexical[1]) >= DEPTH else 0.0,
        best_lexical=index.ideal(parsed),
        bonus=_placed(rows, defined, 0.0),
    )
    scored = fuse(candidates, parsed.kind, is_api=looked.is_api, page=looked.page, page_size=looked.page_size)
    order = held.order(scored.total, rows)
    return _Ranking(
        rows=rows[order],
        scored=Scored(scored.total[order], {name: values[order] for name, values in scored.parts.items()}),
        dense=looked.cosine[order],
        lexical=candidates.lexical[order],
        page=looked.page[order],
        section=looked.section[order],
        confidence=confidence(candidates),
    )


def _one_leg(name: str, scores: Scores, rows: Rows, looked: Looked) -> _Ranking:
    places, other = looked.rows.searchsorted(rows), np.full(len(scores), np.nan, np.float32)
    total = scores.astype(np.float64)
    return _Ranking(
        rows=rows,
        scored=Scored(total, {name: total}),
        dense=scores if name == "dense" else other,
        lexical=scores if name == "lexical" else other,
        page=looked.page[places],
        section=looked.section[places],
    )


def _placed(rows: Rows, found: tuple[Scores, Rows], other: float) -> npt.NDArray[np.float64]:
    """Return for each of these rows, ascending, its score, and `other` for one that has none."""
    scores = np.full(len(rows), other)
    there, at = _of_those(rows, found)
    scores[rows.searchsorted(at)] = there
    return scores


def _of_those(rows: Rows, found: tuple[Scores, Rows]) -> tuple[Scores, Rows]:
    """Return what of scores and rows is among these rows, ascending; filters and lost shards leave some out."""
    if not len(rows):
        return NOTHING
    is_there = rows[np.minimum(rows.searchsorted(found[1]), len(rows) - 1)] == found[1]
    return found if is_there.all() else (found[0][is_there], found[1][is_there])


def _groups(ranking: _Ranking, query: Query, held: Holding) -> list[_Group]:
    """Return the groups up to the last one asked for, best first, no group twice; for facets those after it too.

    A group whose best passage says under the same heading what that of a better one says is one of its copies.
    Near-duplicates are looked for as far as the page asked for reaches.
    """
    wanted, numbers = query.offset + query.k, _numbers(ranking, query.group_by)
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
            alike = said.setdefault(held.last_heading(int(ranking.rows[place])).lower(), [])
            if better := _said_before(ranking, group, alike, held):
                better.copies.append(place)
                continue
            alike.append(group)
        groups.append(group)
    return groups


def _numbers(ranking: _Ranking, group_by: Grouping) -> list[int]:
    numbers = {"none": ranking.rows, "section": ranking.section, "page": ranking.page}[group_by]
    return cast(list[int], numbers.tolist())


def _said_before(ranking: _Ranking, group: _Group, alike: Sequence[_Group], held: Holding) -> _Group | None:
    """Return the first of the groups under the same heading that has the same words."""
    words = _words(ranking, group, held) if alike else set()
    return next((one for one in alike if _overlap(words, _words(ranking, one, held)) >= SAME_WORDS), None)


def _words(ranking: _Ranking, group: _Group, held: Holding) -> set[str]:
    if group.words is None:
        group.words = set(_WORD.findall(held.text(int(ranking.rows[group.place])).lower()))
    return group.words


def _shown(ranking: _Ranking, group: _Group, query: Query) -> list[int]:
    """Return the best place of the group and, of a page, those of its next best sections."""
    if query.group_by != "page":
        return [group.place]
    places = np.flatnonzero(ranking.page == group.number).tolist()
    sections = ranking.section[places].tolist()
    best = dict(zip(reversed(sections), reversed(places), strict=True))
    return sorted(best.values())[: 1 + MORE_IN_GROUP]


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
        shards=(sum(part.shards[0] for part in parts), sum(part.shards[1] for part in parts)),
    )


def _definitions(index: LexicalIndex, parsed: ParsedQuery) -> tuple[Scores, Rows]:
    """Return bonus and row of the passages that define what the query names."""
    found: dict[int, float] = {}
    names = {parsed.text.strip(), " ".join(parsed.words)} if len(parsed.words) <= MOST_WORDS_OF_A_NAME else set()
    for name in names:
        for rows, bonus in zip(index.definitions(name), SYMBOL_BONUS, strict=True):
            for row in rows[:DEPTH].tolist():
                found[row] = max(found.get(row, 0.0), bonus)
    return np.fromiter(found.values(), np.float64, len(found)), np.fromiter(found, np.int64, len(found))


def _url_of(one: Suggestion, urls: Mapping[int, str]) -> str:
    url = "" if one.row is None else urls[one.row]
    return url.partition("#")[0] if one.kind == "title" else url  # a title is that of the whole page


def _unquoted(parsed: ParsedQuery) -> ParsedQuery:
    words = tuple(word for phrase in parsed.phrases for word in phrase.split())
    return replace(parsed, words=(*parsed.words, *words), phrases=())


def _explanation(scored: Scored, place: int) -> dict[str, float]:
    return {name: round(float(values[place]), 6) for name, values in scored.parts.items() if values[place]}


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))
