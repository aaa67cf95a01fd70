"""Markdown, MDX, reStructuredText, notebooks and plain text to HTML: text kept, anchors right, nothing raised."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from raydex.errors import ParseError
from raydex.parse.markup import is_markup, to_html

MARKDOWN, RST, PLAIN, NOTEBOOK = "text/markdown", "text/x-rst", "text/plain", "application/x-ipynb+json"
TYPES = [MARKDOWN, f"{MARKDOWN}; variant=mdx", RST, PLAIN, NOTEBOOK]
FRAGMENTS = [
    "# Title", "---", "===", "title: x", "```", "```{note} T", ":::note", ":::", "!!! warning", "> [!TIP]",
    "<Tabs>", "</Tabs>", "<A b={", "import x from 'y'", "{#id}", "[^1]", "[^1]: x", "$x$", "$$", "| a | b |",
    "|---|---|", "- ", "    code", "\t", ".. note::", ".. function:: f(x)", ".. py:class:: C", ".. option:: -f",
    ".. toctree::", ".. unknown:: x", "   :opt: y", ":func:`f`", ":ref:`a <b>`", "`x`_", "|s|",
    ".. |s| replace:: t", "::", "+---+", "====  ====", ".. [1] x", "[1]_", "*", "`", "_`", ".. glossary::",
    ".. raw:: html", ".. include:: /etc/passwd", ".. csv-table::", ".. list-table::", ".. math::", "<b>", "&amp;",
    "Übung", "\x00", "\x0c", "\x1b[1m", "\u2028", "text", "", "",
]  # fmt: skip


def body(text, content_type=MARKDOWN):
    return to_html(text, content_type).partition("<main>\n")[2].partition("\n</main>")[0]


def tree(text, content_type=MARKDOWN):
    return LexborHTMLParser(to_html(text, content_type))


def words(text, content_type=MARKDOWN):
    return " ".join((tree(text, content_type).body or pytest.fail("no body")).text(separator=" ").split())


def anchors(text, content_type=MARKDOWN):
    return [node.id for node in tree(text, content_type).css("h1, h2, h3")]


def ids(text):
    return [node.id for node in tree(text, RST).css("[id]")]


def codes(text, content_type=MARKDOWN):
    return [node.text() for node in tree(text, content_type).css("pre")]


def notebook(*cells, **metadata):
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4})


def test_the_types_are_known_with_and_without_parameters():
    assert all(is_markup(content_type) for content_type in TYPES)
    assert is_markup("Text/Markdown; charset=utf-8; variant=GFM")
    assert not any(is_markup(content_type) for content_type in ["text/html", "", "nonsense", "application/json"])


def test_any_other_type_is_a_parse_error():
    with pytest.raises(ParseError) as caught:
        to_html("x", "application/json")
    assert caught.value.reason == "not_markup"


# Markdown


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("", ["install", "whats-new-in-20", "whats-new-in-20-1", "install--run", "über-uns", "a_b-c"]),
        ("mkdocs", ["install", "whats-new-in-20", "whats-new-in-20_1", "install-run", "uber-uns", "a_b-c"]),
        ("vitepress", ["install", "what-s-new-in-2-0", "what-s-new-in-2-0-1", "install-run", "uber-uns", "a-b-c"]),
        ("myst", ["install", "what-s-new-in-2-0", "id1", "install-run", "uber-uns", "a-b-c"]),
    ],
)
def test_headings_have_the_anchors_of_their_generator(variant, expected):
    headings = ["Set up {#install}", "What's new in 2.0?", "What's new in 2.0?", "Install & run", "Über uns", "`a_b` c"]
    text = "\n".join(f"## {heading}\n" for heading in headings)
    assert anchors(text, f"text/markdown; variant={variant}") == expected


@pytest.mark.parametrize(
    "heading", ["# Go {#own}", "# Go {: #own .wide}", "# Go {/* #own */}", "# Go {.a #own}", "Go {#own}\n==="]
)
def test_an_anchor_of_the_authors_own_counts_in_every_spelling(heading):
    assert anchors(heading) == ["own"]
    assert words(heading) == "Go"


def test_front_matter_becomes_the_head_of_the_page():
    text = (
        "---\ntitle: A guide\ndescription: How to.\nlang: de\nversion: 1.10\n"
        "last_update:\n  date: 2026-05-01\n---\n\nText.\n"
    )
    html = to_html(text, MARKDOWN)
    assert '<html lang="de">' in html
    assert "<title>A guide</title>" in html
    assert '<meta name="description" content="How to.">' in html
    assert '<meta name="docsearch:version" content="1.10">' in html
    assert '<meta property="article:modified_time" content="2026-05-01">' in html
    assert words(text) == "Text."


def test_front_matter_that_is_no_yaml_still_gives_its_lines():
    assert "<title>Errors: a guide</title>" in to_html("---\ntitle: Errors: a guide\n---\nx", MARKDOWN)
    assert "<title>Toml</title>" in to_html('+++\ntitle = "Toml"\n+++\nx', MARKDOWN)


def test_rules_around_text_are_no_front_matter():
    assert "kept" in words("---\n\nkept\n\n---\n\nmore")


def test_front_matter_cannot_break_out_of_the_head():
    html = to_html('---\ntitle: "</title><script>x</script>"\nlang: \'"><b>\'\n---\nx', MARKDOWN)
    assert "<script>" not in html
    assert "<b>" not in html


def test_the_title_given_counts_when_the_text_has_none():
    assert "<title>From outside</title>" in to_html("text", MARKDOWN, title="From outside")
    assert "<title>Own</title>" in to_html("---\ntitle: Own\n---\ntext", MARKDOWN, title="From outside")


@pytest.mark.parametrize(
    "text",
    [
        ":::note[Mind it]\n\nBody *text*\n\n:::",
        ":::note Mind it\nBody *text*\n:::",
        '::: note {title="Mind it"}\nBody *text*\n:::',
        ":::{note} Mind it\nBody *text*\n:::",
        '!!! note "Mind it"\n    Body *text*\n',
        '???+ note "Mind it"\n    Body *text*\n',
        "```{note} Mind it\n:class: wide\nBody *text*\n```",
        '=== "Mind it"\n\n    Body *text*\n',
        '<TabItem value="a" label="Mind it">\n\nBody *text*\n\n</TabItem>',
    ],
)
def test_admonitions_and_tabs_of_every_generator_keep_title_and_text(text):
    assert words(text) == "Mind it Body text"
    assert "<em>text</em>" in body(text)


def test_alerts_of_github_keep_their_text():
    assert words("> [!WARNING]\n> Hot.") == "Warning Hot."


def test_components_and_imports_of_mdx_go_and_their_content_stays():
    text = (
        "import Tabs from '@theme/Tabs';\nimport {\n  Other\n} from 'x';\n\nexport const a = 1;\n\n"
        "<Tabs\n  groupId=\"os\"\n  items={['a', 'b']}>\n"
        '  <TabItem value="a" onClick={() => x > 3}>\n    Deep **text** <Badge type="new" /> `Vec<T>`.\n'
        "  </TabItem>\n</Tabs>\n{/* gone */}\n"
    )
    assert words(text) == "Deep text Vec<T> ."
    assert codes(text) == []


def test_code_that_looks_like_mdx_stays_code():
    text = "```jsx\nimport A from 'a'\n\nexport default () => <App a={1} />\n```\n"
    assert codes(text) == ["import A from 'a'\n\nexport default () => <App a={1} />\n"]
    assert '<code class="language-jsx">' in body(text)


def test_import_at_the_start_of_a_sentence_is_text():
    assert words("import the file first\nand go on.\n\nexport default settings to a file.") == (
        "import the file first and go on. export default settings to a file."
    )


@pytest.mark.parametrize(
    ("info", "language"),
    [("js title='a.js' {1}", "js"), ("{ .py .wide }", "py"), ("{code-block} c", "c"), ("c++", "c++")],
)
def test_code_has_its_language(info, language):
    assert f'class="language-{language}"' in body(f"```{info}\nx < 1\n```")


def test_tabs_of_mkdocs_in_code_stay_code():
    assert codes('```\n=== "A"\n```') == ['=== "A"\n']


def test_shortcodes_and_comments_go():
    assert words('a {{< ref "x" >}} b {{% note %}} c {% raw %} d <!-- e -->') == "a b c d"


def test_tables_definitions_footnotes_and_mathematics_are_kept():
    text = "| a | b |\n|---|---|\n| c | d |\n\nTerm\n: meaning\n\n$x^2$[^1]\n\n[^1]: foot\n"
    html = body(text)
    assert "<td>c</td>" in html
    assert "<dt>Term</dt>" in html
    assert "x^2" in words(text)
    assert "foot" in words(text)


def test_what_myst_adds_is_read():
    text = (
        "(the-target)=\n# Start\n\nSee {func}`open`.\n\n```{toctree}\na\n```\n\n```{code-block} c\n:linenos:\nx\n```\n"
    )
    assert words(text, "text/markdown; variant=myst") == "Start See open . x"


def test_embedded_pictures_and_endless_lines_cost_little():
    assert "QUJD" not in body(f"![alt text](data:image/png;base64,{'QUJD' * 100_000})")
    assert "last" in words("a: " * 100_000 + "last")


def test_html_in_markdown_is_passed_on():
    assert '<div align="center">' in body('<div align="center">\n\n**x**\n\n</div>')


# reStructuredText


def test_sections_of_rst_have_the_ids_of_docutils_and_labels_still_lead_there():
    text = ".. _start:\n\nGetting started\n===============\n\nx\n\nGetting started\n===============\n\ny\n"
    assert ids(text) == ["getting-started", "start", "id1"]


def test_api_entries_of_sphinx_have_their_ids_and_the_class_sig():
    text = (
        ".. module:: shutil\n\n.. function:: copy(src, dst)\n              copy2(src)\n\n   Copies.\n\n"
        ".. class:: Foo(x)\n\n   .. method:: bar(y)\n\n"
        "      Bars.\n\n.. c:function:: int PyList_Check(PyObject *list)\n\n   Checks.\n\n"
        ".. program:: rm\n.. option:: -f, --force FILE\n\n   Forces.\n\n"
        ".. envvar:: HOME\n\n   Home.\n\n.. js:function:: run(a)\n\n   Runs.\n"
    )
    found = tree(text, RST)
    names = [
        "shutil.copy",
        "shutil.copy2",
        "shutil.Foo",
        "shutil.Foo.bar",
        "c.PyList_Check",
        "cmdoption-rm-f",
        "envvar-HOME",
        "run",
    ]
    assert [node.id for node in found.css("dt.sig")] == names
    assert "cmdoption-rm-force" in ids(text)
    assert "Copies. Foo(x) bar(y) Bars." in words(text, RST)


def test_a_glossary_has_the_anchors_of_sphinx():
    assert "term-__slots__" in ids(".. glossary::\n\n   __slots__\n      A declaration.\n")


def test_what_only_sphinx_knows_keeps_its_text():
    text = (
        "See :func:`~os.path.join`, :ref:`the title <target>` and :custom:role:`word`.\n\n"
        ".. versionadded:: 3.8\n   The *flag*.\n\n"
        ".. weird-directive:: Label\n   :option: x\n\n   Kept.\n\n.. tab-set::\n\n"
        "   .. tab-item:: Linux\n\n      apt\n\n.. only:: html\n\n   For html.\n"
    )
    assert words(text, RST) == (
        "See join , the title and word . Added in version 3.8: The flag . Label Kept. Tab item Linux apt For html."
    )


def test_code_blocks_keep_their_language_whatever_their_options():
    text = (
        ".. code-block:: python\n   :emphasize-lines: 1\n   :caption: example.py\n\n   x = 1\n\n"
        ".. math::\n   :label: eq\n\n   a^2\n"
    )
    assert codes(text, RST) == ["x = 1", "a^2\n"]
    assert "highlight-python" in body(text, RST)
    assert "example.py" in words(text, RST)


def test_a_directive_that_docutils_cannot_read_keeps_its_text():
    assert "lost words" in words(".. table:: x\n   :widths: nonsense\n\n   lost words\n", RST)


def test_nothing_is_included_or_passed_on_raw(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden words")
    text = (
        f".. include:: {secret}\n\n.. literalinclude:: {secret}\n\n.. csv-table::\n   :file: {secret}\n\n"
        f".. raw:: html\n\n   <script>x</script>\n\n"
        f".. raw:: html\n   :file: {secret}\n\nText.\n"
    )
    html = to_html(text, RST)
    assert "hidden words" not in html
    assert "<script>" not in html
    assert "Text." in html


def test_what_one_text_defines_does_not_reach_the_next():
    before = body(":strong:`x` :mine:`y` `z`", RST)
    to_html(
        (
            ".. role:: strong(raw)\n   :format: html\n\n.. role:: mine(raw)\n   :format: html\n\n"
            ".. default-role:: mine\n\n:mine:`a`"
        ),
        RST,
    )
    to_html(".. function:: f(x)\n\n.. highlight:: c\n", RST)
    assert body(":strong:`x` :mine:`y` `z`", RST) == before


def test_the_fields_at_the_top_are_metadata():
    html = to_html(":orphan:\n:description: How to.\n\nTitle\n=====\n\nText.\n", RST)
    assert '<meta name="description" content="How to.">' in html
    assert "orphan" not in html


def test_the_same_text_gives_the_same_html_on_every_day():
    assert "20" not in body(".. |today| date::\n\nOn |today|.", RST)


# notebooks


def test_a_notebook_keeps_text_code_and_the_head_of_what_it_prints():
    stream = {"output_type": "stream", "name": "stdout", "text": [f"line {n}\n" for n in range(60)]}
    picture = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo", "text/plain": "<Figure>"}}
    error = {"output_type": "error", "traceback": ["boom"]}
    text = notebook(
        {"cell_type": "markdown", "source": ["# Read a File\n", "\n", "Like *this*:"]},
        {"cell_type": "code", "source": "open('a') < 1", "outputs": [stream, picture, error]},
        {"cell_type": "markdown", "source": "# Read a File"},
        language_info={"name": "julia"},
        title="A notebook",
    )
    html = to_html(text, NOTEBOOK)
    assert anchors(text, NOTEBOOK) == ["Read-a-File", "Read-a-File-1"]
    assert codes(text, NOTEBOOK)[0] == "open('a') < 1"
    assert "language-julia" in html
    assert "<title>A notebook</title>" in html
    assert "line 39\n…" in html
    assert not any(word in html for word in ("line 40", "iVBOR", "boom"))


def test_notebooks_of_the_format_before_are_read_too():
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Old"},
        {"cell_type": "code", "input": "x = 1", "language": "python"},
    ]
    assert words(json.dumps({"worksheets": [{"cells": cells}]}), NOTEBOOK) == "Old x = 1"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [1]}', "[" * 100_000, "version https://git-lfs"]
)
def test_a_notebook_that_is_none_is_a_parse_error(text):
    with pytest.raises(ParseError) as caught:
        to_html(text, NOTEBOOK)
    assert caught.value.reason == "bad_notebook"


# plain text


def test_plain_text_has_headings_paragraphs_lists_and_code():
    text = (
        "Title\n=====\n\nFirst <line>\nsecond line.\n\nPart {#page=2}\n----\n\n- one\n- two\n"
        "  goes on\n\nRun:\n\n    make\n\n    make test\n"
    )
    assert body(text, PLAIN).split("\n\n")[0].startswith("<h1>Title</h1>\n<p>First &lt;line&gt;\nsecond line.</p>\n")
    assert '<h2 id="page=2">Part</h2>' in body(text, PLAIN)
    assert re.findall(r"<li>(.*?)</li>", body(text, PLAIN), re.DOTALL) == ["one", "two\n  goes on"]
    assert codes(text, PLAIN) == ["make\n\nmake test"]


def test_a_man_page_as_text_has_its_headings():
    text = (
        "LS(1)          User Commands          LS(1)\n\nN\bNA\bAM\bME\bE\n       ls - list\n\n"
        "DESCRIPTION\n       List files.\n       By name.\n\n"
        "   Exit status\n       0 if OK\n\n       Example:\n\n           ls -l\n"
    )
    found = tree(text, PLAIN)
    assert [node.text() for node in found.css("h2, h3")][1:] == ["NAME", "DESCRIPTION", "Exit status"]
    assert codes(text, PLAIN) == ["ls -l"]
    assert [node.text().split() for node in found.css("p")][1] == ["List", "files.", "By", "name."]


def test_plain_text_is_escaped_and_columns_stay_columns():
    assert body("\x1b[1mbold\x1b[0m", PLAIN) == "<p>bold</p>"
    assert body("<script>x</script> & more", PLAIN) == "<p>&lt;script&gt;x&lt;/script&gt; &amp; more</p>"
    assert codes("name    meaning\nport    where\nhost    who", PLAIN) == [
        "name    meaning\nport    where\nhost    who"
    ]


# anything


@pytest.mark.parametrize("content_type", [MARKDOWN, RST, PLAIN])
@pytest.mark.parametrize(
    "unit",
    [
        "> ", "- ", "[", "![", "*", "**a ", "`", "<", "<A ", "<A {", "<A b='", "{{< ", "{% ", "{/*", "$", "$$\n",
        ":::note\n", "!!! a\n    ", "```{note}\n", "a | ", "|", "[^1]: ", "(((", "]]", "&", "\\", "_`", "``",
        ":a:`", "|a", ".. note::\n   ", "::\n\n ", "+-", "= ", "* a\n  ", "(*", "a: ", "#", "===\n", "x\n\n  ",
        "<!--", "http://a", "'''", "{#", "~~", '=== "',
    ],
)  # fmt: skip
def test_no_repetition_makes_it_slow_or_fail(content_type, unit):
    to_html("x\n\n" + unit * (8000 // len(unit)), content_type)


@pytest.mark.parametrize("content_type", [MARKDOWN, RST])
def test_a_text_that_is_too_long_is_read_as_plain_text(content_type):
    assert "last words" in to_html("# x *y*\n" * 300_000 + "last words", content_type)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from(TYPES))
def test_any_text_gives_html_or_a_parse_error(text, content_type):
    check_never_fails(text, content_type)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(["\n", "\n\n", " ", "", "\n   "])), max_size=30),
    st.sampled_from(TYPES),
)
def test_any_mixture_of_constructs_gives_html_or_a_parse_error(parts, content_type):
    check_never_fails("".join(fragment + gap for fragment, gap in parts), content_type)


KEYS = ["cell_type", "source", "outputs", "output_type", "text", "data", "level", "worksheets", "title"]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.sampled_from(["markdown", "code", "stream"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(JSON, JSON)
def test_any_notebook_gives_html_or_a_parse_error(cells, metadata):
    check_never_fails(json.dumps({"cells": cells, "metadata": metadata}), NOTEBOOK)


def check_never_fails(text, content_type):
    try:
        html = to_html(text, content_type)
    except ParseError:
        assert content_type == NOTEBOOK
    else:
        assert html.startswith("<!DOCTYPE html>")
