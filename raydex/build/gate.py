"""The gate: what a new snapshot must pass before CURRENT moves.

    snapshot (written, not live) + its parent → {check: result}, failures

checksums        every object is there and matches the manifest
counts           pages and chunks did not shrink by more than --max-shrink-share since the parent
self_retrieval   sampled chunks, embedded anew, find themselves
"""

from collections.abc import Iterator

from raydex.build.units import BuildContext
from raydex.embed import Embedder
from raydex.records import Chunk, Hit
from raydex.search import Searcher
from raydex.snapshot import Snapshot, open_snapshot, read_manifest, verify

PROBES = 32
"""Chunks sampled evenly over the snapshot; a shard with rows out of step with its vectors fails nearly all of them."""

SAME_SCORE = 1e-4
"""Two embeddings of one text differ by less than this in cosine (batch size changes the last bits: 1.3e-7 measured)."""


def run_gate(context: BuildContext, snapshot_id: str, embedder: Embedder) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return each check with its result, and the failures, worded for a person. Nothing is published here."""
    results: dict[str, str] = {}
    damaged = verify(context.index_dir, snapshot_id)
    results["checksums"] = "; ".join(damaged) or "passed"
    if damaged:
        return results, tuple(damaged)
    snapshot = open_snapshot(context.index_dir, snapshot_id, verify=False)
    shrunk = list(_shrunk(context, snapshot))
    results["counts"] = "; ".join(shrunk) or "passed"
    lost = list(_lost_probes(snapshot, embedder))
    results["self_retrieval"] = "; ".join(lost) or "passed"
    return results, (*shrunk, *lost)


def _shrunk(context: BuildContext, snapshot: Snapshot) -> Iterator[str]:
    if not snapshot.manifest.parent:
        return
    before = read_manifest(context.index_dir, snapshot.manifest.parent).counts
    limit = context.config.gate.max_shrink_share
    for name in ("pages", "chunks"):
        now = snapshot.manifest.counts[name]
        if now < before[name] * (1 - limit):
            yield (
                f"counts: {now} {name}, the live snapshot has {before[name]}; a loss above {limit:.0%} is refused. "
                "If the site really shrank, build with a higher --max-shrink-share"
            )


def _lost_probes(snapshot: Snapshot, embedder: Embedder) -> Iterator[str]:
    probes = list(_sample(snapshot))
    if not probes:
        return
    vectors = embedder.embed_passages([probe.embedder_input for probe in probes])
    for probe, hits in zip(probes, Searcher("gate", snapshot).search(vectors, k=PROBES), strict=True):
        if not _finds_itself(probe, hits):
            best = f"{hits[0].score:.4f} on {hits[0].chunk.url}" if hits else "no hit"
            yield f"self_retrieval: a chunk of {probe.url} does not find itself (best: {best})"


def _finds_itself(probe: Chunk, hits: list[Hit]) -> bool:
    """Its own row comes back as good as identical, or so many identical chunks do that it may be crowded out."""
    identical = [hit for hit in hits if hit.score >= 1 - SAME_SCORE]
    return len(identical) == PROBES or any(hit.chunk.chunk_id == probe.chunk_id for hit in identical)


def _sample(snapshot: Snapshot) -> Iterator[Chunk]:
    per_shard = max(1, PROBES // max(1, len(snapshot.shards)))
    for shard in snapshot.shards:
        rows = range(0, len(shard), max(1, len(shard) // per_shard))
        yield from (shard.chunk(row) for row in rows[:per_shard])
