"""Measures how well judged queries are answered, through crawl, build and the running service.

    python bench/retrieval.py [--queries ../eval/python/queries.jsonl] [--data-dir FOLDER] [--runs FOLDER] [--pin]

Always on the small manual of the tests (tests/tidewater.py); with --queries, on Debian's python3-doc as well (needs
apt-get install python3.11-doc; 5 minutes on 2 cores). Figures go to bench/results/retrieval.json and are compared with
bench/expected.toml: exit 1 when one is further from it than the tolerance, on either side, so that what got better is
pinned too (--pin) and cannot be lost unseen. The set behind --queries is not part of this repository; a meta.json
beside it may list, under "remove", the pages to leave out because its questions came from them.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT, served, service
from tests.tidewater import QUERIES, manual

RESULTS = ROOT / "bench" / "results" / "retrieval.json"
EXPECTED = ROOT / "bench" / "expected.toml"
MODEL = "all-MiniLM-L6-v2"
PINNED = ("page-hit@1", "pages-hit@5", "page-nDCG@10", "section-hit@1", "section-hit@5", "section-nDCG@10")
TOLERANCE = 0.02
"""One query of 64 is 0.016; bfloat16 differs by less between processors."""

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""kind → metric → mean, low, high, count"""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A site and the queries on it. base: the address that its hits cite."""

    name: str
    queries: Path
    base: str

    def write_site(self, folder: Path) -> None:
        if self.queries == QUERIES:
            for name, html in manual().items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(html, encoding="utf-8")
            return
        described = self.queries.with_name("meta.json")
        removed = json.loads(described.read_text(encoding="utf-8"))["remove"] if described.exists() else []
        for path in PYTHON_DOC.rglob("*"):
            name = path.relative_to(PYTHON_DOC).as_posix()
            if path.is_file() and not any(re.search(pattern, name) for pattern in removed):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)


def measure(judged: Judged, work: Path, data_dir: Path, model: str, runs: Path | None) -> dict[str, Any]:
    """Crawl, build, serve and ask; return what the build and the evaluation say of themselves."""
    folder, sources = work / "site", work / "sources.toml"
    judged.write_site(folder)
    with served(folder) as url:
        sources.write_text(
            f'[[source]]\nname = "{judged.name}"\nseeds = ["{url}index.html"]\npublic_url = "{judged.base}"\n'
        )
        index = ("--index", judged.name, "--data-dir", str(data_dir))
        built = last_line("build_index.py", "--sources", str(sources), "--model", model, *index)
    asking = ["--evaluate", str(judged.queries), "--base", judged.base]
    asking += ["--run", str(runs / f"{judged.name}.run")] if runs else []
    with service(judged.name, data_dir) as address:
        found = last_line("test_client.py", *asking, "--url", address)
    kept = ("pages", "sections", "chunks", "bytes")
    return {
        **{key: built[key] for key in kept},
        "queries": found["queries"],
        "k": found["k"],
        "figures": found["figures"],
    }


def last_line(*arguments: str) -> dict[str, Any]:
    """Run a script of the repository, show its stdout, return the JSON object at its end."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    print(*shown, sep="\n", flush=True)
    line: dict[str, Any] = json.loads(last)
    return line


def deviations(name: str, figures: Figures) -> list[str]:
    """Return what differs from bench/expected.toml by more than its tolerance, a line each."""
    expected = tomllib.loads(EXPECTED.read_text(encoding="utf-8")).get(name)
    if expected is None:
        return [f"{name}: nothing is pinned in {EXPECTED.name}; run with --pin"]
    return [
        f"{name}: {metric} is {found:.3f}, pinned is {pinned:.3f} ± {expected['tolerance']} (at {expected['commit']})"
        for metric, pinned in expected["means"].items()
        if abs((found := figures["all"][metric]["mean"]) - pinned) > expected["tolerance"]
    ]


def pin(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the means as what is expected from now on; sets that were not measured stay as they are."""
    expected = tomllib.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    for name, result in results.items():
        means = {metric: round(result["figures"]["all"][metric]["mean"], 4) for metric in PINNED}
        expected[name] = {"commit": commit, "tolerance": TOLERANCE, "means": means}
    head = "# What bench/retrieval.py and tests/test_retrieval.py expect, measured at `commit`; written by --pin.\n"
    EXPECTED.write_text(head + "".join(_toml(name, of) for name, of in sorted(expected.items())), encoding="utf-8")


def _toml(name: str, of: Mapping[str, Any]) -> str:
    means = "".join(f'"{metric}" = {mean}\n' for metric, mean in of["means"].items())
    return f'\n[{name}]\ncommit = "{of["commit"]}"\ntolerance = {of["tolerance"]}\n\n[{name}.means]\n{means}'


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=Path, help="Judged queries on the Python documentation (.jsonl).")
    parser.add_argument("--model", default=MODEL, help=f"Embedding model. [default: {MODEL}]")
    parser.add_argument(
        "--data-dir", type=Path, help="Folder to keep the indexes in: a second run embeds nothing anew."
    )
    parser.add_argument("--runs", type=Path, help="Folder to keep the run files in.")
    parser.add_argument("--pin", action="store_true", help="Expect from now on what is measured.")
    return parser


def main() -> int:
    options = argument_parser().parse_args()
    sets = [Judged(name="tidewater", queries=QUERIES, base="https://tidewater.example.org/")]
    if options.queries:
        queries = options.queries.resolve()
        sets.append(Judged(name="python-docs", queries=queries, base="https://docs.python.org/3.11/"))
    if options.runs:
        options.runs.mkdir(parents=True, exist_ok=True)
    results = {}
    runs = options.runs and options.runs.resolve()
    for judged in sets:
        with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
            data_dir = (options.data_dir or Path(work) / "checkpoints").resolve()
            results[judged.name] = measure(judged, Path(work), data_dir, options.model, runs)
    if options.pin:
        pin(results)
    if options.model == MODEL:  # the one that is pinned, and the README speaks of
        before = json.loads(RESULTS.read_text(encoding="utf-8"))["sets"] if RESULTS.exists() else {}
        whole = {"sets": before | results, "model": MODEL, "processors": os.cpu_count()}
        RESULTS.write_text(json.dumps({**whole, "python": platform.python_version()}, indent=1) + "\n", "utf-8")
    found = [line for name, result in results.items() for line in deviations(name, result["figures"])]
    print(*found, json.dumps(results), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
