"""The renderer: scripts run, their data come from the crawl's fetcher alone, and nothing else leaves the browser."""

import asyncio
import select
import shutil
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from raydex.errors import ConfigError, FetchError, TooLarge
from raydex.render import EXECUTABLES, Renderer

BrowserError = pytest.importorskip("playwright.async_api", reason="needs requirements-render.txt").Error
pytestmark = pytest.mark.skipif(not any(map(shutil.which, EXECUTABLES)), reason="no Chromium on this machine")

URL = "http://docs.example.org/guide/"
HTML = "text/html; charset=utf-8"
BUNDLE = b"""
const show = html => { document.getElementById("app").innerHTML = html };
const pages = await (await fetch("../pages.json")).json();
show("<h1>" + pages.title + "</h1><p>" + pages.text + "</p>");
"""
SHELL = b'<title>Docs</title><div id="app"></div><script type="module" src="/bundle.js"></script>'
PAGES = b'{"title": "Caf\xc3\xa9", "text": "Made by a script."}'


@dataclass(frozen=True)
class Resource:
    body: bytes
    content_type: str = "text/javascript"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Site:
    """What the crawl's fetcher may reach: path → resource. asked: the URLs in order of arrival."""

    def __init__(self, resources: Mapping[str, Resource] | None = None) -> None:
        self.resources = resources or {}
        self.asked: list[str] = []

    async def fetch(self, url):
        self.asked.append(url)
        path = url.removeprefix("http://docs.example.org")
        if path not in self.resources:
            raise FetchError(url, "address_refused")
        return self.resources[path]


def render(html, site, *, timeout_s=20.0, max_body_bytes=10_000_000):
    async def rendered():
        async with Renderer(site.fetch, timeout_s=timeout_s, max_body_bytes=max_body_bytes) as renderer:
            return (await renderer.render(URL, html, HTML)).decode()

    return asyncio.run(rendered())


def test_a_page_whose_content_a_script_bundle_loads_comes_back_with_its_content():
    site = Site({"/bundle.js": Resource(BUNDLE), "/pages.json": Resource(PAGES, "application/json")})
    html = render(SHELL, site)
    assert "<title>Docs</title>" in html
    assert "<h1>Café</h1><p>Made by a script.</p>" in html
    assert site.asked == ["http://docs.example.org/bundle.js", "http://docs.example.org/pages.json"]


def test_a_resource_that_the_crawl_refuses_leaves_the_page_as_it_is():
    assert '<div id="app"></div>' in render(SHELL, Site())


def test_pictures_frames_posts_and_other_pages_are_not_even_asked_for():
    site = Site()
    html = b"""<img src=/a.png><iframe src=/frame.html></iframe><video src=/a.mp4></video><link rel=icon href=/i.png>
    <style>@font-face { font-family: F; src: url(/f.woff2) } p { font-family: F; background: url(/b.png) }</style>
    <p>Text
    <script>
      fetch("/post", {method: "POST", body: "x"}).catch(() => 0);
      navigator.sendBeacon("/beacon");
      window.open("/window");
      new EventSource("/events");
      location = "/elsewhere";
    </script>"""
    assert "<p>Text" in render(html, site)
    assert site.asked == []


def test_shadow_trees_stand_where_they_are_seen():
    html = b"""<my-note><b>slotted</b></my-note><script>
      customElements.define("my-note", class extends HTMLElement {
        connectedCallback() { this.attachShadow({mode: "open"}).innerHTML = "<h2>Note</h2><p><slot></slot></p>" }
      })</script>"""
    assert "<my-note><h2>Note</h2><p><b>slotted</b></p></my-note>" in render(html, Site())


def test_dialogs_do_not_hold_a_page_up():
    html = (
        b"<p id=x></p><script>alert('hello'); x.textContent = confirm('sure?') || prompt('why?') || 'went on'</script>"
    )
    assert '<p id="x">went on</p>' in render(html, Site())


def test_nothing_that_a_page_tries_opens_a_connection():
    with socket.create_server(("127.0.0.2", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.2", 0))
        page = ESCAPE.replace("@TCP", f"127.0.0.2:{tcp.getsockname()[1]}")
        page = page.replace("@UDP", f"127.0.0.2:{udp.getsockname()[1]}")
        worker = ESCAPE_WORKER.replace("@TCP", f"127.0.0.2:{tcp.getsockname()[1]}")
        html = render(page.encode(), Site({"/worker.js": Resource(worker.encode())}), timeout_s=6.0)
        assert '<p id="x">tried everything</p>' in html
        assert select.select([tcp, udp], [], [], 0)[0] == []


ESCAPE_WORKER = """
new WebSocket("ws://@TCP/worker-socket");
fetch("http://@TCP/worker").catch(() => 0).then(() => postMessage("done"));
"""
ESCAPE = """<link rel=preconnect href="http://@TCP/"><link rel=dns-prefetch href="http://@TCP/">
<link rel=prefetch href="http://@TCP/prefetch"><link rel=preload as=image href="http://@TCP/preload">
<script type=speculationrules>{"prefetch": [{"urls": ["http://@TCP/speculate"]}],
"prerender": [{"urls": ["http://@TCP/prerender"]}]}</script>
<img src="http://@TCP/img"><iframe src="http://@TCP/iframe"></iframe><script src="http://@TCP/script"></script>
<link rel=stylesheet href="http://@TCP/style"><object data="http://@TCP/object"></object><p id=x></p>
<a id=ping href="#" ping="http://@TCP/ping">a</a>
<form id=form target=frame method=post action="http://@TCP/form"></form><iframe name=frame></iframe>
<script>
const attempts = [
  () => fetch("http://@TCP/fetch").catch(() => 0),
  () => fetch("http://@TCP/keepalive", {method: "POST", mode: "no-cors", keepalive: true}).catch(() => 0),
  () => new WebSocket("ws://@TCP/socket"),
  () => new EventSource("http://@TCP/events"),
  () => navigator.sendBeacon("http://@TCP/beacon"),
  () => new WebTransport("https://@TCP/transport").ready.catch(() => 0),
  () => navigator.serviceWorker.register("/worker.js").catch(() => 0),
  () => new Promise(done => { new Worker("/worker.js").onmessage = done }),
  () => new SharedWorker("/worker.js"),
  () => {
    const frame = document.body.appendChild(document.createElement("iframe"));
    const peer = new (frame.contentWindow.RTCPeerConnection ?? RTCPeerConnection)({
      iceServers: [{urls: "stun:@UDP"}, {urls: "turn:@TCP?transport=tcp", username: "a", credential: "b"}]});
    peer.createDataChannel("x");
    return peer.createOffer().then(offer => peer.setLocalDescription(offer));
  },
  () => document.getElementById("ping").click(),
  () => document.getElementById("form").submit(),
  () => window.open("http://@TCP/window"),
  () => { location = "http://@TCP/location" },
];
for (const attempt of attempts) {
  try { attempt() } catch (error) { console.log(error) }
}
setTimeout(() => document.getElementById("x").textContent = "tried everything", 300);
</script>"""


def test_a_script_that_never_ends_is_a_timeout_and_the_next_page_is_rendered():
    async def both():
        async with Renderer(Site().fetch, timeout_s=3.0) as renderer:
            with pytest.raises(FetchError) as caught:
                await renderer.render(URL, b"<script>while (true) {}</script>", HTML)
            return caught.value.reason, await renderer.render(URL, b"<p>Next.", HTML)

    reason, html = asyncio.run(both())
    assert reason == "timeout"
    assert b"<p>Next.</p>" in html


def test_a_page_that_never_falls_silent_is_taken_as_it_is():
    html = b"<p id=x></p><script>setInterval(() => fetch('/poll').catch(() => x.textContent = 'polled'), 100)</script>"
    assert '<p id="x">polled</p>' in render(html, Site(), timeout_s=5.0)


def test_a_resource_that_never_comes_is_given_up_with_the_page():
    class Stuck(Site):
        async def fetch(self, url):
            self.asked.append(url)
            await asyncio.Event().wait()

    html = render(b"<p>Before.</p><script>fetch('/never')</script>", Stuck(), timeout_s=3.0)
    assert "<p>Before.</p>" in html


def test_a_browser_that_dies_fails_the_page_and_is_replaced():
    async def crash(url):
        session = await (await renderer._running_browser()).new_browser_cdp_session()
        with suppress(BrowserError):
            await session.send("Browser.crash")
        raise FetchError(url, "address_refused")

    async def both():
        async with renderer:
            with pytest.raises(FetchError) as caught:
                await renderer.render(URL, b"<script src=/crash.js></script>", HTML)
            return caught.value.reason, await renderer.render(URL, b"<p>Next.", HTML)

    renderer = Renderer(crash, timeout_s=20.0)
    reason, html = asyncio.run(both())
    assert reason == "render_failed"
    assert b"<p>Next.</p>" in html


def test_a_document_that_grows_beyond_the_limit_is_too_large():
    with pytest.raises(TooLarge):
        render(b"<body><script>document.body.append('x'.repeat(20000))</script>", Site(), max_body_bytes=10_000)


def test_a_missing_or_broken_browser_is_a_setting_to_mend(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"requirements-render\.txt"):
        render(b"", Site())
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/false\n")
    broken.chmod(0o755)
    with pytest.raises(ConfigError, match="does not start"):
        render(b"", Site())


def test_missing_playwright_is_a_setting_to_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "playwright.async_api", None)
    with pytest.raises(ConfigError, match=r"requirements-render\.txt"):
        render(b"", Site())
