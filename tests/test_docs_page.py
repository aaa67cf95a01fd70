"""The page /docs in a real browser, under its own policy; the files from elsewhere are played."""

import shutil
from pathlib import Path

import pytest

from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.render import EXECUTABLES
from tests.serving import serving
from tests.snapshots import make_snapshot

CHROMIUM = next(filter(None, map(shutil.which, EXECUTABLES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SWAGGER = """
window.SwaggerUIBundle = (options) => {
  const style = document.createElement("style");
  style.textContent = "#swagger-ui { color: rgb(1, 2, 3) }";
  document.head.append(style);
  fetch(options.url).then(r => r.json()).then(d => { console.log("read " + d.info.title) });
};
window.SwaggerUIBundle.presets = {};
"""
INTRUDER = (
    "const s = document.createElement('script'); s.textContent = 'window.intruded = true'; document.body.append(s)"
)


def test_the_docs_page_works_under_its_policy_and_a_foreign_script_does_not(tmp_path: Path):
    from playwright.sync_api import sync_playwright

    make_snapshot(tmp_path / "docs", {"https://docs.example.org/io.html#a": "Open a file."}, HashEmbedder())
    with serving(ServeConfig(data_dir=tmp_path)) as url, sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.route(lambda address: not address.startswith(url), lambda route: route.fulfill(status=404))
        page.route("**/*.js", lambda route: route.fulfill(content_type="text/javascript", body=SWAGGER))
        with page.expect_console_message(lambda message: message.text == "read Raydex"):
            page.goto(f"{url}/docs")
        assert page.evaluate("getComputedStyle(document.querySelector('#swagger-ui')).color") == "rgb(1, 2, 3)"
        assert not [text for text in told if "Content Security Policy" in text]
        page.evaluate(INTRUDER)
        assert page.evaluate("window.intruded") is None
        assert [text for text in told if "Content Security Policy" in text]
        browser.close()
