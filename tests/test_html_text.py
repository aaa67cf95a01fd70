"""Markup to text: what is kept, how blocks, lists, tables and code look, which bytes mean which text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.html_text import TextReducer, clean_html_content, decode_html, is_html
from utils.html_visibility import hidden_names, hides


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a < b &amp; c", "a < b & c"),
        ("<p>one\n  <b>two</b></p><p>three</p>", "one two\n\nthree"),
        ("<div><div>one</div></div>two", "one\n\ntwo"),
        ("one<br>two", "one\ntwo"),
        ("<ul><li>a<ul><li>b</ul><li><p>c</ul>d", "- a\n  - b\n- c\n\nd"),
        ("<table><tr><th>a<th>b<tr><td><p>1</p><td>2</table>", "a | b\n1 | 2"),
        ("<dl><dt>term</dt><dd><p>meaning</p></dd><dt>other</dt></dl>", "term\nmeaning\n\nother"),
        ("before<pre>\n  x = 1\n\n  y</pre>after", "before\n\n  x = 1\n\n  y\n\nafter"),
        ("<pre><code><div>a</div><div>b</div></code></pre>", "a\nb"),
        ("<pre>a<br>b</pre>", "a\nb"),
        ('see <img src=x alt="the plan"> here', "see the plan here"),
        ("", ""),
    ],
)
def test_blocks_become_paragraphs_lines_rows_and_verbatim_code(html, text):
    assert clean_html_content(html) == text


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>kept",
        "<head><title>x</title><style>x</style></head>kept",
        "<template>x</template><noscript>x</noscript><svg><title>x</title><text>x</text></svg>kept",
        "<p hidden>x<br/>x</p>kept",
        "<div hidden><div>x</div>x</div>kept",
        '<span style="color:red; DISPLAY : none">x</span>kept',
        "<ul><li hidden>x<li style='display:none'>x</ul>kept",
        "ke&shy;p\u200bt\ufeff",
        'kept<a href="#kept">¶</a><span aria-hidden="true">#</span>',
        "<![if lt IE 9]><![weird[>kept<!-- x -->",
    ],
)
def test_what_no_reader_sees_is_dropped(html):
    assert clean_html_content(html) == "kept"


def test_findable_text_and_panels_of_tabs_stay():
    assert clean_html_content('<p hidden="until-found">more</p><div role=tabpanel hidden>tab</div>') == "more\n\ntab"


def test_a_dropped_element_without_an_end_does_not_swallow_what_follows_its_parent():
    assert clean_html_content("<section><span hidden>x</section><p>kept") == "kept"


@given(st.text(alphabet=st.sampled_from("<>/!&;=\"' ab\n-[]") | st.characters(codec="utf-8"), max_size=200))
def test_any_string_gives_text_and_no_error(html):
    text = clean_html_content(html)
    assert text == text.strip("\n")


def test_lists_nested_without_end_cost_bounded_indentation():
    depth = 3000
    assert len(clean_html_content("<ul><li>x" * depth)) < depth * 30


def test_a_lead_begins_the_paragraph_that_follows_it():
    reducer = TextReducer()
    for tag, text in (("p", "Note"), ("p", "Mind the gap."), ("p", "Twice.")):
        reducer.start_block(tag)
        reducer.data(text)
        if text == "Note":
            reducer.lead()
        reducer.end_block(tag)
    assert reducer.text() == "Note: Mind the gap.\n\nTwice."


@pytest.mark.parametrize(
    "style",
    [
        "display:none",
        "Visibility: Hidden",
        "opacity:0",
        "opacity: 0.0 !important",
        "font-size:0px",
        "position:absolute; left:-9999px",
        "text-indent:-999em",
        "clip: rect(0 0 0 0)",
        "clip-path: inset(50%)",
        "height:1px;overflow:hidden",
        "color:#fff;background-color:white",
        "color: transparent",
    ],
)
def test_a_style_that_leaves_nothing_to_see_hides(style):
    assert hides(style)


@pytest.mark.parametrize(
    "style", ["", "opacity:0.5", "font-size:0.9em", "left:-9999px", "color:#fff;background:#000", "height:0", "::;:"]
)
def test_a_style_that_shows_something_does_not_hide(style):
    assert not hides(style)


def test_names_are_hidden_by_their_own_rules_only():
    css = """/* .no { display:none } */ .a, p.b { font-size: 0 } #c { display: none } .d > .e { display: none }
    .f { display: none } .open .f { display: block } @media print { .g { display: none } .h { display: none } }
    .tab-pane { display: none } @media screen { .i { opacity: 0 } } .j { display: none"""
    assert hidden_names(css) == {".a", ".b", "#c", ".i", ".j"}


def test_rules_of_a_style_are_read_in_linear_time():
    for css in ("/*" * 50_000, "@media" * 30_000, "a" * 150_000, ".a{" * 50_000, "}" * 150_000):
        hidden_names(css)


GERMAN, RUSSIAN, JAPANESE = "<p>Größe – “Maß”</p>", "<p>Привет, мир</p>", "<p>日本語の文書</p>"


@pytest.mark.parametrize(
    ("text", "encoding", "content_type"),
    [
        (GERMAN, "utf-8", "text/html"),
        (GERMAN, "utf-8", "text/html; charset=iso-8859-1"),
        (GERMAN, "utf-8", "text/html; charset=shift_jis"),
        (GERMAN, "utf-8", "text/html; charset=no-such-charset"),
        (GERMAN, "utf-8-sig", "text/html; charset=cp1252"),
        (GERMAN, "utf-16", "text/html; charset=utf-8"),
        (GERMAN, "utf-16-le", 'text/html; charset="UTF-16LE"'),
        (GERMAN, "cp1252", "text/html; charset=utf-8"),
        (GERMAN, "cp1252", "text/html; charset=ISO-8859-1"),
        (GERMAN, "cp1252", ""),
        (RUSSIAN, "koi8-r", "text/html; charset=koi8-r"),
        (RUSSIAN, "cp1251", "text/html; charset='windows-1251'"),
        (JAPANESE, "shift_jis", "text/html; charset=Shift_JIS"),
        (JAPANESE, "iso2022_jp", "text/html; charset=iso-2022-jp"),
        ("<p>plain</p>", "ascii", "text/html; charset=utf-16"),
        ("<p>1 +AGE-</p>", "ascii", "text/html; charset=utf-7"),
    ],
)
def test_bytes_are_decoded_without_mojibake_even_under_a_wrong_header(text, encoding, content_type):
    assert decode_html(text.encode(encoding), content_type) == text


def test_meta_charset_counts_when_the_header_names_none():
    html = f'<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">{RUSSIAN}'
    assert decode_html(html.encode("cp1251"), "text/html") == html


@given(st.binary(max_size=64), st.sampled_from(["", "charset=utf-16", "charset=idna", "charset=zip", "charset=gbk"]))
def test_any_bytes_are_decoded(body, content_type):
    assert isinstance(decode_html(body, content_type), str)


def test_markup_is_known_by_its_type_and_untyped_bodies_by_their_beginning():
    assert is_html("<p>x", "text/html; charset=utf-8")
    assert is_html("<!DOCTYPE html><p>x", "application/octet-stream")
    assert not is_html("%PDF", "application/pdf")
    assert not is_html("just words", "text/plain")
    assert not is_html("\0\0binary", "text/html")
