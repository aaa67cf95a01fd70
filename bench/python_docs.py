"""Measures the whole flow on Debian's python3-doc (about 500 pages) and writes bench/results/python_docs.json.

    python bench/python_docs.py [--model hash]     needs: apt-get install python3-doc; about 20 minutes on 2 cores

1. build from nothing · 2. build again, nothing changed · 3. serve, ask three questions, 1, 8 and 32 clients at a time.
The last line is one JSON object; README.md quotes it, and tests/test_docs.py compares.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT, served, service, unslowed

RESULTS = ROOT / "bench" / "results" / "python_docs.json"
INDEX = "python3-doc"
MODEL = "all-MiniLM-L6-v2"
QUESTIONS = {
    "How do I copy a file?": ("library/shutil.html", "faq/library.html"),
    "parse a date string": ("library/datetime.html", "library/time.html", "library/email.utils.html"),
    "what does the walrus operator do": ("reference/expressions.html", "whatsnew/3.8.html", "faq/design.html"),
}
"""Question → pages that answer it: one of them must be the first hit's page."""
LOADS = ((1, 200), (8, 400), (32, 400))


def run(*arguments: str) -> str:
    """Run a script of the repository; return its stdout, show its stderr."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def build(sources: Path, data_dir: Path, model: str) -> dict[str, Any]:
    out = run(
        "build_index.py", "--sources", str(sources), "--index", INDEX, "--data-dir", str(data_dir), "--model", model
    )
    line: dict[str, Any] = json.loads(out.splitlines()[-1])
    return line


def ask(address: str) -> dict[str, dict[str, Any]]:
    """Return, for each question, the first hit and whether it lies on a right page."""
    answers = {}
    for question, right in QUESTIONS.items():
        best = json.loads(run("test_client.py", question, "--url", address, "--json"))["results"][0]
        page = best["source"].partition("#")[0]
        answers[question] = {"score": best["score"], "source": best["source"], "right": page.endswith(right)}
    return answers


def measure(model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work, served(PYTHON_DOC) as url:
        sources = Path(work) / "sources.toml"
        sources.write_text(
            f'[[source]]\nname = "python"\nseeds = ["{url}"]\npublic_url = "https://docs.python.org/3.11/"\n'
        )
        data_dir = Path(work) / "checkpoints"
        first, second = build(sources, data_dir, model), build(sources, data_dir, model)
        with service(INDEX, data_dir) as address:
            answers = ask(address)
            loads = {
                str(clients): json.loads(
                    run("test_client.py", "--load", str(n), "--concurrency", str(clients), "--url", address, "--json")
                )
                for clients, n in LOADS
            }
    return {"build": first, "rebuild": second, "answers": answers, "load": loads}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help=f"Embedding model. [default: {MODEL}]")
    model = parser.parse_args().model
    unslowed()
    result = {**measure(model), "model": model, "processors": os.cpu_count(), "python": platform.python_version()}
    if model == MODEL:  # the one the README speaks of
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0 if all(answer["right"] for answer in result["answers"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
