"""A snapshot whose shards are spread over groups of processes: words are searched here, vectors and texts there.

    split(manifest, n) → which shards each group has
    Searcher(index, snapshot, Scattered(…, groups)) → groups.ask(…) ⇄ Group(…), in the process that has the shards

The ranking is that of one process, to the last bit: the best of each group hold the best of all, a score does not
depend on where a row lies, and the one index of words is searched whole. (`rabitq`, which may miss a row, misses none
that one process finds: each group looks at as many candidates as that does in all.) A query takes two rounds: all
groups are asked for candidates, then those that have the best for their texts. A group that does not answer is left
out, and the answer says how many shards were looked at.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from raydex.ann import Mask, Rows
from raydex.errors import ShardsLost
from raydex.records import Chunk, Filters, Manifest, Section, Shard, StageTimes, Vectors
from raydex.search.dense import order_of
from raydex.search.facts import FACETS, by_frequency
from raydex.search.holding import NO_ROWS, NO_SCORES, Looked, OpenHolding, PassagesGone, united
from raydex.snapshot import Snapshot

MORE_THAN_SHOWN = 10
"""Passages fetched at once beyond those that are shown for sure: of sections that were there before, and of copies."""


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    index: str
    snapshot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a group knows of a query: looked, with the group's own rows and numbers, and of each of those rows its
    chunk_id, last heading and facets.
    """

    looked: Looked
    chunk_ids: list[str]
    last_headings: list[str]
    facets: dict[str, list[str]]


class Groups(Protocol):
    """Reaches the processes that have the shards."""

    def ask(
        self, key: SnapshotKey, method: str, arguments: Mapping[int, tuple[Any, ...]], within_s: float
    ) -> Mapping[int, Any]:
        """Call a method of Group in each of these groups at once; return what those gave that answered in time."""
        ...

    def reached(self, key: SnapshotKey) -> frozenset[int]:
        """Return the groups that had this snapshot when they were last looked at."""
        ...


class Group:
    """Some shards of a snapshot, open in this process. Rows are counted from the first of them. Thread-safe."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        """snapshot: with the shards of this group alone."""
        self._holding = OpenHolding(index, snapshot)

    def look(
        self, wanted: Rows, vector: Vectors | None, depth: int, filters: Filters, said: npt.NDArray[np.uint8] | None
    ) -> Candidates:
        """See Holding.look. said: its mask, packed to bits."""
        held = self._holding
        mask = None if said is None else np.unpackbits(said, count=held.rows).astype(bool)
        looked = held.look(wanted, vector=vector, depth=depth, filters=filters, said=mask, times=StageTimes())
        rows = looked.rows.tolist()
        return Candidates(
            looked=looked,
            chunk_ids=[held.dense.chunk_id(row) for row in rows],
            last_headings=[held.last_heading(row) for row in rows],
            facets={name: [held.value(name, row) for row in rows] for name in FACETS},
        )

    def chunks(self, rows: Sequence[int]) -> list[Chunk]:
        return [self._holding.chunk(row) for row in rows]

    def section(self, section_id: str) -> Section | None:
        return self._holding.section(section_id)


def split(manifest: Manifest, groups: int) -> list[tuple[Shard, ...]]:
    """Return the shards of each group: runs of the manifest's order, of about the same number of chunks.

    Always the same for the same manifest, in every process. With fewer shards than groups, some have none.
    """
    total = sum(shard.chunk_count for shard in manifest.shards)
    parts: list[list[Shard]] = [[] for _ in range(groups)]
    before = 0
    for shard in manifest.shards:
        middle = before + shard.chunk_count / 2
        parts[min(groups - 1, int(groups * middle / max(1, total)))].append(shard)
        before += shard.chunk_count
    return [tuple(part) for part in parts]


class Scattered:
    """The Holdings of a snapshot whose shards are in groups. timeout_s: how long a group is waited for at most."""

    def __init__(self, key: SnapshotKey, manifest: Manifest, groups: Groups, *, count: int, timeout_s: float) -> None:
        """count: of the groups."""
        self.key, self.groups, self.timeout_s = key, groups, timeout_s
        parts = split(manifest, count)
        self.shard_counts = [len(part) for part in parts]
        self.starts = [*accumulate((sum(shard.chunk_count for shard in part) for part in parts), initial=0)]

    @property
    def shards(self) -> int:
        return sum(self.shard_counts)

    @property
    def shards_ok(self) -> int:
        reached = self.groups.reached(self.key)
        return sum(shards for group, shards in enumerate(self.shard_counts) if group in reached)

    def begin(self, seconds_left: Callable[[], float]) -> "Asked":
        return Asked(self, seconds_left)

    def of_each(self, rows: Rows) -> dict[int, Rows]:
        """Return group → those of the rows that it has, as it counts them. rows: ascending."""
        ends = rows.searchsorted(self.starts).tolist()
        parts = enumerate(zip(self.starts, ends, ends[1:], strict=False))
        return {group: rows[first:end] - start for group, (start, first, end) in parts}

    def urls(self, rows: Sequence[int]) -> list[str]:
        held = self.begin(lambda: inf)
        chunks = held.fetched(rows)
        return [chunks[row].url if row in chunks else "" for row in rows]

    def section(self, section_id: str) -> Section | None:
        held = self.begin(lambda: inf)
        found = held.ask("section", {group: (section_id,) for group, shards in enumerate(self.shard_counts) if shards})
        section: Section | None = next((one for one in found.values() if one is not None), None)
        if section is None and held.lost:
            raise ShardsLost(self.key.index, *held.shards)
        return section


class Asked:
    """The Holding of one query."""

    def __init__(self, whole: Scattered, seconds_left: Callable[[], float]) -> None:
        self._whole, self._seconds_left = whole, seconds_left
        self._times = StageTimes()
        self.lost: set[int] = set()
        self._chunk_ids: list[str] = []
        self._last_headings: list[str] = []
        self._facets: dict[str, list[str]] = {name: [] for name in FACETS}
        self._rows: Rows = NO_ROWS
        self._places: dict[int, int] = {}
        self._chunks: dict[int, Chunk] = {}
        self._coming: list[int] = []
        self._at_once = 0

    @property
    def shards(self) -> tuple[int, int]:
        counts = self._whole.shard_counts
        return self._whole.shards - sum(counts[group] for group in self.lost), self._whole.shards

    def ask(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> Mapping[int, Any]:
        """Ask groups that are not lost yet; from now on those are that do not answer."""
        whole, asked = self._whole, {group: of for group, of in arguments.items() if group not in self.lost}
        if not asked:
            return {}
        started = time.perf_counter()
        found = whole.groups.ask(whole.key, method, asked, min(whole.timeout_s, self._seconds_left()))
        self._times.add("groups", time.perf_counter() - started)
        self.lost |= asked.keys() - found.keys()
        return found

    def look(
        self,
        wanted: Rows,
        *,
        vector: Vectors | None,
        depth: int,
        filters: Filters,
        said: Mask | None,
        times: StageTimes,
    ) -> Looked:
        whole, starts = self._whole, self._whole.starts
        wanted_of = whole.of_each(wanted)
        self._times = times
        found = self.ask(
            "look",
            {
                group: (wanted_of[group], vector, depth, filters, _packed(said, starts[group], starts[group + 1]))
                for group, shards in enumerate(whole.shard_counts)
                if shards
            },
        )
        if self.lost and not found:
            raise ShardsLost(whole.key.index, *self.shards)
        return self._merged([(group, found[group]) for group in sorted(found)], wanted, depth)

    def _merged(self, parts: Sequence[tuple[int, Candidates]], wanted: Rows, depth: int) -> Looked:
        """Return what the groups know as one; of the dense leg, the best of all."""
        starts = self._whole.starts
        self._rows = _joined([of.looked.rows + starts[group] for group, of in parts], NO_ROWS)
        self._places = {row: place for place, row in enumerate(self._rows.tolist())}
        self._chunk_ids = [one for _, of in parts for one in of.chunk_ids]
        self._last_headings = [one for _, of in parts for one in of.last_headings]
        self._facets = {name: [one for _, of in parts for one in of.facets[name]] for name in FACETS}
        scores = _joined([of.looked.dense[0] for _, of in parts], NO_SCORES)
        rows = _joined([of.looked.dense[1] + starts[group] for group, of in parts], NO_ROWS)
        best = self.order(scores, rows)[:depth]
        looked = Looked(
            rows=self._rows,
            cosine=_joined([of.looked.cosine for _, of in parts], NO_SCORES),
            page=_joined([_told_apart(of.looked.page, group) for group, of in parts], NO_ROWS),
            section=_joined([_told_apart(of.looked.section, group) for group, of in parts], NO_ROWS),
            page_size=_joined([of.looked.page_size for _, of in parts], np.empty(0)),
            is_api=_joined([of.looked.is_api for _, of in parts], np.empty(0, bool)),
            dense=(scores[best], rows[best]),
        )
        kept = np.isin(self._rows, united(wanted, rows[best]), assume_unique=True)
        return replace(
            looked,
            rows=looked.rows[kept],
            cosine=looked.cosine[kept],
            page=looked.page[kept],
            section=looked.section[kept],
            page_size=looked.page_size[kept],
            is_api=looked.is_api[kept],
        )

    def order(self, scores: npt.NDArray[np.floating[Any]], rows: Rows) -> Rows:
        return order_of(scores, lambda place: self._chunk_ids[self._places[int(rows[place])]])

    def expect(self, rows: Rows, count: int) -> None:
        self._coming, self._at_once = rows.tolist(), count + MORE_THAN_SHOWN
        self._chunks |= self.fetched(self._next())

    def chunk(self, row: int) -> Chunk:
        """Return a chunk, fetched with those that are expected to be asked for next. Raises PassagesGone."""
        if row not in self._chunks:
            self._chunks |= self.fetched([row, *self._next()])
            if row not in self._chunks:
                raise PassagesGone
        return self._chunks[row]

    def _next(self) -> list[int]:
        return [row for row in self._coming if row not in self._chunks][: self._at_once]

    def fetched(self, rows: Sequence[int]) -> dict[int, Chunk]:
        """Return row → chunk of what can be had."""
        wanted = united(np.array(rows, np.int64))
        rows_of = {group: of.tolist() for group, of in self._whole.of_each(wanted).items() if len(of)}
        found = self.ask("chunks", {group: (of,) for group, of in rows_of.items()})
        starts = self._whole.starts
        return {
            starts[group] + row: chunk
            for group, chunks in found.items()
            for row, chunk in zip(rows_of[group], chunks, strict=True)
        }

    def text(self, row: int) -> str:
        return self.chunk(row).text

    def url(self, row: int) -> str:
        return self.chunk(row).url

    def last_heading(self, row: int) -> str:
        return self._last_headings[self._places[row]]

    def value(self, facet: str, row: int) -> str:
        return self._facets[facet][self._places[row]]

    def counts(self, rows: Rows) -> dict[str, dict[str, int]]:
        return {name: by_frequency(Counter(self.value(name, row) for row in rows.tolist())) for name in FACETS}


def _packed(said: Mask | None, start: int, end: int) -> npt.NDArray[np.uint8] | None:
    return None if said is None else np.packbits(said[start:end])


def _told_apart(numbers: npt.NDArray[np.integer[Any]], group: int) -> Rows:
    """Return numbers of a group as numbers that no other group has; no page or section is in two shards."""
    apart: Rows = numbers.astype(np.int64) + (group << 32)
    return apart


def _joined(parts: Sequence[npt.NDArray[Any]], none: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([none, *parts])
