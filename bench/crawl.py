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
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT, stop
from bench.sites import fast_server, generated_site
from tests.processes import command_line, descendants

RESULTS = ROOT / "bench" / "results" / "crawl.json"
PAGES = 500
FEW, MANY = 1_000, 10_000
SMALL_PAGE = {"words": 80, "links": 10}
"""About 3 kB."""

LEAST_RATIO, LARGEST_GROWTH = 5.0, 1.5

SAMPLE_S = 0.2
IDLE_S = 10
"""Until a new Ray's dashboard and agents have loaded all they load."""

IDLE_RAY = "from raydex.cluster import ray_running\nwith ray_running(''):\n    print('ready', flush=True)\n    input()"
RAY_PROGRAMS = (
    "raylet/raylet",
    "gcs/gcs_server",
    "dashboard/dashboard.py",
    "dashboard/agent.py",
    "runtime_env/agent/main.py",
    "_private/log_monitor.py",
    "autoscaler/_private/monitor.py",
)
"""How the programs that Ray runs beside its workers are called on their command lines."""


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
    idle = _idle_ray()
    peaks = {}
    for pages in (FEW, MANY):
        peaks[pages] = _peak(pages, idle["ray"])
        print(f"{pages:6,} pages: {peaks[pages]['own_mb']:7.1f} MB", peaks[pages])
    ratio = round(peaks[MANY]["own_mb"] / peaks[FEW]["own_mb"], 3)
    return {"ratio": ratio, "idle_ray_mb": _mb(idle["ray"]), **{f"pages_{pages}": peaks[pages] for pages in peaks}}


def _idle_ray() -> Counter[str]:
    """Return the sizes of a Ray without work, by kind of process, when it has settled."""
    command = [sys.executable, "-c", IDLE_RAY]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise subprocess.CalledProcessError(process.wait(), "an idle Ray")
            time.sleep(IDLE_S)
            return _sizes(process.pid)
        finally:
            process.communicate("\n")


def _peak(pages: int, idle_ray: int) -> dict[str, Any]:
    """Return what the command holds at its peak over a site of so many pages, by kind of process."""
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        site, data_dir = Path(work, "site"), str(Path(work, "data"))
        site.mkdir()
        generated_site(site, pages, **SMALL_PAGE)
        with fast_server(site) as url:
            peak, line, wall_s = _watch(_plan(url, data_dir))
    if line["pages"] < pages:
        raise ValueError(f"only {line['pages']} of {pages} pages were crawled")
    kinds = {f"{kind}_mb": _mb(size) for kind, size in sorted(peak.items())}
    return {"own_mb": _mb(peak.total() - idle_ray), **kinds, "pages": line["pages"], "wall_s": wall_s}


def _watch(arguments: list[str]) -> tuple[Counter[str], dict[str, Any], float]:
    """Run a script of the repository; return its largest sample, the JSON of its last line, its wall seconds."""
    started, peak = time.perf_counter(), Counter[str]()
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while process.poll() is None:
            peak = max(peak, _sizes(process.pid), key=Counter.total)
            time.sleep(SAMPLE_S)
    finally:
        stop(process)
    out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak, json.loads(out.splitlines()[-1]), round(time.perf_counter() - started, 2)


def _sizes(driver: int) -> Counter[str]:
    """Return bytes held by the tree below and with the driver: of itself, Ray's own programs, and the workers."""
    sizes: Counter[str] = Counter(driver=_unique_bytes(driver))
    for pid in descendants(driver):
        line = command_line(pid)
        is_worker = "ray::" in line or "default_worker.py" in line
        sizes["ray" if not is_worker and any(name in line for name in RAY_PROGRAMS) else "workers"] += _unique_bytes(
            pid
        )
    return sizes


def _unique_bytes(pid: int) -> int:
    """Return the memory that would be free if this process ended; 0 when it has."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
