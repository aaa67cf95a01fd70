"""Cost per chunk as an index grows: from unit files to a published manifest, by the product's own code.

    python bench/scale.py [--sizes 10000 50000 …]     last line: JSON, kept in bench/results/scale.json
    python bench/scale.py --sizes 10000 50000         a quick look (1 minute); kept only with the default sizes

Each size runs in a process of its own, with a worker process for each processor that does what a build's Ray tasks do.
Units of 160 made-up chunks (360 characters, 384 numbers) are written in the form in which a build leaves them; then
come, as in a build: embedding through the embedding store (the model is a fake that takes a few µs), the shuffle, the
shards, the digest, publishing, and verification of every byte. A small build before it warms the workers up. The crawl,
the search for duplicates and the gate's other checks are left out.

µs/chunk: wall time of the stage over the number of chunks, all processors together. Memory: of the driver, its peak
resident set and what that grew by since the small build; of workers, the largest private set (RssAnon) of one.
"""

import argparse
import functools
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.local import ROOT
from raydex.build import embedding
from raydex.build.items import DROPPED_SCHEMA
from raydex.build.rows import Dropped
from raydex.build.shuffle import UNITS_PER_SHUFFLE, Shuffle, close_shards, shard_unit, shuffle_units
from raydex.build.sizing import index_kind, shard_count
from raydex.build.units import BuildContext
from raydex.checkpoint import VectorStore, open_build, write_parquet
from raydex.config import BuildConfig
from raydex.embed import HashEmbedder
from raydex.embed.batching import TokenRow
from raydex.records import Chunk, EmbedderInfo, PageInfo, Section, Source, Vectors, stable_id
from raydex.snapshot import new_manifest, publish, snapshot_bytes, verify, write_manifest
from raydex.tables import pages_to_table, sections_to_table
from tests.processes import descendants

T = TypeVar("T")

RESULTS = ROOT / "bench" / "results" / "scale.json"
SIZES = (10_000, 50_000, 200_000, 2_000_000)
SMALL, WARM_UP = 50_000, 2_000
TARGET = 1.3

DIM = 384
CHUNKS_PER_PAGE, PAGES_PER_UNIT = 20, 8
CHUNKS_PER_UNIT = CHUNKS_PER_PAGE * PAGES_PER_UNIT
WORDS_PER_CHUNK = 60
UNITS_PER_TASK = 32
SAMPLE_S = 0.1
FREE_BYTES_PER_CHUNK = 10_000
PREFIX = "raydex-scale-"


class FakeModel:
    """Gives a text a vector in microseconds: three of some thousand directions that have 64 degrees of freedom."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        spread = rng.standard_normal((8192, 64), dtype=np.float32) @ rng.standard_normal((64, DIM), dtype=np.float32)
        self._directions = spread / np.linalg.norm(spread, axis=1, keepdims=True)
        self.tokenizer = HashEmbedder().tokenizer
        self.batch_tokens = HashEmbedder.batch_tokens

    @property
    def info(self) -> EmbedderInfo:
        return replace(HashEmbedder(DIM).info, sha256="fake of bench/scale.py")

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        words = np.frombuffer(b"".join(hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts), np.int64)
        some = (words & 8191, words >> 13 & 8191, words >> 26 & 8191)
        vectors = self._directions[some[0]] + 0.7 * self._directions[some[1]] + 0.5 * self._directions[some[2]]
        return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_passages(texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of chunks")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return 0
    results = {size: _measured(size) for size in options.sizes}
    first, last = min(results), max(results)
    result = {
        "ratio": round(results[last]["us_per_chunk"] / results[first]["us_per_chunk"], 3),
        "cpu_ratio": round(results[last]["cpu_us_per_chunk"] / results[first]["cpu_us_per_chunk"], 3),
        "sizes": {str(size): figures for size, figures in results.items()},
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }
    if tuple(options.sizes) == SIZES:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0 if result["ratio"] <= TARGET else 1


def _measured(size: int) -> dict[str, Any]:
    """Return the median run: of three where one takes seconds, and a busy neighbour would tell most of its figure."""
    runs = [_in_own_process(size) for _ in range(3 if size <= SMALL else 1)]
    return sorted(runs, key=lambda figures: float(figures["us_per_chunk"]))[len(runs) // 2]


def _in_own_process(size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(size)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    stages = " ".join(f"{stage} {us:.1f}" for stage, us in figures["stages_us"].items())
    print(
        f"{size:>9,} chunks {figures['us_per_chunk']:6.1f} µs/chunk ({stages}) · {figures['index_kind']}, "
        f"{figures['shards']} shards, recall {figures['ann_recall']:.4f} · driver {figures['driver_peak_mb']:.0f} MB, "
        f"largest task {figures['largest_task_mb']:.0f} MB · {figures['snapshot_bytes_per_chunk']} B/chunk",
        flush=True,
    )
    return figures


def measure(size: int) -> dict[str, Any]:
    """Build and publish an index of so many chunks; return what it took."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        if shutil.disk_usage(folder).free < FREE_BYTES_PER_CHUNK * size:
            raise SystemExit(f"{size:,} chunks need {FREE_BYTES_PER_CHUNK * size / 1e9:.0f} GB free in {folder}")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
            Run(Path(folder, "warm-up"), WARM_UP, workers).build()
            before = _peak_rss()
            with _memory_watched() as largest:
                figures = Run(Path(folder, "index"), size, workers).build()
        peak = _peak_rss()
    return {
        **figures,
        "driver_peak_mb": round(peak / 1e6, 1),
        "driver_growth_mb": round((peak - before) / 1e6, 1),
        "largest_task_mb": round(largest[0] / 1e6, 1),
    }


class Run:
    """One build without a crawl."""

    def __init__(self, index_dir: Path, size: int, workers: ProcessPoolExecutor) -> None:
        self._size, self._workers = size, workers
        ledger, _ = open_build(index_dir, "bench")
        self._context = BuildContext(
            index_dir=index_dir,
            build_id=ledger.build_dir.name,
            config=BuildConfig(index="bench"),
            sources=(Source(name="bench", seeds=("https://docs.example.org/",)),),
            embedder=FakeModel().info,
        )
        self._stages: dict[str, float] = {}
        self._cpu_s = 0.0

    def build(self) -> dict[str, Any]:
        context = self._context
        write_parquet(context.build_dir / Dropped.FILE, DROPPED_SCHEMA.empty_table())
        units = [f"{number:08d}" for number in range(-(-self._size // CHUNKS_PER_UNIT))]
        tasks = [units[first : first + UNITS_PER_TASK] for first in range(0, len(units), UNITS_PER_TASK)]
        self._all(write_units, [(context, part) for part in tasks])  # the crawl's part: not measured
        with self._timed("embed"):
            self._all(embed_units, [(context, part) for part in tasks])
        count, kind = shard_count(self._size, 0, 0), index_kind(self._size, "auto", "")
        shuffle = Shuffle(shards=count, kind=kind, least_recall=context.config.vectors.least_recall, content="bench")
        groups = [units[first : first + UNITS_PER_SHUFFLE] for first in range(0, len(units), UNITS_PER_SHUFFLE)]
        with self._timed("shuffle"):
            self._all(shuffle_units, [(context, shuffle, f"{n:06d}", group) for n, group in enumerate(groups)])
        with self._timed("shards"):
            shards = tuple(self._all(shard_unit, [(context, shuffle, number) for number in range(count)]))
        with self._timed("digest"):
            closing = self._workers.submit(close_shards, context, shuffle, shards).result()
        with self._timed("publish"):
            manifest = new_manifest(
                context.index_dir,
                shards,
                parent="",
                embedder=context.embedder,
                chunking=context.config.chunk.model_dump(),
                sources=(),
                digest=closing.digest,
                ann_recall=closing.recall,
            )
            write_manifest(context.index_dir, manifest)
            publish(context.index_dir, manifest.snapshot_id)
        with self._timed("verify"):
            problems = self._workers.submit(verify, context.index_dir, manifest.snapshot_id).result()
        if problems or manifest.counts["chunks"] != len(units) * CHUNKS_PER_UNIT:
            raise ValueError(f"{manifest.counts}: {problems}")
        chunks = manifest.counts["chunks"]
        return {
            "chunks": chunks,
            "us_per_chunk": round(sum(self._stages.values()) / chunks * 1e6, 2),
            "cpu_us_per_chunk": round(self._cpu_s / chunks * 1e6, 2),
            "stages_us": {stage: round(seconds / chunks * 1e6, 2) for stage, seconds in self._stages.items()},
            "index_kind": kind,
            "shards": len(shards),
            "ann_recall": round(manifest.ann_recall, 4),
            "least_recall_of_a_shard": round(min(shard.recall for shard in shards), 4),
            "refine": max(shard.refine for shard in shards),
            "snapshot_bytes_per_chunk": snapshot_bytes(manifest) // chunks,
            "peak_disk_bytes_per_chunk": _bytes_below(context.index_dir) // chunks,
        }

    def _all(self, task: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> list[T]:
        """Run a task with each of these arguments, a few at a time; return the results in order."""
        results: list[Future[T]] = []
        for arguments in calls:
            if len(results) >= (most := 2 * (os.cpu_count() or 1)):
                results[-most].result()
            results.append(self._workers.submit(task, *arguments))
        return [result.result() for result in results]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started, cpu = time.perf_counter(), _cpu_seconds()
        yield
        self._stages[stage] = time.perf_counter() - started
        self._cpu_s += _cpu_seconds() - cpu


def write_units(context: BuildContext, unit_ids: Sequence[str]) -> None:
    for unit_id in unit_ids:
        _write_unit(context, unit_id)


@functools.cache
def _embedder(folder: Path) -> tuple[FakeModel, VectorStore]:
    """Return what an embedder actor keeps for the whole of a build."""
    return FakeModel(), VectorStore(folder, DIM)


def embed_units(context: BuildContext, unit_ids: Sequence[str]) -> None:
    model, store = _embedder(context.vectors_dir)
    for unit_id in unit_ids:
        embedding.embed_units(context, [unit_id], model, store)


def _write_unit(context: BuildContext, unit_id: str) -> None:
    chunks, sections, pages = [], [], []
    rng = np.random.default_rng(int(unit_id))
    for page in range(PAGES_PER_UNIT):
        url = f"https://docs.example.org/{unit_id}/{page}.html"
        page_id, title = stable_id(url), f"Page {page} of {unit_id}"
        pages.append(PageInfo(page_id=page_id, url=url, source="bench", title=title))
        for number in range(CHUNKS_PER_PAGE):
            anchor, text = (
                f"{url}#s{number}",
                " ".join(f"{word:05d}" for word in rng.integers(99_999, size=WORDS_PER_CHUNK)),
            )
            named = {"page_id": page_id, "url": anchor, "title": title, "headings": (title, f"Section {number}")}
            sections.append(Section(section_id=anchor, text=text, position=number, **named))  # type: ignore[arg-type]
            chunks.append(
                Chunk(
                    chunk_id=stable_id(anchor, 0, len(text), text),
                    section_id=anchor,
                    context=f"{title} › Section {number}",
                    text=text,
                    char_start=0,
                    char_end=len(text),
                    token_count=WORDS_PER_CHUNK,
                    token_ids=(0,) * WORDS_PER_CHUNK,
                    **named,  # type: ignore[arg-type]
                )
            )
    tables = {
        "chunks": embedding.unit_table(chunks),
        "sections": sections_to_table(sections),
        "pages": pages_to_table(pages),
    }
    for role, table in tables.items():
        write_parquet(context.units_dir / f"{unit_id}.{role}.parquet", table, durable=False)


# --- what it took ---


@contextmanager
def _memory_watched() -> Iterator[list[int]]:
    """Yield a list whose one item is the largest private memory that any process below us had so far."""
    largest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            largest[0] = max(largest[0], 0, *map(_private_bytes, descendants(os.getpid())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        over.set()
        thread.join()


def _private_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


def _cpu_seconds() -> float:
    """Return the processor time of this process and of all below it that run now."""
    ticks = 0
    for pid in {os.getpid(), *descendants(os.getpid())}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak_rss() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
