"""A documentation site on loopback: good pages, routes that fail on purpose, and gates for tests that kill.

    with DocSite(handbook(pages=40)) as site:
        crawl(site.url)
        assert site.requests == ["/robots.txt", "/", …]

What fails is under /fail/ (see FAILURES). Nothing sleeps: what hangs, hangs on an event that `close()` sets.
"""

import hashlib
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROBOTS = "User-agent: *\nDisallow: /fail/robots-denied\n"
HTML = "text/html; charset=utf-8"
GATE_TIMEOUT_S = 30.0  # a test that forgets to open a gate ends here, not never
DRIP_S = 0.02


@dataclass(frozen=True)
class Route:
    """What one path answers."""

    body: bytes
    content_type: str = HTML
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


class DocSite:
    """Serves `path → HTML`. `dir/` and `dir/index.html` are the same page.

    requests: paths in order of arrival; headers_seen: their headers, names in lower case.
    """

    def __init__(self, pages: Mapping[str, str] | None = None, *, robots: str = ROBOTS, etags: bool = True) -> None:
        self.requests: list[str] = []
        self.headers_seen: list[dict[str, str]] = []
        self.etags = etags
        self.counts: Counter[str] = Counter()  # requests per path
        self.connections_made = 0
        self.closing = threading.Event()
        self._routes: dict[str, Route] = {}
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._blocked = threading.Event()
        self._pages_until_block = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self._outside = socket.create_server(("127.0.0.2", 0))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self.outside_url = f"http://127.0.0.2:{self._outside.getsockname()[1]}/"
        self.put("robots.txt", robots, content_type="text/plain")
        for path, html in (pages or {}).items():
            self.put(path, html)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> "DocSite":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        self._open.set()
        self._server.shutdown()
        self._server.drop_connections()
        self._server.server_close()
        self._outside.close()

    def hang_up(self) -> None:
        """Close every connection that clients keep open."""
        self._server.drop_connections()

    def put(
        self,
        path: str,
        html: str | bytes,
        *,
        content_type: str = HTML,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = html.encode() if isinstance(html, str) else html
        self._routes[_name(path)] = Route(body, content_type, status, headers or {})

    def redirect(self, path: str, target: str) -> None:
        self.put(path, b"", status=301, headers={"Location": target})

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text of a page, which must be there."""
        html = self._routes[_name(path)].body.decode()
        assert old in html
        self.put(path, html.replace(old, new))

    def remove(self, path: str) -> None:
        del self._routes[_name(path)]

    def route(self, path: str) -> Route | None:
        return self._routes.get(_name(path))

    def outside_was_contacted(self) -> bool:
        return bool(select.select([self._outside], [], [], 0)[0])

    def block_after(self, pages: int) -> None:
        """Let this many more page requests through; the next ones wait for `unblock()`."""
        with self._lock:
            self._pages_until_block = pages
            self._blocked.clear()
            self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    def wait_blocked(self, timeout: float) -> bool:
        """Return True as soon as a request waits, False when none does within timeout seconds."""
        return self._blocked.wait(timeout)

    def arrived(self, path: str, headers: Mapping[str, str]) -> None:
        """Record a request; hold it when the gate is shut."""
        with self._lock:
            self.requests.append(path)
            self.headers_seen.append({name.lower(): value for name, value in headers.items()})
            self.counts[path] += 1
            if path == "/robots.txt" or self._open.is_set():
                return
            self._pages_until_block -= 1
            if self._pages_until_block >= 0:
                return
        self._blocked.set()
        self._open.wait(GATE_TIMEOUT_S)


class _Server(ThreadingHTTPServer):
    site: DocSite
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients hang up on purpose here."""

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by its client just now


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: else Nagle and delayed ACK cost 40 ms a page
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self.server.site.connections_made += 1

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Keep quiet."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.site.arrived(path, dict(self.headers))
        route = self.server.site.route(path)
        if route is None and path in FAILURES:
            FAILURES[path](self)
        else:
            self.answer(route or Route(b"<h1>Not found</h1><p>No such page.</p>", status=404))

    def answer(self, route: Route) -> None:
        etag = {"ETag": route.etag} if self.server.site.etags and route.status == 200 else {}
        if etag and self.headers.get("If-None-Match") == route.etag:
            self.head(304, etag)
            return
        length = {"Content-Length": str(len(route.body))}
        self.head(route.status, {"Content-Type": route.content_type} | length | etag | dict(route.headers))
        self.wfile.write(route.body)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def redirect(self, target: str) -> None:
        self.head(302, {"Location": target, "Content-Length": "0"})

    def drip(self, data: bytes) -> None:
        """Send the same bytes again and again until the client or the site has enough."""
        while not self.server.site.closing.wait(DRIP_S):
            self.wfile.write(data)
            self.wfile.flush()


def page(title: str, text: str) -> str:
    return f"<html><head><title>{title}</title></head><body><h1 id=top>{title}</h1><p>{text}</p></body></html>"


def _drop(handler: _Handler) -> None:
    handler.head(200, {"Content-Type": HTML, "Content-Length": "1000"})
    handler.wfile.write(b"<h1>The first words and")
    handler.close_connection = True


def _slow(handler: _Handler) -> None:
    handler.head(200, {"Content-Type": HTML, "Content-Length": "1000000"})
    handler.drip(b".")


def _slow_headers(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.drip(b"X-Filler: .\r\n")


def _slow_gzip(handler: _Handler) -> None:
    """Empty deflate blocks: bytes arrive, but they never decode to anything."""
    handler.head(200, {"Content-Type": HTML, "Content-Encoding": "gzip", "Content-Length": "1000000"})
    handler.wfile.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
    handler.drip(b"\x00\x00\x00\xff\xff")


def _twice_503(handler: _Handler) -> None:
    if handler.server.site.counts[handler.path] <= 2:
        handler.head(503, {"Retry-After": "0", "Content-Length": "0"})
        return
    handler.answer(Route(page("Recovered", "The third request was answered.").encode()))


def _huge(handler: _Handler) -> None:
    handler.head(200, {"Content-Type": HTML, "Transfer-Encoding": "chunked"})
    block = b"<p>more and more</p>" * 400
    while not handler.server.site.closing.is_set():
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))


def _no_http(handler: _Handler) -> None:
    handler.wfile.write(b"this is not HTTP\r\n\r\n")
    handler.wfile.flush()
    handler.drip(b".")


def _fixed(route: Route) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(route)


def _to(target: str) -> Callable[[_Handler], None]:
    return lambda handler: handler.redirect(target)


FAILURES: dict[str, Callable[[_Handler], None]] = {
    "/fail/drop": _drop,  # the connection closes in the middle of the body
    "/fail/slow": _slow,  # a body that never ends, a byte at a time
    "/fail/slow-headers": _slow_headers,
    "/fail/slow-gzip": _slow_gzip,
    "/fail/404": _fixed(Route(page("Gone", "This page does not exist.").encode(), status=404)),
    "/fail/500": _fixed(Route(page("Error", "The server is ill.").encode(), status=500)),
    "/fail/503-then-ok": _twice_503,
    "/fail/redirect-loop": _to("/fail/redirect-loop-back"),
    "/fail/redirect-loop-back": _to("/fail/redirect-loop"),
    "/fail/redirect-out": lambda handler: handler.redirect(handler.server.site.outside_url),
    "/fail/redirect-ok": _to("/fail/redirect-target"),
    "/fail/redirect-target": _fixed(Route(page("Moved", "The page at its new address.").encode())),
    "/fail/redirect-index/": _to("/fail/redirect-index/index.html"),  # two spellings of one address
    "/fail/redirect-index/index.html": _fixed(Route(page("Index", "The server insists on index.html.").encode())),
    "/fail/redirect-nowhere": _to("ftp://127.0.0.1/"),
    "/fail/wrong-charset": _fixed(Route(page("Café", "A résumé in latin-1, called utf-8.").encode("latin-1"))),
    "/fail/huge": _huge,  # a chunked body that never ends, as fast as it goes
    "/fail/binary": _fixed(Route(b"PK\x03\x04" + bytes(64), "application/zip")),
    "/fail/no-http": _no_http,
    "/fail/robots-denied": _fixed(Route(page("Private", "robots.txt forbids this page.").encode())),
}
"""Path → what it does. A page put at the same path takes its place."""


def _name(path: str) -> str:
    name = path.removeprefix("/")
    return f"{name}index.html" if name.endswith("/") or not name else name


SUBJECTS = (
    ("storage", ("bucket", "replica", "volume", "quota", "archive", "checksum")),
    ("routing", ("gateway", "prefix", "path", "upstream", "header", "hostname")),
    ("scheduling", ("queue", "worker", "deadline", "priority", "cron", "backlog")),
    ("logging", ("logger", "handler", "severity", "rotation", "formatter", "stream")),
    ("security", ("token", "secret", "certificate", "scope", "role", "audit")),
    ("caching", ("eviction", "lifetime", "capacity", "warmup", "key", "hit")),
    ("messaging", ("topic", "subscriber", "offset", "partition", "broker", "replay")),
    ("deployment", ("release", "rollback", "canary", "manifest", "region", "probe")),
)
ONSETS, VOWELS, CODAS = (
    ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"),
    "aeiou",
    ("l", "n", "r", "x"),
)


def handbook(pages: int = 40) -> dict[str, str]:
    """Return path → HTML of a documentation site: index, guides and, one link further, their API pages.

    pages: at least 4. The same number gives the same pages, and page n is the same in every larger handbook but for
    its navigation. Each guide and API page has words of its own: see `question`.
    """
    paths = handbook_paths(pages)
    guides = [path for path in paths[3:] if path.startswith("guide/")]
    site = {
        "index.html": _overview("Acme Handbook", "", ["guide/index.html", "api/", "guide/page003.html#install"]),
        "guide/index.html": _overview("Guides", "../", [path.removeprefix("guide/") for path in guides]),
        "api/index.html": _overview("API reference", "../", ["../guide/#overview", "page004.html"]),
    }
    return site | {path: _chapter(number, paths) for number, path in enumerate(paths) if path not in site}


def handbook_paths(pages: int = 40) -> list[str]:
    """Return the paths in order of page number; from 3 on, odd ones are guides, each followed by its API page."""
    chapters = [f"{'guide' if number % 2 else 'api'}/page{number:03d}.html" for number in range(3, pages)]
    return ["index.html", "guide/index.html", "api/index.html", *chapters]


def question(number: int) -> str:
    """Return a query that only page `number` (3 or more) answers: it has the words that no other page has."""
    subject, words = SUBJECTS[number % len(SUBJECTS)]
    first, second, third = own_words(number)
    return f"How does the {first} {words[0]} set the {second} {words[1]} for {subject} with {third}?"


def own_words(number: int) -> tuple[str, str, str]:
    """Return three made-up words that stand on page `number` alone (up to 3,920 pages)."""
    onset, rest = ONSETS[number % 14], number // 14
    vowel, coda, last = VOWELS[rest % 5], CODAS[rest // 5 % 4], ONSETS[rest // 20 % 14]
    stem = f"{onset}{vowel}{coda}{last}"
    return f"{stem}ovan", f"{stem}idel", f"{stem}umet"


def _overview(title: str, up: str, links: list[str]) -> str:
    items = "".join(f'<li><a href="{link}">{link.partition("#")[0] or "overview"}</a></li>' for link in links)
    text = "This handbook explains how to install, run and extend the Acme platform, step by step, with examples."
    return _layout(title, up, f'<h1 id="overview">{title}</h1><p>{text}</p><ul>{items}</ul>')


def _chapter(number: int, paths: list[str]) -> str:
    subject, words = SUBJECTS[number % len(SUBJECTS)]
    first, second, third = own_words(number)
    kind = "Guide" if number % 2 else "API"
    title = f"{first.capitalize()} {subject} ({kind})"
    partner = number + 1 if number % 2 else number - 1
    link = f'<a href="../{paths[partner]}#reference">{subject} details</a>' if 3 <= partner < len(paths) else "no more"
    return _layout(
        title,
        "../",
        f"""<h1 id="top">{title}</h1>
<p>The {first} {words[0]} keeps every {words[1]} of the {subject} layer in one place.
Use it when the {second} {words[2]} grows, and see {link}.</p>
<h2 id="install">Install {first}</h2>
<p>Install the {first} package and set the {second} {words[1]} before you start the {words[3]}.</p>
<pre><code class="language-python">from acme.{subject} import {first}

{first}.configure({second}={number}, {words[4]}="{third}")
</code></pre>
<h2 id="reference">Reference of {second}</h2>
<p>With {third} the {words[4]} is checked on every {words[5]}; without it the {words[0]} decides.</p>
<h3 id="limits">Limits of {third}</h3>
<ul><li>A {second} holds at most {number * 10} {words[1]} entries.</li><li>Each {third} lives for one hour.</li></ul>
<table><tr><th>Option</th><th>Meaning</th></tr>
<tr><td>{second}_size</td><td>Number of {words[2]} slots</td></tr>
<tr><td>{third}_mode</td><td>How the {words[3]} is shared</td></tr></table>""",
    )


def _layout(title: str, up: str, content: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title} — Acme Handbook</title>
<link rel="stylesheet" href="{up}style.css"><script>var tracking = "never index this";</script></head>
<body><nav class="navbar"><a href="{up}index.html">Home</a> <a href="{up}guide/">Guides</a>
<a href="{up}api/index.html">API</a> <a href="{up}handbook.pdf">PDF</a>
<a href="mailto:help@acme.example">Mail</a></nav>
<div class="sidebar"><h3>On this site</h3><ul><li><a href="{up}#overview">Overview</a></li>
<li><a href="{up}./guide/index.html#overview">Guides</a></li></ul></div>
<main>
{content}
</main>
<footer><p>Copyright Acme. All rights reserved. Cookie settings.</p></footer></body></html>
"""
