"""What a rebuild costs, beside the first build: nothing changed, and a sentence added to three pages. About 3 minutes.

    python bench/incremental.py [--pages 500] [--model all-MiniLM-L6-v2]      needs: apt-get install python3-doc

Python's own documentation on loopback, the first addresses from its start page: of 500, 471 are pages (21,081 chunks
when it was last run). Each build is a run of build_index.py, so a start of Python and Ray is part of each. The last
line is one JSON object, also written to bench/results/incremental.json: `ratio` is the time of the rebuild without a
change over that of the first build.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT, served, unslowed

RESULTS = ROOT / "bench" / "results" / "incremental.json"
MODEL = "all-MiniLM-L6-v2"
LONGEST_REBUILD, MOST_EMBEDDED, PLAN_OFF = 0.1, 0.015, 0.1
"""Targets: time without a change over the first, share of the chunks embedded after the edit, error of --plan."""


def run(url: str, data_dir: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "build_index.py", url, "--index", "docs", "--data-dir", str(data_dir), *more]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


EDITED = ("tutorial/index.html", "extending/index.html", "library/index.html")
"""Pages that the start page leads to."""


def edit(folder: Path) -> None:
    """Add a sentence to the first paragraph of each page."""
    for name in EDITED:
        head, main, body = (folder / name).read_text(encoding="utf-8").partition('role="main"')
        body = body.replace("</p>", " A sentence that is new.</p>", 1)
        (folder / name).write_text(head + main + body, encoding="utf-8")


def measure(pages: int, model: str) -> dict[str, Any]:
    settings = ("--max-pages", str(pages), "--model", model)
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        folder = Path(shutil.copytree(PYTHON_DOC, Path(work) / "site"))
        with served(folder) as url:
            first, same = (run(url, Path(work), *settings) for _ in range(2))
            edit(folder)
            plan = run(url, Path(work), *settings, "--plan")["plan"]
            changed = run(url, Path(work), *settings)
    return {"first": first, "same": same, "plan": plan, "changed": changed}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    first, same, changed, plan = (found[name] for name in ("first", "same", "changed", "plan"))
    seconds = {name: found[name]["timings_s"]["total"] for name in ("first", "same", "changed")}
    return {
        "ratio": round(seconds["same"] / seconds["first"], 4),
        "ratio_after_edit": round(seconds["changed"] / seconds["first"], 4),
        "seconds": seconds,
        "pages": first["pages"],
        "chunks": first["chunks"],
        "embedded": {name: found[name]["embedded_chunks"] for name in seconds},
        "embedded_share_after_edit": round(changed["embedded_chunks"] / changed["chunks"], 5),
        "pages_edited": len(EDITED),
        "planned": plan["chunks_to_embed"],
        "plan_error": round(abs(plan["chunks_to_embed"] - changed["embedded_chunks"]) / changed["embedded_chunks"], 4),
        "seconds_saved": {name: found[name]["seconds_saved"] for name in ("same", "changed")},
        "same_digest": first["content_digest"] == same["content_digest"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=500, help="Most addresses to fetch. [default: 500]")
    parser.add_argument("--model", default=MODEL, help=f"Embedding model. [default: {MODEL}]")
    options = parser.parse_args()
    unslowed()
    found = summary(measure(options.pages, options.model))
    result = {**found, "model": options.model, "processors": os.cpu_count(), "python": platform.python_version()}
    if options.model == MODEL:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    is_met = (
        found["ratio"] < LONGEST_REBUILD
        and found["embedded"]["same"] == 0
        and found["embedded_share_after_edit"] <= MOST_EMBEDDED
        and found["plan_error"] <= PLAN_OFF
        and found["same_digest"]
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
