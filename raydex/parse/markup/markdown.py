"""Markdown → HTML: CommonMark with what GitHub, MkDocs, Docusaurus, VitePress, Hugo and MyST add to it.

    text, variant → Draft

Components of MDX and Vue go, their content and their titles stay; so do admonitions and every tab.
"""

import re
from collections.abc import MutableMapping, Sequence
from functools import cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from mdit_py_plugins.admon import admon_plugin
from mdit_py_plugins.attrs import attrs_block_plugin, attrs_plugin
from mdit_py_plugins.container import container_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.gfm import gfm_plugin

from raydex.parse.markup import components, plain
from raydex.parse.markup.anchors import Slugs
from raydex.parse.markup.document import Draft, split_front_matter

MAX_LINE = 20_000
"""Characters; no author writes a longer line, and some rules take its square. Such a text is read as plain text."""
MAX_NESTED = 4  # directives inside directives
CODE_DIRECTIVES = frozenset({"code", "code-block", "code-cell", "sourcecode", "literalinclude", "eval-rst"})
DROPPED_DIRECTIVES = frozenset({"toctree", "contents", "tableofcontents", "include", "index"})

_EMBEDDED = re.compile(r"data:[\w.+-]{1,80}/[\w.+-]{1,80};base64,[A-Za-z0-9+/=]*")
_HEADING_ATTRIBUTES = re.compile(r"\s*\{(?::?\s*([#.][^{}]{0,200})|/\*\s*(#[^{}\s]{1,200})\s*\*/)\}\s*$")
_MYST_TARGET = re.compile(r"^\([^()\n]{1,100}\)=$", re.MULTILINE)
_ID = re.compile(r"#([^\s{}#]+)")
_CONTAINER = re.compile(r"\{?([A-Za-z][\w-]*)\}?\s*(?:\[(.*)\])?\s*(.*)")
_DIRECTIVE = re.compile(r"\{([\w:.-]+)\}\s*(.*)")
_DIRECTIVE_OPTION = re.compile(r"\s*:[\w-]+:")
_DOTTED_LANGUAGE = re.compile(r"\{?\s*\.([\w+#-]+)")
_TITLE_OPTION = re.compile(r"\{.*?title\s*=\s*[\"'](.*?)[\"'].*\}")
_MKDOCS_TAB = re.compile(r"^( *)===[!+]* (?=\")", re.MULTILINE)
_FENCED = re.compile(r"^ *(?:```|~~~)", re.MULTILINE)


def read(text: str, variant: str) -> Draft:
    facts, body = split_front_matter(text)
    if variant == "myst":
        body = _MYST_TARGET.sub("", body)
    return Draft(render(body, Slugs(variant), is_mdx=variant == "mdx"), facts)


def render(text: str, slugs: Slugs, *, is_mdx: bool = False) -> str:
    """Return a text without front matter as HTML. slugs: goes on from those of the texts before it."""
    text = _EMBEDDED.sub("data:,", text)
    if max(map(len, text.split("\n"))) > MAX_LINE:
        return plain.read(text, "").body
    is_mdx = is_mdx or components.looks_like_mdx(text)
    return _markdown(is_mdx).render(_tabs_as_admonitions(text), {"slugs": slugs, "depth": 0})  # type: ignore[no-any-return]


@cache
def _markdown(is_mdx: bool) -> MarkdownIt:  # noqa: FBT001 - a key of the cache
    markdown = MarkdownIt("commonmark", {"html": True}).use(gfm_plugin)
    markdown.use(deflist_plugin).use(admon_plugin).use(attrs_plugin, spans=True).use(attrs_block_plugin)
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False)
    markdown.use(container_plugin, "admonition", validate=lambda params, *_: _CONTAINER.match(params.strip()))
    markdown.use(components.plugin, is_mdx=is_mdx)
    markdown.core.ruler.push("heading_ids", _give_ids)
    markdown.add_render_rule("container_admonition_open", _container_open)
    markdown.add_render_rule("fence", _fence)
    return markdown


def _tabs_as_admonitions(text: str) -> str:
    """`=== "Tab"` of MkDocs has an indented body, as `!!! tab "Tab"` has."""
    if "=== " not in text:
        return text
    parts = _FENCED.split(text)
    marks = _FENCED.findall(text)
    parts[::2] = [_MKDOCS_TAB.sub(r"\1!!! tab ", part) for part in parts[::2]]  # every second part is code
    return "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))


def _give_ids(state: StateCore) -> None:
    slugs: Slugs = state.env["slugs"]
    for opening, inline in zip(state.tokens, state.tokens[1:], strict=False):
        if opening.type != "heading_open":
            continue
        own = _own_id(inline) or opening.attrGet("id")
        opening.attrSet("id", str(own) if own else slugs.of(_text_of(inline.children or ())))


def _own_id(inline: Token) -> str:
    """Take `{#id}`, `{: #id .class}` or `{/* #id */}` from the end of a heading; return the id."""
    last = inline.children[-1] if inline.children else None
    found = _HEADING_ATTRIBUTES.search(last.content) if last and last.type == "text" else None
    if last is None or found is None:
        return ""
    last.content = last.content[: found.start()]
    named = _ID.search(found[1] or found[2])
    return named[1] if named else ""


def _text_of(tokens: Sequence[Token]) -> str:
    texts = (token.content for token in tokens if token.type in {"text", "code_inline", "text_special", "math_inline"})
    return "".join(texts)


def _container_open(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """`:::note Title`, `:::note[Title]`, `::: tip {title="Title"}`, `:::{note} Title`."""
    found = _CONTAINER.match(tokens[index].info.strip())
    if found is None:
        return "<div>\n"
    kind, bracketed, rest = found.groups()
    option = _TITLE_OPTION.search(rest)
    title = bracketed or (option[1] if option else re.sub(r"\{.*\}", "", rest).strip())
    return _admonition_open(kind, title)


def _admonition_open(kind: str, title: str) -> str:
    title = title or kind.replace("-", " ").capitalize()
    return f'<div class="admonition"><p class="admonition-title">{escape(title)}</p>\n'


def _fence(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]) -> str:
    token = tokens[index]
    info = token.info.strip()
    directive = _DIRECTIVE.match(info)
    if directive is None:
        dotted = _DOTTED_LANGUAGE.match(info)
        return code_block(token.content, dotted[1] if dotted else info.partition(" ")[0].partition("{")[0])
    name, argument = directive.groups()
    if name in DROPPED_DIRECTIVES:
        return ""
    if name in CODE_DIRECTIVES or ":" in name or env["depth"] >= MAX_NESTED:
        return code_block(_without_options(token.content), argument)
    nested = {"slugs": env["slugs"], "depth": env["depth"] + 1}
    body = _markdown(False).render(_without_options(token.content), nested)  # noqa: FBT003
    return f"{_admonition_open(name, argument)}{body}</div>\n"


def _without_options(content: str) -> str:
    lines = content.split("\n")
    first = next((n for n, line in enumerate(lines) if not _DIRECTIVE_OPTION.match(line)), len(lines))
    return "\n".join(lines[first:])


def code_block(code: str, language: str) -> str:
    """Return code as HTML, with its language in the class where it is one word."""
    name = f' class="language-{escape(language)}"' if re.fullmatch(r"[\w+#.-]+", language) else ""
    return f"<pre><code{name}>{escape(code, quote=False)}</code></pre>\n"
