"""Run the scripts of a page in a browser that cannot reach the network.

    URL, HTML → HTML after its scripts ran        only home of playwright, which `--render` needs

Every request of the page is answered by `fetch`, the guarded fetcher of the crawl, or refused. Whatever a browser does
beside that (preconnect, WebRTC, WebTransport, workers) meets a proxy and a resolver that lead nowhere.

async with Renderer(fetch, timeout_s=20) as renderer:
    body = await renderer.render(page.crawl_url, page.body, page.content_type)
"""

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from raydex.errors import ConfigError, FetchError, TooLarge

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Request, Route, WebSocketRoute

logger = logging.getLogger(__name__)

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
IDLE_SHARE = 0.6  # of the time limit; a page that never falls silent (polling, a clock) is taken as it is then
CLOSE_S = 5.0  # for closing a context; a browser that needs longer is hung and gets replaced
MAX_PAGES_AT_ONCE = 2  # each costs about 100 MB
MAX_REQUESTS = 300  # of one page; bundlers split an application into about 100 files at most
READ_TYPES = frozenset({"script", "stylesheet", "xhr", "fetch"})
"""What can change the text. Stylesheets are among them because loaders of split bundles wait for theirs."""

_DEAD_END = "http://nowhere.invalid:9"
_FLAGS = (
    f"--proxy-server={_DEAD_END}",
    "--proxy-bypass-list=<-loopback>",  # without it, loopback goes past the proxy
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--disable-quic",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have 64 MB there
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG")  # not the credentials that the environment may hold
_WITHOUT_PEERS = (
    "for (const name of ['RTCPeerConnection', 'webkitRTCPeerConnection', 'WebTransport']) delete self[name]"
)
_DOM = """limit => {
    const inert = document.implementation.createHTMLDocument("");  // where copies run no code
    const copy = node => {
        if (node.localName === "slot" && node.getRootNode() instanceof ShadowRoot) {
            const fragment = inert.createDocumentFragment();
            const assigned = node.assignedNodes();
            fragment.append(...(assigned.length ? assigned : [...node.childNodes]).map(copy));
            return fragment;
        }
        const twin = inert.importNode(node, false);
        if (node.nodeType === Node.ELEMENT_NODE) twin.append(...[...(node.shadowRoot ?? node).childNodes].map(copy));
        return twin;
    };
    const root = document.documentElement;
    const hasShadow = [...document.querySelectorAll("*")].some(element => element.shadowRoot);
    const html = "<!DOCTYPE html>\\n" + (hasShadow ? copy(root) : root).outerHTML;
    return html.length > limit ? null : html;
}"""
"""The document as HTML, open shadow trees in place of what they show; null when it is longer than limit."""


class Resource(Protocol):
    """What `fetch` returns: an answer of the site, redirects followed."""

    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


Fetch = Callable[[str], Awaitable[Resource]]


class Renderer:
    """A browser, started on entering. executable: of Chromium; without it, the first of EXECUTABLES on the PATH.

    Entering raises ConfigError when Playwright or Chromium is missing or does not start.
    """

    def __init__(
        self, fetch: Fetch, *, timeout_s: float, executable: str | None = None, max_body_bytes: int = 10_000_000
    ) -> None:
        self._fetch, self._timeout_s, self._max_body_bytes = fetch, timeout_s, max_body_bytes
        self._executable = executable
        self._closing = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._turns = asyncio.Semaphore(MAX_PAGES_AT_ONCE)
        self._launch: Callable[[], Awaitable[Browser]]
        self._browser: Browser | None = None

    async def __aenter__(self) -> "Renderer":
        try:
            from playwright.async_api import async_playwright
        except ImportError as error:
            raise ConfigError("--render needs Playwright: pip install -r requirements-render.txt") from error
        executable = self._executable or next(filter(None, map(shutil.which, EXECUTABLES)), None)
        if executable is None:
            raise ConfigError(
                f"--render needs Chromium, and none of {', '.join(EXECUTABLES)} is on the PATH: install it "
                "(Debian: apt install chromium), and requirements-render.txt"
            )
        playwright = await self._closing.enter_async_context(async_playwright())
        self._launch = lambda: playwright.chromium.launch(
            executable_path=executable,
            args=_FLAGS,
            chromium_sandbox=os.geteuid() != 0,  # Chromium refuses to be sandboxed by root
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        )
        try:
            await self._running_browser()
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._drop_browser()
        await self._closing.aclose()

    async def render(self, url: str, html: bytes, content_type: str) -> bytes:
        """Return the document after its scripts ran, as UTF-8 HTML.

        Raises FetchError: timeout, render_failed (the page or the browser broke), too_large.
        """
        from playwright.async_api import Error as BrowserError

        async with self._turns:
            browser = await self._running_browser()
            visit = _Visit(self._fetch, url, html, content_type)
            try:
                async with asyncio.timeout(self._timeout_s):
                    dom = await visit.run(browser, idle_s=self._timeout_s * IDLE_SHARE, limit=self._max_body_bytes)
            except TimeoutError as error:
                raise FetchError(url, "timeout", f"not rendered within {self._timeout_s:g} s") from error
            except BrowserError as error:
                raise FetchError(url, "render_failed", _first_line(error)) from error
            finally:
                if not await visit.close():
                    await self._drop_browser()
        body = (dom or "").encode("utf-8", "replace")
        if dom is None or len(body) > self._max_body_bytes:
            raise TooLarge(url, self._max_body_bytes)
        return body

    async def _running_browser(self) -> "Browser":
        """Return the browser; a new one when there is none, or the last one died of a page."""
        from playwright.async_api import Error as BrowserError

        async with self._starting:
            if self._browser is None or not self._browser.is_connected():
                try:
                    self._browser = await self._launch()
                except BrowserError as error:
                    raise ConfigError(f"--render: Chromium does not start: {_first_line(error)}") from error
            return self._browser

    async def _drop_browser(self) -> None:
        browser, self._browser = self._browser, None
        if browser is not None:
            await _closed(browser)


class _Visit:
    """One page in a context of its own: no cookies, no cache, nothing left behind."""

    def __init__(self, fetch: Fetch, url: str, html: bytes, content_type: str) -> None:
        self._fetch, self._url, self._html, self._content_type = fetch, url, html, content_type
        self._context: BrowserContext | None = None
        self._fetching: set[asyncio.Future[Resource]] = set()
        self._requests = 0
        self._is_open = True

    async def run(self, browser: "Browser", *, idle_s: float, limit: int) -> str | None:
        from playwright.async_api import TimeoutError as StillBusy

        self._context = context = await browser.new_context(accept_downloads=False, service_workers="block")
        await context.route(re.compile(""), self._answer)
        await context.route_web_socket(re.compile(""), _refuse_socket)
        await context.add_init_script(_WITHOUT_PEERS)
        page = await context.new_page()
        context.on("page", _close_window)
        await page.goto(self._url, wait_until="commit", timeout=0)
        with suppress(StillBusy):
            await page.wait_for_load_state("networkidle", timeout=idle_s * 1000)
        dom: str | None = await page.evaluate(_DOM, limit)
        logger.debug("page rendered url=%s requests=%d", self._url, self._requests)
        return dom

    async def close(self) -> bool:
        """Tell whether the browser let go of the page in time."""
        self._is_open = False
        for fetching in self._fetching:
            fetching.cancel()
        return self._context is None or await _closed(self._context)

    async def _answer(self, route: "Route") -> None:
        from playwright.async_api import Error as BrowserError

        self._requests += 1
        with suppress(BrowserError):  # the page was closed meanwhile
            if self._requests == 1:  # no script has run yet, so this is the page itself
                await route.fulfill(body=self._html, content_type=self._content_type or "text/html")
            elif resource := await self._resource(route.request):
                shared = {name: value for name, value in resource.headers.items() if _is_about_sharing(name)}
                headers = {**shared, "Content-Type": resource.content_type}
                await route.fulfill(status=resource.status, headers=headers, body=resource.body)
            else:
                await route.abort("aborted")  # any other failure of a navigation would put an error page in its place

    async def _resource(self, request: "Request") -> Resource | None:
        """Return what the crawl may fetch for a page; None for navigation, frames, pictures, posts and refusals."""
        is_wanted = request.method == "GET" and request.resource_type in READ_TYPES and self._is_open
        if not is_wanted or self._requests > MAX_REQUESTS or urlsplit(request.url).scheme not in {"http", "https"}:
            return None
        fetching = asyncio.ensure_future(self._fetch(request.url))
        self._fetching.add(fetching)
        await asyncio.wait({fetching})
        self._fetching.discard(fetching)
        if fetching.cancelled():
            return None
        try:
            return fetching.result()
        except FetchError as error:
            logger.debug("resource refused url=%s page=%s reason=%s", request.url, self._url, error.reason)
            return None


def _is_about_sharing(header: str) -> bool:
    return header.lower().startswith("access-control-")


async def _refuse_socket(socket: "WebSocketRoute") -> None:
    from playwright.async_api import Error as BrowserError

    with suppress(BrowserError):
        await socket.close()


async def _close_window(page: "Page") -> None:
    await _closed(page)


async def _closed(target: "Browser | BrowserContext | Page") -> bool:
    """Close it; tell whether that went through within CLOSE_S. What is gone already counts as closed."""
    from playwright.async_api import Error as BrowserError

    try:
        async with asyncio.timeout(CLOSE_S):
            with suppress(BrowserError):
                await target.close()
    except TimeoutError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
