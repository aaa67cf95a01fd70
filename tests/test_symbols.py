"""Symbols: names, flags, commands and codes that a page defines lead to one section each."""

import pytest

from tests.pages import URL, sections


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<section id=module-shutil><h1>shutil — Files</h1>t</section>", ("#module-shutil", "shutil")),
        ("<h1>T</h1><dl><dt class=sig id=c.PyX><span class=sig-name>PyX</span>(a)<dd>t</dl>", ("#c.PyX", "PyX")),
        (
            "<h1>T</h1><dl><dt class=sig id=envvar-HOME><span class=sig-name>HOME</span><dd>t</dl>",
            ("#envvar-HOME", "HOME"),
        ),
        ("<h1>T</h1><dl><dt class=sig id=cmdoption-h>-h, --help<dd>t</dl>", ("#cmdoption-h", "--help")),
        ("<h1 id=x>OPTIONS</h1><dl><dt><b>-v</b> <i>N</i><dd>t</dl>", ("#x", "-v")),
        ("<h1>T</h1><dl><dt id=v><a class=permalink href=#v><code>-v</code></a><dd>t</dl>", ("#v", "-v")),
        ("<h1>T</h1><dl><dt><a name=opt></a>work_mem (integer)<dd>t</dl>", ("#opt", "work_mem")),
        (
            "<title>Vec in std::vec - Rust</title><h1>Struct Vec</h1><section id=method.push><h4 class=code-header>"
            "pub fn push(&amp;mut self)</h4></section><p>t",
            ("#method.push", "std::vec::Vec::push"),
        ),
        (
            "<title>P in a::b - Rust</title><h1>Struct P</h1><span id=structfield.x><a href=#structfield.x>§</a><code>"
            "x: T</code></span><div>t</div>",
            ("#structfield.x", "a::b::P::x"),
        ),
        (
            "<div>Package <a>java.util</a></div><h1>Class Box</h1><section id='open(int)'><h3>open</h3><div "
            "class=member-signature>void open(int a)</div>t</section>",
            ("#open(int)", "java.util.Box.open"),
        ),
        (
            "<h1>n::Box Class Reference</h1><a id=a1></a><h2 class=memtitle><span class=permalink><a href=#a1>◆</a>"
            "</span>open() <span>[1/2]</span></h2><div class=memitem>t</div>",
            ("#a1", "n::Box::open"),
        ),
        (
            "<title>Python: module bag</title><table><tr><td colspan=3 class=section-title><a name=Box>class <b>Box</b>"
            "</a><tr><td><dl><dt><a name=Box-open><strong>open</strong></a>(self)<dd>t</dl></table>",
            ("#Box-open", "bag.Box.open"),
        ),
        ("<h1>T</h1><h2 id=pkg.mod.f>f(x)</h2>t", ("#pkg.mod.f", "pkg.mod.f")),
        ("<h1>T</h1><h3 id=f><code>defineConfig(options)</code></h3>t", ("#f", "defineConfig")),
        ("<h1>M</h1><h2><a id=dirindex name=dirindex>DirIndex</a> Directive</h2>t", ("#dirindex", "DirIndex")),
        ("<h1>All calls</h1><h4 class=name id='.seal'>(static) seal(above)</h4>t", ("#.seal", "seal")),
    ],
)
def test_symbols_are_named_whole_whatever_generator_wrote_them(html, expected):
    found = sections(f"<main>{html}</main>" if "<title>" not in html and "Package" not in html else html)[-1]
    assert (found.url.removeprefix(URL), found.symbol, found.kind) == (*expected, "api")


def test_further_names_of_one_entry_are_found_at_their_own_anchors_with_the_first_words_they_share():
    html = "<h1>T</h1><dl><dt class=sig id=a.f>f(x)<dt class=sig id=b.f>b.f(x)<dd>Does it.<p>At length.</dl>"
    assert [(s.url.removeprefix(URL), s.symbol, s.text) for s in sections(html)] == [
        ("#a.f", "a.f", "f(x)\nDoes it.\n\nAt length."),
        ("#b.f", "b.f", "b.f(x)\n\nDoes it."),
    ]


def test_further_names_without_an_anchor_are_aliases_of_the_first():
    html = "<h1>Some words</h1><dl><dt id=x>-x <i>FILE</i><dt>--extract<dd>Does it.</dl>"
    assert [(s.symbol, s.aliases) for s in sections(html)] == [("-x", ("--extract",))]


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        ("-f, --file=ARCHIVE", ["--file", "-f"]),
        ("-f FILE | --file FILE", ["--file", "-f"]),
        ("-j[N], --jobs[=N]", ["--jobs", "-j"]),
        ("--[no-]color[=when]", ["--color", "--no-color"]),
        ("--format=<a-b -c>, -F", ["--format", "-F"]),
        ("-", ["-"]),
    ],
)
def test_a_flag_is_found_by_each_of_its_spellings(signature, names):
    signature = signature.replace("<", "&lt;")
    found = sections(f"<h1>Some words</h1><dl><dt class=sig id=o>{signature}<dd>t</dl>")[-1]
    assert [found.symbol, *found.aliases] == names


def test_a_flag_is_found_together_with_the_command_of_its_id_or_page():
    html = "<dl><dt class=sig id=cmdoption-trace-c>-c, --count<dd>t</dl>"
    assert sections(f"<h1>T</h1>{html}")[-1].aliases == ("-c", "trace --count", "trace -c")
    html = "<h1>curl</h1><dl><dt id=o>-o<dd>t</dl>"
    assert sections(html)[-1].aliases == ("curl -o",)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<dt class=sig id=import__><span class=sig-name>__import__</span>(x)", ("#import__", "__import__")),
        (
            "<dt class=sig id=thread.exit><span class=sig-prename>_thread.</span><span class=sig-name>exit</span>()",
            ("#thread.exit", "_thread.exit"),
        ),
        ("<dt id=term-0>&gt;&gt;&gt;", ("#term-0", ">>>")),
        ("<dt class=sig id=pdbcommand-clear><span class=sig-name>cl(ear)</span> [x]", ("#pdbcommand-clear", "clear")),
        (
            "<dt class=sig id=directive-code-block><span class=sig-name>.. code-block::</span> language",
            ("#directive-code-block", "code-block"),
        ),
        (
            "<dt class=sig id=django-admin-check><span class=sig-name>django-admin check</span> [app]",
            ("#django-admin-check", "check"),
        ),
        (
            "<dt class=sig id=_CPPv4I0EN3lib3Box4openE1T>template&lt;<span class=sig-name>T</span>&gt; void <span "
            "class=sig-name>open</span>(T)",
            ("#_CPPv4I0EN3lib3Box4openE1T", "lib::Box::open"),
        ),
        ("<dt class=sig id=copyright><span class=sig-name>copyright</span>", ("#copyright", "copyright")),
    ],
)
def test_names_that_ids_cannot_hold_or_that_look_like_a_closing_line_are_kept(html, expected):
    found = sections(f"<h1>T</h1><p>Words.</p><dl>{html}<dd>t</dl>")[-1]
    assert (found.url.removeprefix(URL), found.symbol) == expected


MANUAL = """<title>GIT-LOG(1)</title><h1 id=NAME><a class=permalink href="#NAME">NAME</a></h1>
<p>git-log, glog - Show commit logs</p><h1 id=SYNOPSIS>SYNOPSIS</h1><p>git log [options]</p><h1 id=OPTIONS>OPTIONS</h1>
{options}<h1 id=SEE_ALSO>SEE ALSO</h1><p>git(1)</p>"""


@pytest.mark.parametrize(
    "options",
    [
        "<p>-n, --max=<i>N</i></p><div class=Bd-indent>Limits.</div><p>--follow</p><div class=Bd-indent>Goes on.</div>",
        "<P>\n-n, --max=<i>N</i>\n<DL COMPACT><DT><DD>Limits.</DL>\n<P>\n--follow\n<DL COMPACT><DT><DD>Goes on.</DL>",
        "<dl><dt>-n, --max=<i>N</i><dd>Limits.<dt>--follow<dd>Goes on.</dl>",
        """<p style="margin-left:11%">-n, --max=N</p><p style="margin-left:17%">Limits.</p>
        <p style="margin-left:11%">--follow</p><p style="margin-left:17%">Goes on.</p>""",
    ],
)
def test_a_manual_page_is_found_by_its_names_and_each_option_with_its_command(options):
    found = {s.symbol: (s.aliases, s.text) for s in sections(MANUAL.format(options=options)) if s.symbol}
    assert found == {
        "git-log": (("glog", "git log"), "git-log, glog - Show commit logs"),
        "--max": (("-n", "git log --max", "git log -n"), "Limits."),
        "--follow": (("git log --follow",), "Goes on."),
    }


def test_settings_and_commands_of_a_manual_page_are_sections_and_paragraphs_of_other_pages_are_not():
    options = (
        "<p>ExecStart=, ExecStop=</p><div class=Bd-indent>Runs.</div><p>list [X]</p><div class=Bd-indent>Lists.</div>"
    )
    found = [(s.symbol, s.aliases) for s in sections(MANUAL.format(options=options)) if s.text in {"Runs.", "Lists."}]
    assert found == [("ExecStart", ("ExecStop",)), ("list", ("git log list",))]
    assert [s.symbol for s in sections(f"<h1>T</h1>{options}")] == [""]


def test_a_permalink_around_the_beginning_of_a_term_is_part_of_it():
    html = "<h1>T</h1><dl><dt id=p><a class=permalink href='#p'><code>-p</code></a> <var>port</var><dd>t</dl>"
    assert [(s.symbol, s.headings[-1]) for s in sections(html)] == [("-p", "-p port")]


@pytest.mark.parametrize(
    ("html", "symbol"),
    [
        ("<h2 id=x>E501 line too long</h2>t", "E501"),
        ("<h2 id=x>Error TS2304: Cannot find name</h2>t", "TS2304"),
        ("<h2 id=x>SQLSTATE 42P01</h2>t", "42P01"),
        ("<dl><dt>EACCES<dd>t</dl>", "EACCES"),
        ("<dl><dt id=x>EAGAIN or EWOULDBLOCK<dd>t</dl>", "EAGAIN"),
        ("<h2 id=x>EXAMPLES</h2>t", ""),
        ("<h2 id=x>2023 in review</h2>t", ""),
    ],
)
def test_codes_of_errors_are_symbols(html, symbol):
    assert sections(f"<h1>Errors that occur</h1>{html}")[-1].symbol == symbol


def test_settings_without_an_address_are_sections_and_parameters_of_a_function_are_not():
    html = "<h1 id=x>Keys</h1><p>All.<dl><dt>core.editor<dd>Text.<dt>work_mem (integer)<dd>More.</dl>"
    assert [(s.url.removeprefix(URL), s.symbol, s.kind) for s in sections(html)[1:]] == [
        ("#x", "core.editor", "api"),
        ("#x", "work_mem", "api"),
    ]
    assert len(sections(html.replace("core.editor", "name"))) == 1
    html = "<h1>T</h1><dl><dt class=sig id=m.f>f(a_min)<dd>t<dl><dt>a_min<dd>Least.</dl></dl>"
    assert [s.symbol for s in sections(html)] == ["m.f"]
