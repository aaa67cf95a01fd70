"""Generated documentation sites of any size, and a server that is faster than any crawler.

generated_site(folder, 500)
with fast_server(folder) as url: …
"""

import functools
import http.server
import multiprocessing
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.local import QuietHandler, free_port, stop

SYLLABLES = ("ba", "cor", "den", "fi", "gra", "hul", "ist", "jo", "ken", "lor", "mi", "nat", "op", "per", "qui", "ros")
VOCABULARY = tuple(a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", *SYLLABLES))
WORDS_OF_PAGE = 400
"""Different words a page is written with, of all 4352."""

START_S = 10

NGINX = """daemon off; master_process off; pid {prefix}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  types {{ text/html html; text/css css; text/javascript js; text/plain txt; image/svg+xml svg; image/png png; }}
  access_log off; sendfile on; tcp_nodelay on; etag on; keepalive_requests 1000000;
  client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy; fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}; index index.html; charset utf-8; }}
}}
"""


def generated_site(folder: Path, pages: int, *, words: int = 1200, links: int = 50) -> None:
    """Write index.html and page-00001.html …, `pages` files in all, the same ones each time.

    A page has about this many words, which are its own, this many links in its sidebar, and the previous and next page.
    """
    for number in range(pages):
        (folder / _name(number)).write_text(_page(number, pages, words=words, links=links), encoding="utf-8")


def _name(number: int) -> str:
    return f"page-{number:05}.html" if number else "index.html"


def _page(number: int, pages: int, *, words: int, links: int) -> str:
    rng = random.Random(number)
    own = rng.sample(VOCABULARY, WORDS_OF_PAGE)
    title = _words(rng, own, 3).title()
    sections = "".join(_section(rng, own, place) for place in range(max(1, words // 80)))
    around = [_link(target, "next") for target in (number + 1,) if target < pages]
    around += [_link(target, "prev") for target in (number - 1,) if target >= 0]
    sidebar = "\n".join(f'<li class="toctree-l1">{_link(target)}</li>' for target in _targets(number, pages, links))
    related = "".join(f'<li class="right">{link}</li>' for link in around)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title} — Generated 1.0 documentation</title>
<link rel="stylesheet" href="_static/alabaster.css"><script src="_static/doctools.js"></script></head><body>
<div class="related" role="navigation" aria-label="related navigation"><h3>Navigation</h3><ul>{related}</ul></div>
<div class="document"><div class="documentwrapper"><div class="bodywrapper"><div class="body" role="main">
<section id="page-{number}"><h1>{title}<a class="headerlink" href="#page-{number}" title="Permalink">¶</a></h1>
{sections}</section></div></div></div>
<div class="sphinxsidebar" role="navigation" aria-label="main navigation"><div class="sphinxsidebarwrapper">
<h3><a href="index.html">Table of Contents</a></h3><ul>
{sidebar}
</ul></div></div></div>
<div class="footer">©2024, Generated. | Powered by a generator</div></body></html>
"""


def _targets(number: int, pages: int, links: int) -> list[int]:
    """Return the pages in the sidebar: the ones around; on the first page one of every such neighbourhood."""
    if not number:
        entries = max(links, pages // links)
        return sorted({place * pages // entries for place in range(1, entries)})
    first = max(0, min(number - links // 2, pages - links))
    return [target for target in range(first, min(first + links, pages)) if target != number]


def _link(number: int, relation: str = "") -> str:
    rel = f' rel="{relation}"' if relation else ""
    return f'<a class="reference internal" href="{_name(number)}"{rel}>Page {number}</a>'


def _section(rng: random.Random, own: list[str], place: int) -> str:
    """Return about 80 words: a heading, prose with inline markup, an API entry, code and a table."""
    anchor, name = f"section-{place}", f"{rng.choice(own)}.{rng.choice(own)}"
    code = "\n".join(
        f'<span class="n">{rng.choice(own)}</span> <span class="o">=</span> <span class="n">{rng.choice(own)}</span>'
        f'<span class="p">(</span><span class="mi">{rng.randrange(999)}</span><span class="p">)</span>'
        for _ in range(3)
    )
    rows = "\n".join(f"<tr><td><p>{rng.choice(own)}</p></td><td><p>{_words(rng, own, 4)}</p></td></tr>" for _ in "ab")
    return f"""<section id="{anchor}"><h2>{_words(rng, own, 3).title()}<a class="headerlink" href="#{anchor}">¶</a></h2>
<p>{_words(rng, own, 15).capitalize()} <code class="docutils literal notranslate"><span class="pre">{rng.choice(own)}()
</span></code> {_words(rng, own, 15)}.</p>
<dl class="py function"><dt class="sig sig-object py" id="{name}"><span class="sig-name descname">
<span class="pre">{name}</span></span>(<em class="sig-param">{rng.choice(own)}</em>)</dt>
<dd><p>{_words(rng, own, 15).capitalize()}.</p></dd></dl>
<div class="highlight-python3 notranslate"><div class="highlight"><pre><span></span>{code}
</pre></div></div>
<table class="docutils align-default"><thead><tr><th>{rng.choice(own)}</th><th>Meaning</th></tr></thead><tbody>
{rows}</tbody></table></section>
"""


def _words(rng: random.Random, own: list[str], count: int) -> str:
    return " ".join(rng.choices(own, k=count))


@contextmanager
def fast_server(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback from a process of its own until the block ends; yield its URL.

    With nginx, where it is installed (apt-get install nginx-light); else with http.server, which gives no ETag.
    """
    port = free_port()
    running = _nginx(folder, port) if shutil.which("nginx") else _http_server(folder, port)
    with running:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}/"


@contextmanager
def _nginx(folder: Path, port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="raydex-nginx-") as prefix:
        configuration = Path(prefix) / "nginx.conf"
        configuration.write_text(NGINX.format(prefix=prefix, port=port, folder=folder.resolve()))
        process = subprocess.Popen(["nginx", "-p", prefix, "-c", str(configuration)], start_new_session=True)
        try:
            yield
        finally:
            stop(process)


@contextmanager
def _http_server(folder: Path, port: int) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(str(folder), port), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _serve(folder: str, port: int) -> None:
    handler = functools.partial(QuietHandler, directory=folder)
    http.server.ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


def _wait_for(port: int) -> None:
    """Return when something listens; ConnectionError when nothing does within START_S."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(f"the site's server does not listen on port {port}") from error
            time.sleep(0.05)
