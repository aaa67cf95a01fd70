"""Verdicts: shells that need JavaScript, and pages that say "not found" with status 200."""

import pytest
from selectolax.lexbor import LexborHTMLParser

from raydex.parse.verdicts import is_soft_404, needs_javascript

BUNDLE = '<script type="module" src="/assets/index-4f2c.js"></script>'


def needs(html, words=0):
    return needs_javascript(LexborHTMLParser(html), words=words)


@pytest.mark.parametrize(
    "html",
    [
        f"<title>Docs</title>{BUNDLE}<body><div id=root></div>",
        "<body><div id=app><div class=spinner>Loading the docs, please wait…</div></div><script src=a.js></script>",
        "<body><noscript><h1>You need to enable JavaScript to run this app.</h1></noscript><div id=x></div>"
        "<script src=main.js></script>",
        "<body><redoc spec-url=openapi.json></redoc><script src=redoc.standalone.js></script>",
        "<body><header><h1>Acme</h1></header><div id=__next></div><script src=a.js></script>",
        "<head><script defer src=main.js></script></head><body><div class=container></div>",
    ],
)
def test_an_empty_shell_with_a_bundle_needs_javascript(html):
    assert needs(html, words=8 if "Loading" in html else 0)


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<body><h1>Limits</h1><p>At most ten.</p>", 4),
        (f"{BUNDLE}<body><h1>Limits</h1><p>At most ten.</p>", 4),
        (f"{BUNDLE}<body><noscript>Search needs JavaScript.</noscript><h1>Limits</h1><p>At most ten.</p>", 4),
        (f"{BUNDLE}<body><div id=app><main><h1>Limits</h1><p>At most ten.</p></main></div>", 4),
        ("<body><div id=root></div><p>No script at all.</p>", 4),
        (f'{BUNDLE}<body><img src="diagram.png"><div></div>', 0),
        ("<frameset><frame src=a.html></frameset>", 0),
    ],
)
def test_a_short_page_that_was_written_as_html_does_not(html, words):
    assert not needs(html, words)


def test_a_page_with_content_from_the_server_does_not_whatever_scripts_it_loads():
    text = "<p>The pool keeps connections open and hands them to whoever asks first.</p>" * 4
    docusaurus = f'{BUNDLE}<body><div id="__docusaurus"><main><h1>Pool</h1>{text}</main></div>'
    vitepress = f'{BUNDLE}<body><div id="app"><div class="VPContent"><h1>Pool</h1>{text}</div></div>'
    assert not needs(docusaurus, words=49)
    assert not needs(vitepress, words=49)


@pytest.mark.parametrize(
    "line",
    [
        "404",
        "Error 404",
        "404 Not Found",
        "HTTP 404: Not Found",
        "Page not found",
        "404 | Page Not Found — Acme Handbook",
        "Acme Handbook - Page not found!",
        "404: This page could not be found.",
        "Sorry, this page doesn’t exist",
        "The requested URL was not found on this server.",
        "We can't find the page you're looking for",
        "Seite nicht gefunden | Handbuch",
        "Die angeforderte Seite wurde leider nicht gefunden",
        "Fehler 404: Diese Seite existiert nicht",
        "Page introuvable",
        "Erreur 404 – Page non trouvée",
        "Cette page n’existe pas",
        "Página no encontrada",
        "No se ha encontrado la página",
        "La página no existe · Manual",
        "ページが見つかりませんでした",
        "お探しのページは見つかりません",
        "404 页面未找到",
        "找不到页面",
        "頁面不存在",
        "Página não encontrada",
        "Erro 404: A página não existe",
    ],
)
def test_a_title_or_first_heading_that_says_not_found_makes_a_soft_404(line):
    assert is_soft_404(title=line, heading="Acme Handbook", words=20)
    assert is_soft_404(title="Acme Handbook", heading=line, words=20)


def test_pydoc_says_it_in_the_text_only():
    text = "nope.html\n\nImportError: No Python documentation found for 'nope'\nUse help() to get the interactive help."
    assert is_soft_404(title="Pydoc: Error - nope.html", heading="Error", words=18, text=text)


@pytest.mark.parametrize(
    "title",
    [
        "Handling not found errors",
        "How to build a 404 page",
        "FileNotFoundError",
        "std::io::ErrorKind::NotFound",
        "Page found",
        "Page trouvée",
        "无法找到模块的解决方法",
        "Not foundation",
        "Port 404",
        "",
    ],
)
def test_a_title_that_only_mentions_it_makes_none(title):
    assert not is_soft_404(title=title, heading=title, words=20)


def test_a_documentation_page_about_404_errors_is_none():
    assert not is_soft_404(title="HTTP 404 Not Found — status codes", heading="404 Not Found", words=600)


def test_a_very_long_title_is_judged_by_its_beginning():
    assert not is_soft_404(title="the " * 300_000, heading="not found " * 100_000, words=20)
