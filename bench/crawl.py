"""Fetch and parse against the well-known recipe on the same site, and memory as a site grows.

    python bench/crawl.py [--speed] [--memory]     last line: JSON, kept in bench/results/crawl.json

Speed: python3-doc, where it is installed (about 500 pages), else 500 generated ones, from one server on loopback, one
system after the other. Ours is `build_index.py --plan`: it crawls, parses and cuts into chunks; pages/s are over its
crawl stage, from its own report. The recipe (bench/recipe.py) has its load timed. Neither figure holds the start of
Python, nor of Ray; the walls of the whole commands, given beside them, do.

Memory: the same command over 1,000 and 10,000 small pages. Every 0.2 s the unique set sizes (private pages in
/proc/PID/smaps_rollup) of its whole process tree are added up: driver, workers and actors in full, and of Ray's own
processes (raylet, GCS, dashboard, agents) what they hold beyond those of an idle Ray with the same settings.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT
from bench.memory import idle_ray, mb, watch
from bench.sites import fast_server, generated_site

RESULTS = ROOT / "bench" / "results" / "crawl.json"
PAGES = 500
FEW, MANY = 1_000, 10_000
SMALL_PAGE = {"words": 80, "links": 10}
"""About 3 kB."""

LEAST_RATIO, LARGEST_GROWTH = 5.0, 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="only pages per second")
    parser.add_argument("--memory", action="store_true", help="only memory")
    options = parser.parse_args()
    both = options.speed == options.memory
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if both or options.speed:
        result |= measure_speed()
    if both or options.memory:
        result["memory"] = measure_memory()
    result |= {"processors": os.cpu_count(), "python": platform.python_version()}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    is_fast = result.get("ratio", LEAST_RATIO) >= LEAST_RATIO
    return 0 if is_fast and result.get("memory", {}).get("ratio", 0) < LARGEST_GROWTH else 1


# --- speed ---


def measure_speed() -> dict[str, Any]:
    with _site() as (name, folder), fast_server(folder) as url:
        ours = _our_speed(url)
        recipes = {builder: _recipe_speed(url, builder) for builder in _builders()}
    for system, figures in {"raydex": ours, **recipes}.items():
        print(
            f"{system:<12} {figures['pages']:5} pages {figures['seconds']:7.1f} s {figures['pages_per_s']:8.1f} pages/s"
            f"   whole command {figures['wall_s']:.1f} s"
        )
    recipe = recipes["html.parser"]
    ratio = round(ours["pages_per_s"] / recipe["pages_per_s"], 2)
    return {
        "ratio": ratio,
        "site": name,
        "ours": ours,
        "recipe": recipe,
        "recipe_lxml": recipes.get("lxml"),
    }


@contextmanager
def _site() -> Iterator[tuple[str, Path]]:
    if PYTHON_DOC.is_dir():
        yield "python3-doc", PYTHON_DOC
        return
    with tempfile.TemporaryDirectory(prefix="raydex-site-") as folder:
        generated_site(Path(folder), PAGES)
        yield f"{PAGES} generated pages", Path(folder)


def _builders() -> list[str]:
    return ["html.parser", "lxml"] if importlib.util.find_spec("lxml") else ["html.parser"]


def _our_speed(url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as data_dir:
        line, wall_s = _run(*_plan(url, data_dir))
    pages = line["pages"] + line.get("skipped_pages", 0)  # those with nothing to index are fetched and parsed as well
    seconds = line["timings_s"]["crawl"]
    return {"pages": pages, "seconds": seconds, "pages_per_s": round(pages / seconds, 2), "wall_s": wall_s}


def _recipe_speed(url: str, builder: str) -> dict[str, Any]:
    line, wall_s = _run("bench/recipe.py", url, "--builder", builder)
    return {**line, "wall_s": wall_s}


def _plan(url: str, data_dir: str) -> list[str]:
    settings = ["--plan", "--model", "hash", "--index", "bench", "--data-dir", data_dir, "--max-pages", str(2 * MANY)]
    return ["build_index.py", url, *settings]


def _run(*arguments: str) -> tuple[dict[str, Any], float]:
    """Run a script of the repository; return the JSON of its last line, and its wall seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), round(time.perf_counter() - started, 2)


# --- memory ---


def measure_memory() -> dict[str, Any]:
    idle = idle_ray()
    peaks = {}
    for pages in (FEW, MANY):
        peaks[pages] = _peak(pages, idle["ray"])
        print(f"{pages:6,} pages: {peaks[pages]['own_mb']:7.1f} MB", peaks[pages])
    ratio = round(peaks[MANY]["own_mb"] / peaks[FEW]["own_mb"], 3)
    return {"ratio": ratio, "idle_ray_mb": mb(idle["ray"]), **{f"pages_{pages}": peaks[pages] for pages in peaks}}


def _peak(pages: int, idle_ray: int) -> dict[str, Any]:
    """Return what the command holds at its peak over a site of so many pages, by kind of process."""
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        site, data_dir = Path(work, "site"), str(Path(work, "data"))
        site.mkdir()
        generated_site(site, pages, **SMALL_PAGE)
        with fast_server(site) as url:
            peak, line, wall_s = watch(_plan(url, data_dir))
    if line["pages"] < pages:
        raise ValueError(f"only {line['pages']} of {pages} pages were crawled")
    kinds = {f"{kind}_mb": mb(size) for kind, size in sorted(peak.items())}
    return {"own_mb": mb(peak.total() - idle_ray), **kinds, "pages": line["pages"], "wall_s": wall_s}


if __name__ == "__main__":
    sys.exit(main())
