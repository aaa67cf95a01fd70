"""Is the index in order, and does it find what it holds? Searches of the new snapshot for parts of itself.

    sampled chunks → self_retrieval (its own text), headings (its own heading), near_duplicates (its neighbours)

The pages with the lowest ids are probed. An id is a hash of the address: the sample is as good as random, and it is the
same pages in parent and child, so that their rates differ only by what became of the pages.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydex.build.gate.parent import Parent
from raydex.build.gate.verdict import Failure, failure
from raydex.embed import Embedder
from raydex.records import Chunk, Hit, Vectors
from raydex.search import DenseSearcher
from raydex.shard import LENGTH_TOLERANCE, pages_of
from raydex.snapshot import Snapshot

TEXT_PROBES = 32
"""Chunks sampled evenly over the snapshot; a shard with rows out of step with its vectors fails nearly all of them."""

SAME_SCORE = 1e-4
"""Two embeddings of one text differ by less than this in cosine (batch size changes the last bits: 1.3e-7 measured)."""

PROBED_PAGES = 256
"""A share of 8 % of all pages is found as 8 % ± 1.7 % of these; embedding their headings takes about 2 s."""

HEADING_DEPTH = 10
"""Hits among which a heading must find its page: what a person looks through."""

DEEPER = 20
"""How many times more hits are looked at when those of pages that the parent lacks are left out."""

NEAR = 0.98
"""Cosine from which two passages say the same; MiniLM gives 0.9 to 0.97 to entries of an API that differ in a name."""

NEIGHBOURS = 64
"""Hits looked at for passages on other pages: a page with more chunks so alike is a case of its own."""

CROWD = 5
"""Other pages that must say the same for it to be a template's text; versions of one page are fewer."""

LEAST_LOST = 3
"""Sampled pages that must be lost: on a site of ten pages one is already 10 %."""

NOT_A_LENGTH = 1e9  # of a vector with NaN or infinity; JSON has neither

BLOCK_ROWS = 4096
"""Vectors checked at a time: 6 MB of 384 numbers each."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """The first chunk of a sampled page by id, and its vector."""

    chunk: Chunk
    vector: Vectors

    @property
    def page(self) -> str:
        return self.chunk.url.partition("#")[0]

    @property
    def heading(self) -> str:
        return self.chunk.context or self.chunk.title


def own_text(snapshot: Snapshot, embedder: Embedder) -> list[Failure]:
    """Embed sampled chunks anew: each must find its own row, or vectors and rows are out of step."""
    chunks = list(_spread(snapshot))
    if not chunks:
        return []
    vectors = embedder.embed_passages([chunk.embedder_input for chunk in chunks])
    hits = DenseSearcher("gate", snapshot).search(vectors, k=TEXT_PROBES)
    lost = [chunk.url for chunk, of in zip(chunks, hits, strict=True) if not _finds_itself(chunk, of)]
    message = f"{len(lost)} of {len(chunks)} chunks, embedded anew, do not find themselves"
    return [failure("self_retrieval", message, pages=lost)] if lost else []


def _finds_itself(chunk: Chunk, hits: list[Hit]) -> bool:
    """Its own row comes back as good as identical, or so many identical chunks do that it may be crowded out."""
    identical = [hit for hit in hits if hit.score >= 1 - SAME_SCORE]
    return len(identical) == TEXT_PROBES or any(hit.chunk.chunk_id == chunk.chunk_id for hit in identical)


def _spread(snapshot: Snapshot) -> Iterator[Chunk]:
    per_shard = max(1, TEXT_PROBES // max(1, len(snapshot.shards)))
    for shard in snapshot.shards:
        rows = range(0, len(shard), max(1, len(shard) // per_shard))
        yield from (shard.chunk(row) for row in rows[:per_shard])


def lengths(snapshot: Snapshot) -> tuple[list[Failure], float]:
    """Return the failure, if any, and how far the length of a vector is from 1 at most."""
    worst, wrong = 0.0, []
    for shard in snapshot.shards:
        for first in range(0, len(shard), BLOCK_ROWS):
            vectors = shard.vectors[first : first + BLOCK_ROWS]
            off = np.nan_to_num(np.abs(np.linalg.norm(vectors, axis=1) - 1), nan=NOT_A_LENGTH, posinf=NOT_A_LENGTH)
            worst = max(worst, float(off.max()))
            wrong += [shard.chunk(first + int(row)).url for row in np.flatnonzero(off > LENGTH_TOLERANCE)]
    message = f"{len(wrong)} vectors do not have the length 1"
    return ([failure("vectors", message, pages=wrong)] if wrong else []), worst


class Sample:
    """The probed pages of a snapshot."""

    def __init__(self, snapshot: Snapshot, objects_dir: Path) -> None:
        self._searcher = DenseSearcher("gate", snapshot)
        self.probes = list(_probes(snapshot, objects_dir))

    def found(self, embedder: Embedder, among: Callable[[str], bool] | None = None) -> dict[str, bool]:
        """Return page URL → whether its heading finds it. among: says of which page ids hits count; else of all."""
        vectors = embedder.embed_queries([probe.heading for probe in self.probes])
        depth = HEADING_DEPTH * (DEEPER if among else 1)
        rankings = self._searcher.search(vectors, k=depth) if self.probes else []
        found = {}
        for probe, hits in zip(self.probes, rankings, strict=True):
            pages = [hit.chunk.page_id for hit in hits if among is None or among(hit.chunk.page_id)]
            found[probe.page] = probe.chunk.page_id in pages[:HEADING_DEPTH]
        return found

    def repeated(self, among: Callable[[str], bool] | None = None) -> dict[str, tuple[bool, bool]]:
        """Return page URL → whether its passage is on another page too, and whether it is on CROWD others."""
        vectors = [probe.vector for probe in self.probes]
        rankings = self._searcher.search(np.stack(vectors), k=NEIGHBOURS) if vectors else []
        found = {}
        for probe, hits in zip(self.probes, rankings, strict=True):
            near = {hit.chunk.page_id for hit in hits if hit.score >= NEAR} - {probe.chunk.page_id}
            known = near if among is None else set(filter(among, near))
            found[probe.page] = (bool(known), len(near) >= CROWD)
        return found


def _probes(snapshot: Snapshot, objects_dir: Path) -> Iterator[_Probe]:
    """Yield the probe of each sampled page; a page whose sections were all left out as duplicates has none."""
    ids = (pages_of(s.shard, objects_dir, ("page_id",))["page_id"].to_pylist() for s in snapshot.shards)
    lowest = heapq.nsmallest(PROBED_PAGES, (page_id for of_shard in ids for page_id in of_shard))
    wanted = pa.array(lowest, pa.string())
    for shard in snapshot.shards:
        taken: set[str] = set()
        for row in np.flatnonzero(pc.is_in(shard.chunks["page_id"], wanted).to_numpy(zero_copy_only=False)):
            page_id = shard.chunks["page_id"][int(row)].as_py()
            if page_id not in taken:
                taken.add(page_id)
                yield _Probe(shard.chunk(int(row)), shard.vectors[int(row)])


def headings(
    sample: Sample, parent: Parent, sample_before: Callable[[], Sample | None], embedder: Embedder, limit: float
) -> tuple[list[Failure], float]:
    """Return the failure, if any, and the share of pages that their own heading finds.

    The parent's rate is the one in its manifest. Only when the new one is below it, both are measured over the same
    pages, and without the hits on pages that the parent lacks: a site that grew has more that compete for a heading.
    """
    found = sample.found(embedder)
    rate = _rate(found.values())
    before = parent.metric("heading_rate") if parent.has_same_model else None
    if before is not None and rate >= before - limit:
        return [], rate
    older = sample_before()
    if older is None:
        return [], rate
    found_before = older.found(embedder)
    among = sample.found(embedder, among=parent.page_ids().__contains__)
    both = found_before.keys() & among.keys()
    fair, before = _rate(among[page] for page in both), _rate(found_before[page] for page in both)
    lost = [page for page in both if found_before[page] and not among[page]]
    if fair >= before - limit or len(lost) < LEAST_LOST:
        return [], rate
    message = (
        f"{fair:.1%} of {len(both)} sampled pages are found by their own heading, {before:.1%} were in the live "
        f"snapshot; a loss above {limit:.0%} is refused (--max-probe-loss). No longer found"
    )
    return [failure("headings", message, pages=lost)], rate


def near_duplicates(
    sample: Sample, parent: Parent, sample_before: Callable[[], Sample | None], limit: float
) -> tuple[list[Failure], dict[str, float]]:
    """Return the failure, if any, and the shares of sampled passages that stand on other pages, on many others.

    Before it fails, the share on other pages is measured over the pages that both have: a site that brings another
    version of each page has not become worse. Many others are too many in any case.
    """
    found = sample.repeated()
    near, crowded = (_rate(outcome[which] for outcome in found.values()) for which in (0, 1))
    metrics = {"near_duplicate_share": near, "repeated_share": crowded}
    known = {name: parent.metric(name) for name in metrics} if parent.has_same_model else {}
    if known and all(old is not None and metrics[name] <= old + limit for name, old in known.items()):
        return [], metrics
    older = sample_before()
    if older is None:
        return [], metrics
    before, now = older.repeated(), sample.repeated(among=parent.page_ids().__contains__)
    both = before.keys() & now.keys()
    near, near_before = (_rate(of[page][0] for page in both) for of in (now, before))
    crowded_before = _rate(outcome[1] for outcome in before.values())
    pages = [page for page in both if now[page][0] and not before[page][0]]
    pages += [page for page in now if now[page][1] and not before.get(page, (0, 0))[1] and page not in pages]
    if (near <= near_before + limit and crowded <= crowded_before + limit) or len(pages) < LEAST_LOST:
        return [], metrics
    message = (
        f"{near:.1%} of the sampled passages stand on another page too, {crowded:.1%} on {CROWD} or more (cosine "
        f"{NEAR}); in the live snapshot it was {near_before:.1%} and {crowded_before:.1%}; a rise above {limit:.0%} "
        "is refused (--max-repeated-rise)"
    )
    return [failure("near_duplicates", message, pages=pages)], metrics


def _rate(outcomes: Iterable[bool]) -> float:
    values = list(outcomes)
    return sum(values) / len(values) if values else 0.0
