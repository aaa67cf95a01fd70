"""Serves a million chunks on this machine and measures it; writes bench/results/serve_large.json.

    python bench/serve_large.py [--data-dir FOLDER --index python3-doc]    needs: apt-get install wrk python3-doc
    python bench/serve_large.py --grown FOLDER                             keeps what it grows there, or uses it again

The chunks are those of python3-doc, repeated with every tenth word exchanged, and no model embeds the copies: their
vectors are those of the originals, moved by as much as a paraphrase moves them (bench/grown.py). Shards and index kind
are those of a build of that size. The queries are real ones that the real model embeds, each a new one, over HTTP, with
access control; without --data-dir the index of python3-doc is built first. Growing took 4 minutes here.

Served twice: with all in each replica, and with the shards in two groups of processes that both replicas ask.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.grown import bytes_of, write_grown
from bench.local import ROOT, free_port, unslowed
from bench.serve import INDEX, Load, build, measure, new_key, queries_of
from raydex.records import Chunk, Section
from raydex.search import megabytes, split
from raydex.snapshot import Snapshot, current_id, open_snapshot, read_manifest

RESULTS = ROOT / "bench" / "results" / "serve_large.json"
GROWN = "grown"
CHUNKS, CLIENTS, MODES = 1_000_000, (1, 8), ("hybrid", "dense")
GROUPS = 2


def records_of(snapshot: Snapshot) -> tuple[list[Section], list[Chunk]]:
    """Return the sections and the chunks, in the order of rows."""
    chunks = [shard.chunk(row) for shard in snapshot.shards for row in range(len(shard))]
    found = [
        shard.section(section_id)
        for shard in snapshot.shards
        for section_id in shard.sections["section_id"].to_pylist()
    ]
    return [section for section in found if section], chunks


def grow(index_dir: Path, count: int, original: Path) -> None:
    """Write and publish an index of so many chunks that is grown from another."""
    snapshot = open_snapshot(original, verify=False)
    sections, chunks = records_of(snapshot)
    vectors = np.concatenate([shard.vectors for shard in snapshot.shards])
    write_grown(index_dir, count, sections, chunks, vectors, snapshot.manifest.embedder)


def doc_rows(result: Mapping[str, Any]) -> list[str]:
    """Return the rows of the table in docs/serving.md, and the figures below it."""
    served, size = result["served"], result["bytes_per_chunk"]
    rows = []
    for mode in MODES:
        cells = [f"{one['rps']:.0f} / {one['p50_ms']:.1f} / {one['p99_ms']:.0f}" for one in served[mode].values()]
        rows.append(f"| {mode} | {' | '.join(cells)} |")
    memory = " + ".join(f"{one / 1024:.1f}" for one in served["replica_anon_mib"])
    stages = " · ".join(f"{stage} {taken:.1f}" for stage, taken in served["stages_ms"].items())
    return [
        *rows,
        f"{stages} ms",
        f"{served['cold_start_s']:.0f} s from start to first answer",
        f"{memory} GiB of memory of their own, {served['all_pss_mib'] / 1024:.1f} GiB with mapped files and Ray",
        f"{size['all']:.0f} bytes a chunk on disk",
        f"{size['vectors']:.0f} vectors, {size['texts']:.0f} texts, {size['lexical']:.0f} words",
        *_rows_of_groups(result["in_groups"]),
    ]


def _rows_of_groups(served: Mapping[str, Any]) -> list[str]:
    rows = []
    for mode in MODES:
        cells = [f"{one['rps']:.0f} / {one['p50_ms']:.1f} / {one['p99_ms']:.0f}" for one in served[mode].values()]
        rows.append(f"| {mode}, in groups | {' | '.join(cells)} |")
    of_replicas, of_groups = (
        " + ".join(f"{one / 1024:.1f}" for one in served[kind]) for kind in ("replica_anon_mib", "group_anon_mib")
    )
    return [
        *rows,
        f"{served['stages_ms']['groups']:.1f} ms of {served['stages_ms']['whole']:.1f} are waiting for the groups",
        f"{of_groups} GiB in the groups, {of_replicas} in the replicas",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="Folder of an index of python3-doc that is built already.")
    parser.add_argument("--index", default=INDEX, help=f"Its name. [default: {INDEX}]")
    parser.add_argument("--grown", type=Path, help="Folder of the grown index; one that is there is served as it is.")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help=f"How many. [default: {CHUNKS}]")
    parser.add_argument("--replicas", type=int, default=2, help="That serve it. [default: 2]")
    parser.add_argument("--seconds", type=int, default=10, help="Of each load. [default: 10]")
    parser.add_argument("--only-grow", action="store_true", help="Write the grown index and serve nothing.")
    options = parser.parse_args()
    unslowed()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as folder:
        work = Path(folder)
        original = (options.data_dir.absolute() if options.data_dir else build(work)) / options.index
        grown = (options.grown or work / GROWN).absolute()
        if not (grown / GROWN / "CURRENT").exists():
            grow(grown / GROWN, options.chunks, original)
        if options.only_grow:
            return 0
        load = Load(queries_of(original), work, options.seconds, CLIENTS)
        load.key, port = new_key(work / "keys.json"), free_port()
        command = [sys.executable, "serve_index.py", "--data-dir", str(grown), "--index", GROWN, "--port", str(port)]
        command += ["--keys-file", str(work / "keys.json"), "--replicas", str(options.replicas)]
        manifest = read_manifest(grown / GROWN, current_id(grown / GROWN))
        most_mb = max(map(megabytes, split(manifest, GROUPS)))
        result = {
            "chunks": manifest.counts["chunks"],
            "shards": len(manifest.shards),
            "index_kind": manifest.shards[0].index_kind,
            "ann_recall": round(min(shard.recall for shard in manifest.shards), 4),
            "bytes_per_chunk": bytes_of(manifest),
            "served": measure("ours", command, port, load, MODES),
            "in_groups": measure("in groups", [*command, "--group-memory-mb", str(most_mb)], port, load, MODES),
            "processors": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("for docs/serving.md:", *doc_rows(result), sep="\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
