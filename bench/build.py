"""A whole build against the well-known recipe, on the same local site in one run: speed and peak memory.

    python bench/build.py [--pages 150]     last line: JSON, kept in bench/results/build.json

The site: the first pages of python3-doc (by path), closed in itself: links to pages that are left out are cut. Ours is
`build_index.py URL` with its defaults, from nothing to a published snapshot; the recipe is bench/recipe_build.py, to
the saved index. Both walls hold the start of Python and Ray and the loading of the model (compiled beforehand, as a
second build finds it). Characters are those of the text that each system indexes: the recipe's hold menus and footers.

ratio: pages/s of ours ÷ theirs, over the whole wall. Memory: see bench/memory.py; Ray's own processes included.
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT
from bench.memory import mb, watch
from bench.sites import fast_server
from raydex.embed import load_embedder
from raydex.snapshot import current_id, read_manifest

RESULTS = ROOT / "bench" / "results" / "build.json"
LEAST_RATIO = 5.0
_LINK = re.compile(rb'(<a\b[^>]*?)\shref="([^"#]*)(#[^"]*)?"')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=150)
    options = parser.parse_args()
    load_embedder("all-MiniLM-L6-v2")  # compiled once per machine
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        closed_site(PYTHON_DOC, Path(work, "site"), options.pages)
        with fast_server(Path(work, "site")) as url:
            ours = _ours(url, Path(work, "data"))
            recipe = _recipe(url, Path(work, "recipe"))
    for name, of in {"raydex": ours, "recipe": recipe}.items():
        print(
            f"{name:<8} {of['pages']:5} pages {of['chunks']:6} chunks {of['wall_s']:7.1f} s {of['pages_per_s']:7.2f} "
            f"pages/s {of['characters_per_s']:9.0f} characters/s   peak {of['peak_mb']:7.1f} MB"
        )
    result = {
        "ratio": round(ours["pages_per_s"] / recipe["pages_per_s"], 2),
        "memory_ratio": round(ours["peak_mb"] / recipe["peak_mb"], 3),
        "ours": ours,
        "recipe": recipe,
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0 if result["ratio"] >= LEAST_RATIO and result["memory_ratio"] < 1 else 1


def closed_site(source: Path, folder: Path, pages: int) -> None:
    """Copy the first pages of a site, and an index of them; a link to a page that is left out loses its address."""
    paths = [path for path in sorted(source.rglob("*.html")) if path.name != "index.html"][: pages - 1]
    names = {path.relative_to(source).as_posix() for path in paths}
    for path in paths:
        name = path.relative_to(source)

        def kept(link: re.Match[bytes], name: Path = name) -> bytes:
            target = os.path.normpath(name.parent / link[2].decode()) if link[2] else name.as_posix()
            return link[0] if target in names else link[1]

        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_LINK.sub(kept, path.read_bytes()))
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in sorted(names))
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Contents</title></head>'
    (folder / "index.html").write_text(f"{head}<body><main><h1>Contents</h1><ul>{links}</ul></main></body></html>")


def _ours(url: str, data_dir: Path) -> dict[str, Any]:
    peak, line, wall_s = watch(["build_index.py", url, "--index", "bench", "--data-dir", str(data_dir)])
    index_dir = data_dir / "bench"
    manifest = read_manifest(index_dir, current_id(index_dir))
    paths = [index_dir / "objects" / shard.objects["sections"].sha256 for shard in manifest.shards]
    characters = sum(pc.sum(pc.utf8_length(pq.read_table(path, columns=["text"])["text"])).as_py() for path in paths)
    pages = line["pages"] + line["skipped_pages"]  # those with nothing to index are fetched and read as well
    return _figures(pages, line["chunks"], characters, wall_s, mb(peak.total())) | {"stages": line["timings_s"]}


def _recipe(url: str, folder: Path) -> dict[str, Any]:
    peak, line, wall_s = watch(["bench/recipe_build.py", url, str(folder)])
    return _figures(line["pages"], line["chunks"], line["characters"], wall_s, mb(peak.total()))


def _figures(pages: int, chunks: int, characters: int, wall_s: float, peak_mb: float) -> dict[str, Any]:
    return {
        "pages": pages,
        "chunks": chunks,
        "characters": characters,
        "wall_s": wall_s,
        "pages_per_s": round(pages / wall_s, 3),
        "characters_per_s": round(characters / wall_s, 1),
        "peak_mb": peak_mb,
    }


if __name__ == "__main__":
    sys.exit(main())
