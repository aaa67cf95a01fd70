"""Pictures of what a user of `serve_index.py --monitoring` sees: Ray's dashboard with our charts, and /ops, under load.

    python bench/dashboard.py --data-dir checkpoints --index docs

Needs Debian's prometheus and chromium, and requirements-render.txt. Writes bench/results/dashboard/*.png.
"""

import argparse
import itertools
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Page, sync_playwright  # noqa: E402 - a script finds the package itself

from bench.local import free_port, stop  # noqa: E402
from raydex.client import RaydexClient  # noqa: E402
from raydex.errors import ServiceError  # noqa: E402
from raydex.render import EXECUTABLES  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "dashboard"
QUESTIONS = ("How do I copy a file?", "parse a date string", "json.dumps", "open", "thread pool", "zzzz nothing at all")
PAGES = {"metrics": "Core Dashboard", "overview": "Cluster Utilization", "serve": "QPS per application"}
"""Pages of Ray's dashboard, and the frame in each that is waited for."""

LOAD_S, PATIENCE_MS = 60.0, 60_000
SIZE: Any = {"width": 1400, "height": 1000}


@contextmanager
def watched_service(data_dir: Path, index: str, token: str) -> Iterator[dict[str, str]]:
    """Run serve_index.py --monitoring; yield what it prints, name → value."""
    flags = ["--data-dir", str(data_dir), "--index", index, "--port", str(free_port()), "--monitoring"]
    process = subprocess.Popen(
        [sys.executable, "serve_index.py", *flags],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
            if line.startswith("prometheus "):
                break
        told = dict(re.findall(r"^(\w+) +(\S+)", "".join(lines), flags=re.M))
        yield told | {"service": told["search"].partition("/search")[0]}
    finally:
        stop(process)


@contextmanager
def loaded(url: str) -> Iterator[None]:
    """Ask questions one after the other, some of them wrong, while the block runs."""
    over = threading.Event()

    def ask() -> None:
        with RaydexClient(url, attempts=1) as client:
            for number, question in enumerate(itertools.cycle(QUESTIONS)):
                if over.is_set():
                    return
                try:
                    client.search(question, k=1 + number % 10, offset=900 if number % 50 == 0 else 0)
                    if number % 40 == 0:
                        client.search(" ")
                except ServiceError:
                    continue  # the wrong ones, on purpose

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def photograph(tab: Page, told: dict[str, str]) -> None:
    """Write the pictures; each is taken when its panel is there."""
    for name, frame in PAGES.items():
        tab.goto(f"{told['dashboard']}/#/{name}")
        tab.frame_locator(f"iframe[title='{frame}']").locator("figure, .quiet").first.wait_for(timeout=PATIENCE_MS)
        tab.screenshot(path=RESULTS / f"ray_{name}.png")
    for name, url in (("ops", f"{told['charts']}?from=now-5m"), ("ops_of_a_replica", f"{told['service']}/ops")):
        tab.goto(url)
        tab.locator("path.line").first.wait_for(timeout=PATIENCE_MS)
        tab.screenshot(path=RESULTS / f"{name}.png", full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT / "checkpoints")
    parser.add_argument("--index", default="docs")
    flags = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(32)
    executable = next(found for name in EXECUTABLES if (found := shutil.which(name)))
    with watched_service(flags.data_dir, flags.index, token) as told, loaded(told["service"]):
        threading.Event().wait(LOAD_S)  # a minute of load, so that there is a line to see
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=executable, chromium_sandbox=os.geteuid() != 0)
            context = browser.new_context(viewport=SIZE)
            context.add_cookies([{"name": "ray-authentication-token", "value": token, "url": told["dashboard"]}])
            photograph(context.new_page(), told)
            browser.close()
    for path in sorted(RESULTS.glob("*.png")):
        print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
