"""How long looking after a large index takes: a made-up one, three snapshots deep, each command once.

    python bench/lifecycle.py --chunks 600000        makes about 4 GB below --work, in some minutes, and removes it

Snapshot 2 edits one page in a hundred, and so touches every shard; snapshot 3 edits one page. Each command runs in a
process of its own, as a person runs it: its wall time includes the start of Python. The last line is one JSON object.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from raydex.build.embedding import vector_key  # noqa: E402 - a script finds the package itself
from raydex.build.rows import shard_number  # noqa: E402 - a script finds the package itself
from raydex.checkpoint import VectorStore  # noqa: E402
from raydex.embed import HashEmbedder  # noqa: E402
from raydex.records import Chunk, PageInfo, Section, Shard, stable_id  # noqa: E402
from raydex.shard import write_shard  # noqa: E402
from raydex.snapshot import new_manifest, publish, read_manifest, snapshot_bytes, write_manifest  # noqa: E402
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table  # noqa: E402

CHUNKS_PER_PAGE, DIM, WORDS = 10, 384, 90
VOCABULARY = [hashlib.sha256(str(number).encode()).hexdigest()[: 3 + number % 7] for number in range(5000)]
STORED_AT_A_TIME = 256


def section_and_chunk(page: int, number: int, edition: int) -> tuple[Section, Chunk]:
    random = np.random.default_rng((page, number, edition))
    text = " ".join(VOCABULARY[word] for word in random.integers(0, len(VOCABULARY), WORDS))
    url = f"https://docs.example.org/{page:07d}.html"
    section = Section(
        section_id=f"{url}#s{number}",
        page_id=stable_id(url),
        url=f"{url}#s{number}",
        title=f"Page {page}",
        headings=("Guide", f"Section {number}"),
        text=text,
        position=number,
    )
    chunk = Chunk(
        chunk_id=stable_id(section.section_id, 0, len(text), text),
        section_id=section.section_id,
        page_id=section.page_id,
        url=section.url,
        title=section.title,
        headings=section.headings,
        context=f"Guide › Section {number}",
        text=text,
        char_start=0,
        char_end=len(text),
        token_count=2 * WORDS,
    )
    return section, chunk


def write_one(index_dir: Path, number: int, editions: dict[int, int], store: VectorStore, known: set[bytes]) -> Shard:
    """Write a shard, and store the vectors that are new. editions: page → how often it was edited."""
    pairs = [
        section_and_chunk(page, part, edition) for page, edition in editions.items() for part in range(CHUNKS_PER_PAGE)
    ]
    chunks = [chunk for _, chunk in pairs]
    keys = [vector_key(chunk.embedder_input) for chunk in chunks]
    vectors = np.stack(
        [np.random.default_rng(int.from_bytes(key[:8])).standard_normal(DIM, np.float32) for key in keys]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fresh = [row for row, key in enumerate(keys) if key not in known]
    for first in range(0, len(fresh), STORED_AT_A_TIME):
        rows = fresh[first : first + STORED_AT_A_TIME]
        store.add([keys[row] for row in rows], vectors[rows])
    known.update(keys)
    pages = {
        chunk.page_id: PageInfo(
            page_id=chunk.page_id,
            url=chunk.url.partition("#")[0],
            source="made up",
            title=chunk.title,
            body_sha256=text,
        )
        for chunk, text in zip(chunks, (hashlib.sha256(key).hexdigest() for key in keys), strict=True)
    }
    return write_shard(
        f"{number:05d}",
        chunks_to_table(chunks),
        vectors,
        sections_to_table([section for section, _ in pairs]),
        pages_to_table(list(pages.values())),
        index_dir / "objects",
    )


def make_index(index_dir: Path, chunks: int, shards: int) -> list[str]:
    """Publish three snapshots; return their ids."""
    embedder = HashEmbedder(DIM).info
    store, known = VectorStore(index_dir / "vectors" / embedder.fingerprint[:16], DIM), set[bytes]()
    parts: list[dict[int, int]] = [{} for _ in range(shards)]
    for page in range(chunks // CHUNKS_PER_PAGE):
        parts[shard_number(stable_id(f"https://docs.example.org/{page:07d}.html"), shards)][page] = 0
    written: list[Shard | None] = [None] * shards
    ids: list[str] = []
    for edited in ([], range(0, chunks // CHUNKS_PER_PAGE, 100), [1]):
        for number, part in enumerate(parts):
            touched = part.keys() & set(edited)
            part.update({page: part[page] + 1 for page in touched})
            if touched or written[number] is None:
                written[number] = write_one(index_dir, number, part, store, known)
        manifest = new_manifest(
            index_dir,
            tuple(shard for shard in written if shard),
            parent=ids[-1] if ids else "",
            embedder=embedder,
            chunking={"max_tokens": 256},
            sources=(),
        )
        write_manifest(index_dir, replace(manifest, gate={"checksums": "passed"}))
        publish(index_dir, manifest.snapshot_id)
        ids.append(manifest.snapshot_id)
    return ids


RUN = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.stdout.strip().splitlines()[-1])
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(done.returncode)
"""


def run(data_dir: Path, *arguments: str, index: str = "docs") -> tuple[dict[str, float], str]:
    """Return wall seconds, seconds of all processors and peak memory of one command, and its last line."""
    command = [sys.executable, "build_index.py", *arguments, "--index", index, "--data-dir", str(data_dir)]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN, *command], cwd=ROOT, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    last, used = done.stdout.strip().splitlines()
    cpu_s, peak_mib = map(float, used.split())
    return {"seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2), "peak_mib": round(peak_mib)}, last


def measured(data_dir: Path, ids: list[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    archive = data_dir / "docs.raydex"
    for name, arguments, index in (
        ("list", ["--list"], "docs"),
        ("rollback", ["--rollback"], "docs"),
        ("rollforward", ["--rollforward"], "docs"),
        ("rollback_full", ["--rollback", "--full"], "docs"),
        ("rollforward_again", ["--rollforward"], "docs"),
        ("diff_one_page", ["--diff"], "docs"),
        ("diff_all_shards", ["--diff", ids[0], ids[2]], "docs"),
        ("verify", ["--verify"], "docs"),
        ("gc_dry_run", ["--gc", "--keep-snapshots", "1", "--grace-s", "0", "--dry-run"], "docs"),
        ("gc", ["--gc", "--keep-snapshots", "1", "--grace-s", "0"], "docs"),
        ("export", ["--export", str(archive)], "docs"),
        ("import", ["--import", str(archive)], "copy"),
    ):
        figures[name], last = run(data_dir, *arguments, index=index)
        print(f"{name:<20} {json.dumps(figures[name])}  {last[:100]}", flush=True)
    figures["archive_bytes"] = archive.stat().st_size
    return figures


ROWS = {
    "list": "`--list`",
    "rollback": "`--rollback`",
    "rollforward": "`--rollforward`",
    "rollback_full": "`--rollback --full`",
    "diff_one_page": "`--diff`, one page edited",
    "diff_all_shards": "`--diff`, 600 of 60,000 pages edited: every shard differs",
    "verify": "`--verify`",
    "gc_dry_run": "`--gc --dry-run`",
    "gc": "`--gc`, one snapshot goes",
    "export": "`--export`",
    "import": "`--import`",
}


def doc_rows(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows of the table in docs/lifecycle.md, and what is said of the index."""
    yield f"{result['chunks']:,} chunks ({result['snapshot_bytes'] / 2**30:.2f} GiB, {result['shards']} shards, three"
    for command, what in ROWS.items():
        found = result[command]
        yield f"| {what} | {found['seconds']} | {found['cpu_s']} | {found['peak_mib']} |"
    yield f"`--full` reads every byte first ({result['rollback_full']['seconds']} s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=600_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument(
        "--work", type=Path, default=None, help="Where the index is made; a temporary folder unless set."
    )
    options = parser.parse_args()
    data_dir = Path(tempfile.mkdtemp(prefix="raydex-lifecycle-", dir=options.work))
    try:
        started = time.perf_counter()
        ids = make_index(data_dir / "docs", options.chunks, options.shards)
        size = snapshot_bytes(read_manifest(data_dir / "docs", ids[-1]))
        print(f"three snapshots of {size / 2**30:.2f} GiB made in {time.perf_counter() - started:.0f} s", flush=True)
        figures = measured(data_dir, ids)
        facts = {"chunks": options.chunks, "shards": options.shards, "snapshot_bytes": size, **figures}
        facts["processors"] = os.cpu_count()
        print(json.dumps(facts))
    finally:
        shutil.rmtree(data_dir)


if __name__ == "__main__":
    main()
