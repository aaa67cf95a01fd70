"""The generators of prose: Sphinx, MkDocs, Docusaurus, VitePress, mdBook, Hugo, AsciiDoc, DocBook, man, HTML.

Generator.render(pages, workshop) → workshop.site;  Generator.expected(page) → [Expected, …]
"""

import json
import re
from collections.abc import Iterable
from functools import partial

from bench.corpus import dialects
from bench.corpus.dialects import Dialect
from bench.corpus.generator import SYMBOLS, Generator, Pages, css_headings, one, pandoc
from bench.corpus.pages import IMAGE, Block, Expected, Output, SourcePage, expect
from bench.corpus.workshop import HERE, Workshop, require

DOCBOOK_STYLESHEET = "/usr/share/xml/docbook/stylesheet/docbook-xsl/html/chunk.xsl"

NUMBERED = "bash,powershell,yaml,javascript,rust,sql,ini,c,toml,python,json"
"""Languages whose blocks get line numbers, which stand in a table of their own or in front of each line."""

_HTML_HEADING = re.compile(r'<h([1-6]) id="([^"]*)">(.*?)</h\1>', re.DOTALL)
_TARGET_LINK = re.compile(r"\[([^\]]*)\]\([\w-]+\.md\)")


def _sphinx(theme: str, pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.directive, calls=dialects.python_directives)
    for page in pages:
        shop.write(f"{page.name}.md", dialect.write(page.blocks))
    shop.write("index.md", "# Tidewater\n\n" + dialects.directive("toctree", "\n".join(p.name for p in pages)))
    shop.copy(IMAGE)
    settings = {
        "project": "Tidewater",
        "copyright": "Oysterhaven",
        "html_theme": theme,
        "extensions": "myst_parser,sphinx.ext.mathjax",
        "myst_enable_extensions": "dollarmath,deflist",
        "html_codeblock_linenos_style": "table" if theme == "alabaster" else "inline",
        "myst_number_code_blocks": NUMBERED if theme in {"alabaster", "sphinx_rtd_theme"} else "",
    }
    options = [part for key, value in settings.items() for part in ("-D", f"{key}={value}")]
    shop.run(shop.venv_tool("sphinx-build"), "-C", "-q", *options, ".", shop.site)


def _sphinx_page(page: SourcePage) -> list[Expected]:
    return [expect(f"{page.name}.html", page.blocks, SYMBOLS, also=f"class {dialects.CLASS}")]


def _mkdocs(configuration: str, pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.exclaimed)
    for page in pages:
        shop.write(f"docs/{page.name}.md", dialect.write(page.blocks))
    shop.write("docs/index.md", "# Tidewater\n\nGates of small harbours.\n")
    shop.copy(IMAGE, "docs")
    shop.write("mkdocs.yml", (HERE / "mkdocs" / f"{configuration}.yml").read_text())
    shop.run(
        shop.venv_tool("mkdocs"), "build", "--quiet", "--site-dir", shop.site, environment={"NO_MKDOCS_2_WARNING": "1"}
    )


def _docusaurus(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.colons, definitions=dialects.bullets, calls=dialects.bullets)
    for page in pages:
        shop.write(f"docs/{page.name}.md", dialect.write(page.blocks))
    shop.copy(IMAGE, "docs")
    shop.copy(HERE / "docusaurus")
    shop.node_packages()
    shop.run("npx", "docusaurus", "build", "--out-dir", shop.site, environment={"DOCUSAURUS_NO_TELEMETRY": "1"})


def _vitepress(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.container, definitions=dialects.bullets, calls=dialects.bullets)
    for page in pages:
        shop.write(f"docs/{page.name}.md", dialect.write(page.blocks))
    shop.write("docs/index.md", "---\nlayout: home\nhero: {name: Tidewater}\n---\n")
    shop.copy(IMAGE, "docs")
    shop.copy(HERE / "vitepress" / "package.json")
    shop.copy(HERE / "vitepress" / "config.mjs", "docs/.vitepress")
    shop.node_packages()
    shop.run("npx", "vitepress", "build", "docs", "--outDir", shop.site)


def _mdbook(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.alert)
    for page in pages:
        shop.write(f"src/{page.name}.md", dialect.write(page.blocks))
    shop.write("src/SUMMARY.md", "\n".join(f"- [{page.title}]({page.name}.md)" for page in pages))
    shop.copy(IMAGE, "src")
    shop.write("book.toml", '[book]\ntitle = "Tidewater"\n')
    shop.run(shop.venv_tool("mdbook"), "build", "--dest-dir", shop.site)


def _hugo(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.quoted, link="../{}/")
    for page in pages:
        front = f"---\ntitle: {json.dumps(page.title)}\n---\n\n"
        shop.write(f"content/guide/{page.name}.md", front + dialect.write(page.blocks))
    shop.copy(HERE / "hugo")
    shop.copy(IMAGE, "static/guide")
    shop.run(require("hugo", "Debian's hugo"), "--quiet", "--destination", shop.site)


def _pandoc(pages: Pages, shop: Workshop) -> None:
    _templated("pandoc", pages, shop)


def _handwritten(pages: Pages, shop: Workshop) -> None:
    """Pages as people wrote them before generators: tables for layout, named anchors, no roles and no ids."""
    _templated("handwritten", pages, shop)
    for page in shop.site.glob("*.html"):
        page.write_text(_HTML_HEADING.sub(r'<a name="\2"></a><h\1>\3</h\1>', page.read_text()))


def _templated(template: str, pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.fenced_div, link="{}.html")
    site = [{"href": f"{page.name}.html", "title": page.title} for page in pages]
    metadata = shop.write("site.json", json.dumps({"site": site}))
    shop.site.mkdir(parents=True, exist_ok=True)
    layout = ("--template", str(HERE / "html" / f"{template}.html"), "--metadata-file", str(metadata))
    for page in pages:
        title = ("--metadata", f"pagetitle={page.title}")
        html = pandoc(shop, page, dialect.write(page.blocks), "--to=html", "--mathjax", "--toc", *layout, *title)
        (shop.site / f"{page.name}.html").write_text(html)


def _unlinked(blocks: Iterable[Block]) -> str:
    return _TARGET_LINK.sub(r"\1", Dialect(admonition=dialects.fenced_div).write(blocks))


def _manual(page: SourcePage) -> tuple[Block, ...]:
    """Return a page as manuals are laid out: name and purpose first, no heading above the sections."""
    return (Block("heading", "Name", "2"), Block("text", f"{page.name} - {page.title}"), *page.blocks[1:])


def _man(to_html: tuple[str, ...], pages: Pages, shop: Workshop) -> None:
    command = (require(to_html[0], f"Debian's {to_html[0]}"), *to_html[1:])
    options = ("--to=man", "--standalone", "--shift-heading-level-by=-1", "--metadata=section=7")
    shop.site.mkdir(parents=True, exist_ok=True)
    for page in pages:
        text = pandoc(shop, page, _unlinked(_manual(page)), *options, f"--metadata=title={page.name}")
        manual = shop.write(f"{page.name}.7", text)
        (shop.site / f"{page.name}.7.html").write_bytes(shop.run(*command, manual))


def _man_page(page: SourcePage, output: Output) -> list[Expected]:
    return [expect(f"{page.name}.7.html", _manual(page), output, also=page.name)]


def _asciidoctor(pages: Pages, shop: Workshop) -> None:
    options = ("--to=asciidoctor", "--standalone", "--shift-heading-level-by=-1")
    dialect = Dialect(admonition=dialects.fenced_div, link="{}.html")
    for page in pages:
        text = pandoc(shop, page, dialect.write(page.blocks), *options)
        shop.write(f"{page.name}.adoc", text)
    shop.copy(IMAGE)
    command = (
        require("asciidoctor", "Debian's asciidoctor"),
        "-a",
        "toc=left",
        "-a",
        "sectlinks",
        "-a",
        "stem=latexmath",
    )
    shop.run(*command, "--destination-dir", shop.site, *sorted(shop.input.glob("*.adoc")))


def _docbook(pages: Pages, shop: Workshop) -> None:
    """One book, cut into a page for each chapter."""
    options = ("--from=markdown", "--to=docbook5", "--top-level-division=chapter")
    texts = [f"# {page.title} {{#page}}\n\n{_unlinked(page.blocks[1:])}" for page in pages]
    chapters = (
        pandoc(shop, page, text, *options, f"--id-prefix={page.name}-") for page, text in zip(pages, texts, strict=True)
    )
    book = "\n".join(chapters)
    shop.write(
        "book.xml",
        '<book xmlns="http://docbook.org/ns/docbook" xmlns:xlink="http://www.w3.org/1999/xlink" version="5.0">'
        f"<title>Tidewater</title>{book}</book>",
    )
    shop.copy(IMAGE)
    shop.site.mkdir(parents=True, exist_ok=True)
    output = ("--stringparam", "base.dir", f"{shop.site}/", "--stringparam", "chunk.section.depth", "0")
    names = ("--stringparam", "use.id.as.filename", "1")
    shop.run(require("xsltproc", "Debian's xsltproc"), *output, *names, DOCBOOK_STYLESHEET, "book.xml")


SPHINX_THEMES = {
    "alabaster": ("alabaster", "div.body"),
    "rtd": ("sphinx_rtd_theme", "div[role=main]"),
    "furo": ("furo", "article[role=main]"),
    "classic": ("classic", "div.body"),
    "shibuya": ("shibuya", "article"),
    "pydata": ("pydata_sphinx_theme", "article.bd-article"),
}


PROSE_GENERATORS: tuple[Generator, ...] = (
    *(
        Generator(
            name=f"sphinx-{name}",
            render=partial(_sphinx, theme),
            expected=_sphinx_page,
            headings=css_headings(content),
            anchors=("section",),
            symbols=f"{content} dt.sig",
        )
        for name, (theme, content) in SPHINX_THEMES.items()
    ),
    Generator(
        name="mkdocs-readthedocs",
        render=partial(_mkdocs, "readthedocs"),
        expected=partial(one, "{}/index.html"),
        headings=css_headings("div[role=main]"),
    ),
    Generator(
        name="mkdocs-material",
        render=partial(_mkdocs, "material"),
        expected=partial(one, "{}/index.html"),
        headings=css_headings("article.md-content__inner"),
    ),
    Generator(
        name="docusaurus",
        render=_docusaurus,
        expected=partial(one, "docs/{}/index.html"),
        headings=css_headings("article"),
    ),
    Generator(
        name="vitepress",
        render=_vitepress,
        expected=partial(one, "{}.html", output=Output(math=False)),
        headings=css_headings("main"),
    ),
    Generator(name="mdbook", render=_mdbook, expected=partial(one, "{}.html"), headings=css_headings("main")),
    Generator(
        name="hugo",
        render=_hugo,
        expected=partial(one, "guide/{}/index.html"),
        headings=css_headings("div.content"),
    ),
    Generator(
        name="pandoc",
        render=_pandoc,
        expected=partial(one, "{}.html"),
        headings=css_headings("body"),
    ),
    Generator(
        name="handwritten",
        render=_handwritten,
        expected=partial(one, "{}.html"),
        headings=css_headings("body"),
        anchors=("before",),
    ),
    Generator(
        name="mandoc",
        render=partial(_man, ("mandoc", "-Thtml")),
        expected=partial(_man_page, output=Output(math=False)),
        headings=css_headings("body"),
        keeps_language=False,
        keeps_blank_lines=False,
    ),
    Generator(
        name="groff",
        render=partial(_man, ("groff", "-Thtml", "-man", "-t", "-Kutf8")),
        expected=partial(_man_page, output=Output(levels=2, math=False, tables=False)),
        headings=css_headings("body"),
        anchors=("inside",),
        keeps_language=False,
        keeps_blank_lines=False,
    ),
    Generator(
        name="asciidoctor",
        render=_asciidoctor,
        expected=partial(one, "{}.html"),
        headings=css_headings("body"),
    ),
    Generator(
        name="docbook",
        render=_docbook,
        expected=partial(one, "{}-page.html", output=Output(math=False)),
        headings=css_headings("div.chapter"),
        anchors=("inside", "self"),
        keeps_language=False,
    ),
)
