"""serve_index.py --monitoring as a user starts it: Ray's own dashboard, in a real browser, shows our charts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raydex.embed import HashEmbedder
from raydex.render import EXECUTABLES
from tests.processes import command_line, descendants, free_port, is_running
from tests.snapshots import make_snapshot
from tests.waiting import eventually

playwright = pytest.importorskip("playwright.sync_api", reason="needs requirements-render.txt")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not any(map(shutil.which, EXECUTABLES)), reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus: apt-get install prometheus"),
]

ROOT = Path(__file__).parents[1]
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
FIGURES_EVERY_MS = "2000"
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What serve_index.py --monitoring prints: name → value. It is stopped then, and nothing of it may be left."""
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", {"https://docs.example.org/a.html#b": "a file"}, HashEmbedder())
    question = {"id": "q", "query": "a file", "gold": ["https://docs.example.org/a.html#b"]}
    (queries := data_dir / "queries.jsonl").write_text(json.dumps(question))
    port = free_port()
    flags = [
        "--data-dir",
        str(data_dir),
        "--port",
        str(port),
        "--replicas",
        "1",
        "--monitoring",
        "--scrape-interval-s",
        "1",
        "--canary-queries",
        str(queries),
        "--canary-interval-s",
        "1",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RAY_metrics_report_interval_ms": FIGURES_EVERY_MS}
    with subprocess.Popen(
        [sys.executable, ROOT / "serve_index.py", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as server:
        assert server.stdout
        assert server.stderr
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("prometheus "):
                break
        told = dict(re.findall(r"^(\w+) +(\S+)", "".join(lines), flags=re.M))
        assert "prometheus" in told, server.stderr.read()
        started = descendants(server.pid)
        assert any("raydex_monitoring" in command_line(pid) for pid in started)
        yield told | {"search": f"http://127.0.0.1:{port}/search?query=file"}
        server.send_signal(signal.SIGTERM)
        rest, errors = server.communicate(timeout=60)
        assert (server.returncode, errors) == (0, ""), rest + errors
        eventually(lambda: not any(is_running(pid) for pid in started), within_s=30)


@pytest.fixture(scope="module")
def tab(shown: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser's page that Ray's dashboard takes for one of a person who gave the token."""
    executable = next(found for name in EXECUTABLES if (found := shutil.which(name)))
    cookie = {"name": "ray-authentication-token", "value": os.environ["RAY_AUTH_TOKEN"], "url": shown["dashboard"]}
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=executable, chromium_sandbox=os.geteuid() != 0, args=list(QUIET)
        )
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.add_cookies([cookie])
        yield context.new_page()
        browser.close()


@contextmanager
def searches(url: str) -> Iterator[None]:
    """Search again and again until the block ends: a rate needs two looks, with searches in between."""
    over = threading.Event()

    def search() -> None:
        while not over.wait(0.1):
            with urllib.request.urlopen(url, timeout=30) as response:
                response.read()

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_the_metrics_page_of_rays_dashboard_shows_our_panels_above_rays(shown, tab):
    tab.goto(f"{shown['dashboard']}/#/metrics")
    frame = tab.frame_locator("iframe[title='Core Dashboard']")
    ours = frame.locator("section", has_text="Seconds of a search").first
    with searches(shown["search"]):
        ours.locator("path.line").first.wait_for(state="attached", timeout=PATIENCE_MS)
    assert frame.get_by_text("This is not Grafana").is_visible()
    frame.locator("section", has_text="Node Count").first.wait_for(timeout=PATIENCE_MS)


def test_the_overview_and_serve_pages_of_rays_dashboard_embed_single_panels(shown, tab):
    tab.goto(f"{shown['dashboard']}/#/overview")
    utilization = tab.frame_locator("iframe[title='Cluster Utilization']")
    utilization.locator("path.line").first.wait_for(state="attached", timeout=PATIENCE_MS)
    tab.goto(f"{shown['dashboard']}/#/serve")
    requests = tab.frame_locator("iframe[title='QPS per application']")
    requests.get_by_text("This is not Grafana").wait_for(timeout=PATIENCE_MS)


def test_the_page_of_key_series_is_drawn_without_loading_anything(shown, tab):
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(shown["charts"])
    tab.locator("path.line").first.wait_for(state="attached", timeout=PATIENCE_MS)
    assert asked == [shown["charts"]]
    boxes = tab.locator("svg").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert min(boxes) > 200
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_service_itself_draws_its_figures_and_those_of_the_canary(shown, tab):
    tab.goto(f"{shown['search'].partition('/search')[0]}/ops")
    canary = tab.locator("section", has_text="Canary: how well judged queries are answered")
    canary.locator("path.line").first.wait_for(state="attached", timeout=PATIENCE_MS)
    assert canary.get_by_text("recall@10", exact=True).is_visible()
    assert canary.get_by_text("MRR@10", exact=True).is_visible()


def test_prometheus_listens_on_loopback_alone_and_keeps_its_data_in_the_session(shown):
    assert shown["prometheus"].startswith("http://127.0.0.1:")
    session = Path(shown["metrics"]).parent
    assert (session / "raydex_monitoring" / "data").is_dir()
