"""The generators of API pages: rustdoc, javadoc, Doxygen, pdoc, pydoc.

    Generator.render(pages, workshop) → workshop.site;  Generator.expected(page) → [Expected, …]

A page becomes a module or class whose comment is the prose; its calls become functions with comments of their own.
"""

import html
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from bench.corpus import dialects
from bench.corpus.dialects import CLASS, Dialect
from bench.corpus.generator import SYMBOLS, Generator, Pages, css_headings, documented, pandoc
from bench.corpus.pages import EVERYTHING, IMAGE, Block, Entry, Expected, SourcePage, expect, plain_text
from bench.corpus.workshop import Workshop, require

RUST_TYPE = "What a harbourmaster sits at."


def _rust_function(call: Entry) -> str:
    parameters = ", ".join(f"{name}: &str" for name in call.parameters)
    return f"pub fn {call.term}({parameters}) -> String"


def _rust_item(call: Entry) -> str:
    return f"/// {call.text}\n{_rust_function(call)} {{ String::new() }}"


def _rust_module(page: SourcePage, prose: Path) -> str:
    """Return a module with the first call as a function and the second as a method."""
    function, method = page.calls
    return (
        f"pub mod {page.identifier} {{\n#![doc = include_str!({json.dumps(str(prose))})]\n\n{_rust_item(function)}\n\n"
        f"/// {RUST_TYPE}\npub struct {CLASS};\n\nimpl {CLASS} {{\n{_rust_item(method)}\n}}\n}}"
    )


def _rustdoc(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.quoted, definitions=dialects.bullets, link="../{}/index.html")
    library = ["//! Gates of small harbours."]
    for page in pages:
        text = dialect.write(page.prose).replace("harbour.svg", "../../harbour.svg")
        library.append(_rust_module(page, shop.write(f"{page.name}.md", text)))
    source = shop.write("tidewater.rs", "\n\n".join(library))
    shop.run(require("rustdoc", "Rust"), source, "--crate-name", "tidewater", "--out-dir", shop.site)


def _rustdoc_pages(page: SourcePage) -> list[Expected]:
    function, method = page.calls
    module = f"tidewater {page.identifier}"
    folder = f"tidewater/{page.identifier}"
    return [
        expect(f"{folder}/index.html", page.prose, EVERYTHING, also=f"{page.identifier} {function.term} {CLASS}"),
        expect(
            f"{folder}/fn.{function.term}.html",
            documented((function,)),
            SYMBOLS,
            also=f"{module} {_rust_function(function)}",
        ),
        expect(
            f"{folder}/struct.{CLASS}.html",
            documented((method,)),
            SYMBOLS,
            also=f"{module} {RUST_TYPE} struct impl {CLASS} {CLASS} {_rust_function(method)}",
        ),
    ]


def _java_class(page: SourcePage) -> str:
    return page.name.title().replace("-", "")


def _java_method(call: Entry) -> str:
    return f"public static String {call.term}({', '.join(f'String {name}' for name in call.parameters)})"


def _java_comment(text: str) -> str:
    return "/**\n" + text.replace("*/", "*&#47;").replace("@", "&#64;") + "\n*/"


def _javadoc(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.fenced_div)
    for page in pages:
        name = _java_class(page)
        methods = (
            _java_comment(html.escape(call.text)) + f"\n{_java_method(call)} {{ return null; }}" for call in page.calls
        )
        prose = _java_comment(pandoc(shop, page, dialect.write(page.prose), "--to=html", "--mathjax"))
        code = f"package tidewater;\n\n{prose}\npublic class {name} {{\nprivate {name}() {{}}\n\n"
        shop.write(f"tidewater/{name}.java", code + "\n\n".join(methods) + "\n}\n")
    shop.copy(IMAGE, "tidewater/doc-files")
    sources = sorted(shop.input.glob("tidewater/*.java"))
    shop.run(require("javadoc", "a JDK"), "-quiet", "-Xdoclint:none", "-d", shop.site, *sources)


def _javadoc_pages(page: SourcePage) -> list[Expected]:
    name = _java_class(page)
    methods = " ".join(map(_java_method, page.calls))
    also = f"package tidewater public class {name} extends Object {methods}"
    return [expect(f"tidewater/{name}.html", (*page.prose, *documented(page.calls)), SYMBOLS, also=also)]


def _c_function(call: Entry) -> str:
    return f"const char *{call.term}({', '.join(f'const char *{name}' for name in call.parameters)});"


def _c_comment(text: str) -> str:
    return "/**\n" + textwrap.indent(text, " * ") + "\n */"


def _doxygen_admonition(kind: str, body: str) -> str:
    return f"@{'remark' if kind == 'tip' else kind} " + body


def _doxygen(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(
        admonition=_doxygen_admonition,
        definitions=dialects.bullets,
        math=("\\f$", "\\f$", "\\f[", "\\f]"),
    )
    for page in pages:
        body = dialect.write(_plain_heading(block) for block in page.prose[1:])
        shop.write(f"{page.name}.md", f"# {page.title} {{#{_doxygen_name(page)}}}\n\n{body}")
        functions = (_c_comment(call.text) + "\n" + _c_function(call) for call in page.calls)
        header = _c_comment(f"@file\nCalls of {page.title}.")
        shop.write(f"{_doxygen_name(page)}.h", header + "\n\n" + "\n\n".join(functions) + "\n")
    shop.copy(IMAGE)
    settings = {
        "PROJECT_NAME": "Tidewater",
        "OUTPUT_DIRECTORY": shop.site,
        "HTML_OUTPUT": ".",
        "GENERATE_LATEX": "NO",
        "GENERATE_TREEVIEW": "YES",
        "USE_MATHJAX": "YES",
        "IMAGE_PATH": ".",
        "QUIET": "YES",
    }
    shop.write("Doxyfile", "\n".join(f"{key} = {value}" for key, value in settings.items()) + "\n")
    shop.site.mkdir(parents=True, exist_ok=True)
    shop.run(require("doxygen", "Debian's doxygen"), "Doxyfile")


def _plain_heading(block: Block) -> Block:
    """Return headings without markup, which Doxygen 1.9 shows as tags."""
    return replace(block, text=plain_text(block)) if block.kind == "heading" else block


def _doxygen_name(page: SourcePage) -> str:
    return page.name.replace("-", "")


def _doxygen_pages(page: SourcePage) -> list[Expected]:
    also = f"{_doxygen_name(page)} h file calls of {page.title} " + " ".join(map(_c_function, page.calls))
    header = expect(f"{_doxygen_name(page)}_8h.html", documented(page.calls), SYMBOLS, also=also)
    return [expect(f"{_doxygen_name(page)}.html", page.prose, EVERYTHING), header]


def _python_function(call: Entry) -> str:
    return f"def {call.term}({', '.join(f'{name}: str' for name in call.parameters)}) -> str:"


def _python_code(call: Entry) -> str:
    return f'{_python_function(call)}\n    """{call.text}"""\n    raise NotImplementedError\n'


def _python_module(prose: str, *parts: str) -> str:
    return "\n\n".join((f'r"""\n{prose}"""\n', *parts))


def _pdoc(pages: Pages, shop: Workshop) -> None:
    dialect = Dialect(admonition=dialects.alert, definitions=dialects.bullets, link="{}.html")
    shop.write("tidewater/__init__.py", '"""Gates of small harbours."""\n')
    for page in pages:
        function, method = map(_python_code, page.calls)
        methods = f"class {CLASS}:\n" + textwrap.indent(method.replace("(", "(self, ", 1), "    ")
        shop.write(f"tidewater/{page.identifier}.py", _python_module(dialect.write(page.prose), function, methods))
    shop.copy(IMAGE, "tidewater")
    shop.run(shop.venv_tool("pdoc"), "--math", "--output-directory", shop.site, "./tidewater")


def _pydoc(pages: Pages, shop: Workshop) -> None:
    """Functions only: what pydoc adds to each class would outweigh the text of so small a corpus."""
    dialect = Dialect(admonition=dialects.quoted, definitions=dialects.bullets)
    shop.write("tidewater/__init__.py", '"""Gates of small harbours."""\n')
    for page in pages:
        code = _python_module(dialect.write(page.prose), *map(_python_code, page.calls))
        shop.write(f"tidewater/{page.identifier}.py", code)
    shop.site.mkdir(parents=True, exist_ok=True)
    modules = [f"tidewater.{page.identifier}" for page in pages]
    shop.run(
        sys.executable,
        "-m",
        "pydoc",
        "-w",
        "tidewater",
        *modules,
        cwd=shop.site,
        environment={"PYTHONPATH": str(shop.input)},
    )


def _pdoc_pages(page: SourcePage) -> list[Expected]:
    """Pdoc shows the source of the module as well."""
    code = " ".join(f"{_python_function(call)} raise NotImplementedError" for call in page.calls)
    blocks = (*page.prose, *documented(page.calls))
    also = f"tidewater {page.identifier} r class {CLASS} self {code}"
    return [expect(f"tidewater/{page.identifier}.html", blocks, SYMBOLS, also=also)]


def _pydoc_pages(page: SourcePage) -> list[Expected]:
    """Pydoc shows the prose as it is written: all on one level, without code blocks."""
    parameters = " ".join(_python_function(call).partition("(")[2] for call in page.calls)
    blocks = (*page.prose, *documented(page.calls))
    whole = expect(
        f"tidewater.{page.identifier}.html", blocks, SYMBOLS, also=f"tidewater {page.identifier} {parameters}"
    )
    return [replace(whole, headings=(), code=())]


CODE_GENERATORS: tuple[Generator, ...] = (
    Generator(
        name="rustdoc",
        render=_rustdoc,
        expected=_rustdoc_pages,
        headings=css_headings("#main-content"),
        symbols="#main-content > .main-heading h1, section.method",
    ),
    Generator(
        name="javadoc",
        render=_javadoc,
        expected=_javadoc_pages,
        headings=css_headings("main"),
        symbols="section.detail h3",
        symbol_anchors=("section",),
    ),
    Generator(
        name="doxygen",
        render=_doxygen,
        expected=_doxygen_pages,
        headings=f"{css_headings('div.contents')}, div.title",
        anchors=("inside", "self"),
        symbols="h2.memtitle",
        symbol_anchors=("before",),
        keeps_language=False,
    ),
    Generator(
        name="pdoc",
        render=_pdoc,
        expected=_pdoc_pages,
        headings=css_headings("main"),
        symbols="main div.attr",
        symbol_anchors=("section",),
        keeps_language=False,
    ),
    Generator(
        name="pydoc",
        render=_pydoc,
        expected=_pydoc_pages,
        headings="",
        symbols="dt",
        symbol_anchors=("inside",),
        keeps_language=False,
    ),
)
