"""More generators, none of which the parser was made for: HonKit, Jekyll, JSDoc, TypeDoc.

Generator.render(pages, workshop) → workshop.site;  Generator.expected(page) → [Expected, …]
"""

import json
from functools import partial

from bench.corpus import dialects
from bench.corpus.dialects import Dialect
from bench.corpus.generator import SYMBOLS, Generator, Pages, css_headings, documented, one
from bench.corpus.pages import EVERYTHING, IMAGE, Entry, Expected, SourcePage, expect
from bench.corpus.workshop import HERE, Workshop, require

_PLAIN = Dialect(admonition=dialects.quoted, definitions=dialects.bullets, calls=dialects.bullets)


def _honkit(pages: Pages, shop: Workshop) -> None:
    for page in pages:
        shop.write(f"{page.name}.md", _PLAIN.write(page.blocks))
    shop.write("README.md", "# Tidewater\n\nGates of small harbours.\n")
    shop.write("SUMMARY.md", "# Summary\n\n" + "\n".join(f"* [{page.title}]({page.name}.md)" for page in pages))
    shop.copy(IMAGE)
    shop.copy(HERE / "honkit")
    shop.node_packages()
    shop.run("npx", "honkit", "build", ".", shop.site)


def _jekyll(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.quoted, link="{}.html")
    for page in pages:
        front = f"---\nlayout: page\ntitle: {json.dumps(page.title)}\n---\n\n"
        shop.write(f"{page.name}.md", front + dialect.write(page.blocks[1:]))
    shop.write("_config.yml", "title: Tidewater\ndescription: Gates of small harbours\ntheme: minima\n")
    shop.copy(IMAGE)
    shop.run(require("jekyll", "Debian's jekyll and jekyll-theme-minima"), "build", "--destination", shop.site)


def _script_comment(text: str) -> str:
    return "/**\n" + "\n".join(f" * {line}" for line in text.splitlines()) + "\n */"


def _jsdoc(pages: Pages, shop: Workshop) -> None:
    for page in pages:
        shop.write(f"prose/{page.name}.md", _PLAIN.write(page.prose))
        functions = (
            _script_comment("\n".join((call.text, *(f"@param {{string}} {name}" for name in call.parameters))))
            + f"\nexport function {call.term}({', '.join(call.parameters)}) {{}}"
            for call in page.calls
        )
        head = _script_comment(f"@module {page.identifier}")
        shop.write(f"code/{page.identifier}.js", "\n\n".join((head, *functions)) + "\n")
    shop.copy(HERE / "javascript")
    shop.node_packages()
    settings = {"plugins": ["plugins/markdown"], "markdown": {"idInHeadings": True}, "source": {"include": ["code"]}}
    options = ("-c", shop.write("jsdoc.json", json.dumps(settings)), "-u", "prose", "-d", shop.site)
    shop.run("npx", "jsdoc", *options)


def _jsdoc_pages(page: SourcePage) -> list[Expected]:
    parameters = " ".join(name for call in page.calls for name in call.parameters)
    functions = f"{page.identifier} string {parameters} {parameters}"
    module = expect(f"module-{page.identifier}.html", documented(page.calls), SYMBOLS, also=functions)
    return [expect(f"tutorial-{page.name}.html", page.prose, EVERYTHING), module]


def _typed(call: Entry) -> str:
    return f"{call.term}({', '.join(f'{name}: string' for name in call.parameters)}): string"


def _typedoc(pages: Pages, shop: Workshop) -> None:
    for page in pages:
        front = f"---\ntitle: {page.identifier}\n---\n\n"
        shop.write(f"prose/{page.name}.md", front + _PLAIN.write(page.prose))
        functions = (f"{_script_comment(call.text)}\nexport declare function {_typed(call)};" for call in page.calls)
        shop.write(f"code/{page.identifier}.ts", "\n\n".join(functions) + "\n")
    shop.copy(IMAGE, "prose")
    shop.copy(HERE / "javascript")
    shop.write("tsconfig.json", json.dumps({"include": ["code"]}))
    shop.node_packages()
    settings = {"name": "Tidewater", "entryPoints": ["code/*.ts"], "projectDocuments": ["prose/*.md"]}
    shop.run("npx", "typedoc", "--options", shop.write("typedoc.json", json.dumps(settings)), "--out", shop.site)


def _typedoc_pages(page: SourcePage) -> list[Expected]:
    functions = (
        expect(
            f"functions/{page.identifier}.{call.term}.html",
            documented((call,)),
            SYMBOLS,
            also=f"{page.identifier} {_typed(call)}",
        )
        for call in page.calls
    )
    return [expect(f"documents/{page.identifier}.html", page.prose, EVERYTHING), *functions]


OTHER_GENERATORS: tuple[Generator, ...] = (
    Generator(
        name="honkit",
        render=_honkit,
        expected=partial(one, "{}.html"),
        headings=css_headings("section.markdown-section"),
    ),
    Generator(name="jekyll", render=_jekyll, expected=partial(one, "{}.html"), headings=css_headings("main")),
    Generator(
        name="jsdoc",
        render=_jsdoc,
        expected=_jsdoc_pages,
        headings=css_headings("#main article"),
        symbols="h4.name",
        keeps_language=False,
    ),
    Generator(
        name="typedoc",
        render=_typedoc,
        expected=_typedoc_pages,
        headings=css_headings("div.tsd-typography"),
        anchors=("self", "inside", "before"),
        symbols="div.tsd-signature",
    ),
)
