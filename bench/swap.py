"""Swaps a service between two snapshots a hundred times while 32 clients query it. About 10 minutes.

    python bench/swap.py --data-dir checkpoints --index docs [--swaps 100] [--clients 32]

The index is copied; every text of the second snapshot ends with a mark, so that a hit tells which snapshot it is of.
CURRENT is moved to and fro by this process (every tenth time by build_index.py), and the service follows by itself. A
swap ends when /indexes names the other snapshot. Counted are failed requests (an error, another status than 200),
answers that mix (a hit that is not of the snapshot that the answer names), and the memory of the replica (PSS). The
last line is one JSON object, also written to bench/results/swap.json.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import ROOT, service
from raydex.build.lexicon import index_words
from raydex.lineage import roll_back, roll_forward
from raydex.records import Shard
from raydex.shard import read_rows, write_shard
from raydex.snapshot import current_id, new_manifest, publish, read_manifest, write_manifest
from tests.processes import command_line, descendants

RESULTS = Path(__file__).parent / "results" / "swap.json"
MARK = " marked"
REPLICA = "ServeReplica:raydex:SearchService"
SWAP_TIMEOUT_S = 120.0
EARLY = 5
"""The swap after which memory is taken for settled."""

QUERIES = (
    "how do I read a file line by line",
    "parse a date from a string",
    "start a thread and wait for it",
    "open a socket with a timeout",
    "sort a list of dictionaries by a key",
    "os.path.join",
    "what does the walrus operator do",
    "run a subprocess and capture its output",
)


def marked(index_dir: Path) -> str:
    """Write a child of the live snapshot in which every text ends with the mark; return its id."""
    objects = index_dir / "objects"
    live = read_manifest(index_dir, current_id(index_dir))
    shards = tuple(_marked(shard, objects) for shard in live.shards)
    manifest = new_manifest(
        index_dir,
        shards,
        parent=live.snapshot_id,
        embedder=live.embedder,
        chunking=dict(live.chunking),
        sources=live.sources,
        lexical=index_words(shards, objects, index_dir / "work"),
    )
    manifest.gate["checksums"] = "passed: made by bench/swap.py"
    write_manifest(index_dir, manifest)
    return manifest.snapshot_id


def _marked(shard: Shard, objects: Path) -> Shard:
    chunks, vectors, sections, pages = read_rows(shard, objects)
    texts = pc.binary_join_element_wise(chunks["text"], pa.scalar(MARK), pa.scalar(""))
    ends = pc.add(chunks["char_end"], pa.scalar(len(MARK), pa.int32()))
    for name, column in {"text": texts, "char_end": ends, "chunk_id": pc.utf8_reverse(chunks["chunk_id"])}.items():
        chunks = chunks.set_column(chunks.schema.get_field_index(name), name, column)
    return write_shard(shard.shard_id, chunks, np.array(vectors), sections, pages, objects, kind=shard.index_kind)


@dataclass(slots=True)
class Load:
    """What clients were answered.

    mixed: answers with a hit of another snapshot than they name; partial: answers without some shards.
    """

    marks: dict[str, bool]  # snapshot_id → is it the marked one?
    index: str
    answers: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    partial: int = 0
    seconds: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, client: httpx.Client, query: str) -> None:
        started = time.perf_counter()
        try:
            response = client.get("/search", params={"query": query, "index": self.index, "k": 10})
        except httpx.HTTPError as error:
            with self._lock:
                self.failed[type(error).__name__] += 1
            return
        seconds = time.perf_counter() - started
        with self._lock:
            if response.status_code != httpx.codes.OK:
                self.failed[str(response.status_code)] += 1
                return
            answer = response.json()
            named = answer["snapshot"][self.index]
            self.answers[named] += 1
            self.mixed += any(hit["content"].endswith(MARK) != self.marks[named] for hit in answer["results"])
            looked_at, shards = answer["shards_ok"].split("/")
            self.partial += looked_at != shards
            self.seconds.append(seconds)

    @contextmanager
    def running(self, url: str, clients: int, queries: Sequence[str] = QUERIES) -> Iterator[None]:
        """Have so many clients ask, each the next query when it has its answer, until the block ends."""
        stop = threading.Event()

        def client(first: int) -> None:
            with httpx.Client(base_url=url, timeout=60) as connection:
                for number in count(first):
                    if stop.is_set():
                        return
                    query = queries[number % len(queries)]
                    self.ask(connection, query if number % 2 else f"{query} {number}")  # half of them are new

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def wait_served(url: str, index: str, snapshot_id: str) -> float:
    """Return after how many seconds /indexes names the snapshot."""
    started = time.perf_counter()
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.perf_counter() - started < SWAP_TIMEOUT_S:
            rows = [row for row in client.get("/indexes").json()["indexes"] if row["name"] == index]
            if all(row["snapshot_id"] == snapshot_id for row in rows):
                return time.perf_counter() - started
            if any(row["refused_snapshot_id"] == snapshot_id for row in rows):
                raise RuntimeError(f"{snapshot_id} is refused: {rows}")
            time.sleep(0.05)
    raise TimeoutError(f"{snapshot_id} is not served after {SWAP_TIMEOUT_S} s: {rows}")


def swap_often(
    url: str, index_dir: Path, swaps: int, after: Callable[[int], None], *, command_every: int = 10
) -> list[float]:
    """Move CURRENT to and fro; return the seconds from each move until it is served. after: is told each number."""
    taken = []
    for number in range(1, swaps + 1):
        is_back = number % 2 == 0
        if number % command_every == 0:
            flag = "--rollback" if is_back else "--rollforward"
            command = ["build_index.py", flag, "--index", index_dir.name, "--data-dir", str(index_dir.parent)]
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        elif number == 1:
            publish(index_dir, max(path.parent.name for path in (index_dir / "snapshots").glob("*/manifest.json")))
        else:
            (roll_back if is_back else roll_forward)(index_dir)
        taken.append(wait_served(url, index_dir.name, current_id(index_dir)))
        after(number)
    return taken


def replica_pss() -> int:
    """Return the bytes of the replicas below this process, each page shared out among those that have it."""
    replicas = [pid for pid in descendants(os.getpid()) if REPLICA in command_line(pid)]
    return sum(_pss(pid) for pid in replicas)


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def copied(index_dir: Path, to: Path) -> Path:
    """Copy what a service reads of an index: its live snapshot."""
    live = read_manifest(index_dir, current_id(index_dir))
    (to / "snapshots").mkdir(parents=True)
    shutil.copytree(index_dir / "snapshots" / live.snapshot_id, to / "snapshots" / live.snapshot_id)
    shutil.copytree(index_dir / "objects", to / "objects")
    publish(to, live.snapshot_id)
    return to


def doc_rows(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures in docs/swap.md."""
    memory = {number: f"{size:,.0f}" for number, size in result["memory_mib"].items()}
    last = str(result["swaps"])
    yield f"{result['chunks']:,} chunks"
    yield f"{last} swaps, {result['answers']:,} answers"
    yield f"A swap takes {result['swap_s']['p50']:.1f} s"
    yield f"{memory['5']} MiB after swap 5 and {memory[last]} MiB after swap {last} (× {result['memory_ratio']:.2f};"
    yield f"at most {max(result['memory_mib'].values()):,.0f} MiB"
    yield f"p99 {result['latency_ms']['p99']:.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "checkpoints")
    parser.add_argument("--index", default="python-docs")
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    os.environ.setdefault("RAYDEX_CACHE_MB", "8")  # full after a few swaps: what grows then are not kept answers
    with tempfile.TemporaryDirectory(prefix="raydex-swap-") as work:
        index_dir = copied(options.data_dir / options.index, Path(work) / options.index)
        result = measured(index_dir, options.swaps, options.clients)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    well = not result["failed"] and not result["mixed"] and result["memory_ratio"] <= 1.1
    return 0 if well else 1


def measured(index_dir: Path, swaps: int, clients: int) -> dict[str, Any]:
    first, second = current_id(index_dir), marked(index_dir)
    load = Load({first: False, second: True}, index_dir.name)
    memory: dict[int, int] = {}

    def after(number: int) -> None:
        if number % EARLY == 0:
            memory[number] = replica_pss()
            print(f"{number:4d} swaps  {memory[number] / 2**20:7.1f} MiB  {load.answers.total()} answers", flush=True)

    with service(index_dir.name, index_dir.parent) as url:
        memory[0] = replica_pss()
        with load.running(url, clients):
            started = time.perf_counter()
            taken = swap_often(url, index_dir, swaps, after)
            wall = time.perf_counter() - started
        idle = replica_pss()
    return {
        "swaps": swaps,
        "clients": clients,
        "chunks": read_manifest(index_dir, first).counts["chunks"],
        "answers": load.answers.total(),
        "answers_of_each": sorted(load.answers.values()),
        "failed": load.failed.total(),
        "failures": dict(load.failed),
        "mixed": load.mixed,
        "requests_per_s": round(load.answers.total() / wall, 1),
        "latency_ms": {f"p{p}": round(1000 * float(np.percentile(load.seconds, p)), 1) for p in (50, 99, 100)},
        "swap_s": {f"p{p}": round(float(np.percentile(taken, p)), 2) for p in (50, 99, 100)},
        "memory_mib": {str(number): round(size / 2**20, 1) for number, size in memory.items()},
        "memory_mib_idle_after": round(idle / 2**20, 1),
        "memory_ratio": round(memory[max(memory)] / memory[min(EARLY, max(memory))], 3),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
