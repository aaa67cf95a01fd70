"""Hostile and broken pages: no error but ParseError, and work that grows with the page, no faster."""

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydex.errors import ParseError
from raydex.parse import Document, parse_page
from tests.pages import page

# fmt: off
NAMES = st.sampled_from([
    "div", "section", "article", "main", "header", "footer", "nav", "aside", "p", "span", "a", "b", "code", "pre",
    "h1", "h2", "h3", "ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "td", "th", "caption", "details",
    "summary", "figure", "figcaption", "blockquote", "math", "annotation", "svg", "template", "noscript", "label",
    "input", "br", "img", "script", "style", "form", "button", "x-tabs",
])
VALUES = st.sampled_from([
    "x", "y", "mod.f", "mod.Box-open", "#x", "note", "title", "sig", "sig-name", "toc", "admonition-title",
    "hidden", "line", "highlight-rust", "tabpanel", "next", "left:-9999px", "color:#fff;background:#fff",
    "copy(int)", "--help", "%C3%BC",
])
ATTRIBUTES = st.dictionaries(
    st.sampled_from([
    "id", "name", "class", "href", "style", "role", "rel", "hidden", "aria-hidden", "colspan", "alt", "data-lang",
]), VALUES
)
# fmt: on
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["-v, --verbose", "copy(a, b)", "Edit this page", "1\n2\n3", "\0", "\u200b"]
)

REAL_LOOKING = (
    """<!doctype html><html lang=en><head><title>shutil — Files</title><style>.x{display:none}</style></head><body>
    <nav><ul><li><a href="a.html">A</a></ul></nav><main><section id="module-shutil"><h1>shutil<a class=headerlink
    href="#module-shutil">¶</a></h1><p>Operations on <em>files</em>.</p><dl class="py function"><dt class="sig"
    id="shutil.copy"><span class="sig-prename">shutil.</span><span class="sig-name">copy</span>(<i>src</i>)</dt><dd><p>
    Copies.</p><div class="admonition note"><p class="admonition-title">Note</p><p>Slow.</p></div><div
    class="highlight-python3"><pre>&gt;&gt;&gt; <span class="k">import</span> shutil</pre></div></dd></dl></section>
    </main><footer>Copyright</footer></body></html>""",
    """<html><body bgcolor=white><table><tr><td colspan=3 class=section-title><a name="Box">class <b>Box</b></a>
    <tr><td><td><dl><dt><a name="Box-open"><strong>open</strong></a>(self)</dt><dd><tt>Opens&nbsp;it.<br></tt></dd></dl>
    <table><tr><th>a<th>b<tr><td>1<td>2</table></table><div class=fragment><div class=line>int x;</div></div>
    <math alttext="c"><mi>c</mi></math><details><summary>More</summary>text</details></body></html>""",
)


@st.composite
def markup(draw, depth=4):
    """An element, well-formed or not, with what it holds."""
    name, attributes = draw(NAMES), draw(ATTRIBUTES)
    written = "".join(f' {key}="{value}"' for key, value in attributes.items())
    children = draw(st.lists(markup(depth=depth - 1) if depth else TEXTS, max_size=4))
    end = f"</{name}>" if draw(st.integers(0, 4)) else ""
    return f"<{name}{written}>{''.join(children)}{end}"


def read(html) -> Document | None:
    try:
        return parse_page(page(html))
    except ParseError:
        return None


def check(document):
    if document is None:
        return
    assert len({section.section_id for section in document.sections}) == len(document.sections)
    assert [section.position for section in document.sections] == list(range(len(document.sections)))
    assert all(section.text.strip() and section.headings for section in document.sections)
    assert 0 <= document.hidden_words <= document.dropped_words <= document.total_words


@given(st.lists(markup() | TEXTS, max_size=6))
def test_any_structure_is_read_or_refused(parts):
    check(read("".join(parts)))


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["text/html", "text/plain", ""])
)
def test_any_bytes_are_read_or_refused(body, content_type):
    try:
        check(parse_page(page(body, content_type=content_type)))
    except ParseError:
        return


@pytest.mark.parametrize("seed", range(40))
def test_mutated_pages_are_read_or_refused(seed):
    chance = random.Random(seed)
    for original in REAL_LOOKING:
        for _ in range(10):
            check(read(_mutated(original, chance)))


def _mutated(html: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 12)):
        start, length = chance.randrange(len(html)), chance.randint(1, 60)
        piece = html[start : start + length]
        place = chance.randrange(len(html))
        change = chance.randrange(4)
        if change == 0:
            html = html[:start] + html[start + length :]
        elif change == 1:
            html = html[:place] + piece * chance.randint(1, 20) + html[place:]
        elif change == 2:
            html = html[:start] + chance.choice("<>\"'&=/\0\ufffd\u202e") + html[start + 1 :]
        else:
            html = html[:start] + piece[::-1] + html[start + length :]
        html = html or "x"
    return html


GROWING = {
    "nested div": lambda n: "<div>" * n + "text",
    "nested div with links": lambda n: "<div>" * n + "<a href='#x'>link</a>" * n + "<a href=y>out</a> text",
    "nested div around a pager": lambda n: "<div>" * n + "<a rel=x href=y>ab</a>" + "<a href=z></a>" * n,
    "nested list": lambda n: "<ul><li>a" * n,
    "nested tables": lambda n: "<table><tr><td>a" * n,
    "nested definitions": lambda n: "<dl><dt id=a.b>b()<dd>" * n + "text",
    "nested sections": lambda n: "<section id=s><h2>a</h2>" * n + "text",
    "nested footers": lambda n: "<div>" * n + "<footer>a b</footer>" * n + "text",
    "nested hidden": lambda n: "<div hidden>" * n + "text",
    "nested admonitions": lambda n: "<div class=note><p class=admonition-title>Note</p>" * n + "text",
    "siblings": lambda n: "<p>a <b>b</b>" * n,
    "anchors before a heading": lambda n: "<a name=x></a><hr>" * n + "<h2>a</h2>text",
    "empty titles": lambda n: "<p class=admonition-title>Note</p>" + "<div> </div>" * n + "text",
    "lines of code": lambda n: "<pre>" + "<div></div>" * n + "x</pre>",
    "many terms": lambda n: "<dl>" + "<dt id=a.b>b()" * n + "<dd>text</dl>",
    "same anchors": lambda n: "<h2 id=a>a</h2>text" * n,
    "nested svg": lambda n: "<svg>" * n + "</svg>" * n + "text",
    "comments": lambda n: "<!-- a -->" * n + "text",
}


def work_of(html) -> int:
    """Count what the interpreter does for a page: calls, and lines that jump back."""
    count = 0

    def step(*_):
        nonlocal count
        count += 1

    previous = sys.getprofile()
    sys.setprofile(step)
    try:
        read(html)
    finally:
        sys.setprofile(previous)
    return count


@pytest.mark.parametrize("kind", GROWING)
def test_a_page_twice_as_long_costs_twice_the_work(kind):
    grow = GROWING[kind]
    read(grow(1500))  # fills what is remembered between pages
    assert work_of(grow(1200)) <= 2.3 * work_of(grow(600)) + 2000


@pytest.mark.parametrize("size", [100_000])
def test_a_hundred_thousand_siblings_and_a_huge_attribute_are_read(size):
    document = read(f"<h1>T</h1><ul>{'<li>a' * size}</ul><p class='{'x ' * size}' id='{'y' * size}'>end")
    assert document is not None
    assert document.sections[0].text.endswith("end")


@pytest.mark.parametrize(
    "html",
    ["<div>" * 50_000, "<div>" * 50_000 + "</div>" * 50_000, "".join(f"<p><b a={n}>x" for n in range(5_000))],
)
def test_a_page_that_would_blow_up_the_parser_is_refused(html):
    with pytest.raises(ParseError) as caught:
        parse_page(page(html))
    assert caught.value.reason == "too_deep"


def test_a_number_too_long_for_an_integer_is_code():
    document = read(f"<h1>T</h1><pre>{'1' * 5000} 2</pre>")
    assert document is not None
    assert document.sections[0].kind == "code"
