"""The gate: what a new snapshot must pass before CURRENT moves. docs/gate.md says what to do when it refuses.

    snapshot (written, not live) + its parent + golden queries → Verdict

checksums        every object is there and matches the manifest; nothing can override this one
counts           pages, sections and chunks did not shrink by more than --max-shrink-share since the parent
ann_recall       the indexes find the share --least-recall of the best rows
directories      nor did one directory of the site
texts            pages did not lose their text, or take on that of other pages
vectors          every vector has the length 1
self_retrieval   sampled chunks, embedded anew, find themselves
headings         sampled pages are found by their own heading as often as in the parent
near_duplicates  no more sampled passages than in the parent stand on many pages
golden           recall@k and nDCG@k of the golden queries are not below the parent's
"""

from pathlib import Path

from raydex.build.gate import counts, probes, texts
from raydex.build.gate.golden import golden_queries
from raydex.build.gate.parent import Parent
from raydex.build.gate.verdict import CHECKSUMS, Failure, Verdict
from raydex.config import GateConfig
from raydex.embed import Embedder
from raydex.evaluate import Golden
from raydex.snapshot import open_snapshot, read_manifest, recall_failures, verify


def run_gate(
    index_dir: Path,
    snapshot_id: str,
    embedder: Embedder,
    config: GateConfig,
    golden: Golden | None,
    *,
    least_recall: float = 0.0,
) -> Verdict:
    """Run every check and return what they found. Nothing is published here; a damaged snapshot is not looked into."""
    verdict = Verdict()
    damaged = verify(index_dir, snapshot_id)
    verdict.add(CHECKSUMS, [Failure(check=CHECKSUMS, message=message) for message in damaged])
    if damaged:
        return verdict
    manifest = read_manifest(index_dir, snapshot_id)
    parent, objects_dir = Parent(index_dir, manifest), index_dir / "objects"
    verdict.add("counts", counts.shrunk(manifest, parent, config.max_shrink_share))
    missed = [Failure(check="ann_recall", message=message) for message in recall_failures(manifest, least_recall)]
    verdict.add("ann_recall", missed, ann_recall=manifest.ann_recall)
    lost = counts.lost_directories(manifest, parent, objects_dir, config.max_shrink_share)
    verdict.add("directories", lost)
    failures, share = texts.collapsed(manifest, parent, objects_dir, config.max_collapsed_share)
    verdict.add("texts", failures, collapsed_share=share)
    _search(verdict, _Searched(index_dir, snapshot_id, parent, embedder), config, golden)
    return verdict


class _Searched:
    """The new snapshot, open, with its sample; the parent's only when somebody asks."""

    def __init__(self, index_dir: Path, snapshot_id: str, parent: Parent, embedder: Embedder) -> None:
        self.snapshot = open_snapshot(index_dir, snapshot_id, verify=False)
        self.parent, self.embedder, self._objects_dir = parent, embedder, index_dir / "objects"
        self.sample = probes.Sample(self.snapshot, self._objects_dir)
        self._before: probes.Sample | None = None

    def before(self) -> probes.Sample | None:
        if self._before is None and self.parent.snapshot is not None:
            self._before = probes.Sample(self.parent.snapshot, self._objects_dir)
        return self._before


def _search(verdict: Verdict, new: _Searched, config: GateConfig, golden: Golden | None) -> None:
    failures, worst = probes.lengths(new.snapshot)
    verdict.add("vectors", failures, worst_length_error=worst)
    if failures:
        return  # no ranking follows from such vectors
    verdict.add("self_retrieval", probes.own_text(new.snapshot, new.embedder))
    failures, rate = probes.headings(new.sample, new.parent, new.before, new.embedder, config.max_probe_loss)
    verdict.add("headings", failures, heading_rate=rate)
    failures, metrics = probes.near_duplicates(new.sample, new.parent, new.before, config.max_repeated_rise)
    verdict.add("near_duplicates", failures, **metrics)
    if golden:
        failures, metrics = golden_queries(
            golden, new.snapshot, new.parent, new.embedder, k=config.golden_k, limit=config.max_golden_loss
        )
        verdict.add("golden", failures, **metrics)
        verdict.golden_digest = golden.digest
