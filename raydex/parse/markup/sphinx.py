"""What Sphinx and its extensions add to reStructuredText, as far as a reader of the text needs it.

    directive → nodes that docutils knows, none of the text lost; ids as Sphinx makes them

`py:function` and its like become `dl.sig` entries, code of any kind a literal block, navigation nothing, and a
directive that nobody knows what it holds.
"""

import re
from collections.abc import Callable, Set
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.parsers.rst.directives.admonitions import BaseAdmonition
from docutils.parsers.rst.directives.body import MathBlock
from docutils.parsers.rst.directives.images import Figure, Image
from docutils.parsers.rst.directives.misc import Class

VERSION_NOTES = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "versionremoved": "Removed in version",
    "deprecated": "Deprecated since version",
    "deprecated-removed": "Deprecated since version",
}
# fmt: off
PYTHON = frozenset({
    "function", "class", "method", "classmethod", "staticmethod", "attribute", "property", "data", "exception",
    "decorator", "decoratormethod", "coroutinefunction", "awaitablefunction", "coroutinemethod", "awaitablemethod",
    "abstractmethod",
})
VERBATIM = frozenset({"option", "cmdoption", "envvar", "confval", "setting", "describe", "object"})
OBJECTS = PYTHON | VERBATIM | {
    "macro", "struct", "union", "enum", "enum-class", "enumerator", "type", "var", "member", "alias", "concept",
    "opcode", "pdbcommand", "directive", "directive:option", "role", "get", "post", "put", "patch", "delete",
}
CODE = frozenset({
    "code", "code-block", "sourcecode", "testcode", "testoutput", "doctest", "prompt", "ipython", "productionlist",
    "graphviz", "digraph", "graph", "mermaid", "uml", "plot", "jupyter-execute", "console", "code-tab", "code-cell",
})
NAVIGATION = frozenset({
    "toctree", "contents", "sectnum", "header", "footer", "include", "literalinclude", "index", "default-domain",
    "tabularcolumns", "sectionauthor", "codeauthor", "moduleauthor", "testsetup", "testcleanup", "date", "autosummary",
    "automodule", "autoclass", "autofunction", "automethod", "autodata", "autoattribute", "autoexception",
})
WRAPPERS = frozenset({"only", "ifconfig", "hlist", "tabs", "grid", "tab-set", "rst-class", "cssclass", "if-builder"})
SCOPES = frozenset({"module", "currentmodule", "program", "highlight"})
# fmt: on
MAX_OPTIONS = 8  # spellings of one command-line option

_CALLED = re.compile(r"([\w.:~]+)\s*[(\[]")
_POINTER = re.compile(r"\(\s*\*\s*(\w+)\s*\)\s*\(")
_WORD = re.compile(r"[\w.:$@-]+")
_OPTION = re.compile(r"(?:^|,\s*)((?:-{1,2}|\+|/)?[^\s=\[,]+)")
_NO_ID = re.compile(r"[^a-zA-Z0-9._]+")
_NO_ID_AT_ENDS = re.compile(r"^[-0-9._]+|-+$")
_PREFIXES = ("abstract ", "async ", "class ", "classmethod ", "final ", "static ", "staticmethod ", "property ")


class AnyOption(dict[str, Callable[[str], Any]]):
    """Options of a directive: those of docutils, and any other as text."""

    def __missing__(self, name: str) -> Callable[[str], Any]:
        return directives.unchanged


ANY = AnyOption({"class": directives.class_option})  # docutils takes an empty table for "no options"


class _Body(Directive):
    """All it holds; its argument is text too."""

    has_content = True
    option_spec: ClassVar[Any] = ANY

    def run(self) -> list[nodes.Node]:
        return self.body()

    def body(self) -> list[nodes.Node]:
        container = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, container)
        return list(container.children)

    def argument(self) -> str:
        return self.arguments[0] if self.arguments else ""

    def inline(self, text: str) -> list[nodes.Node]:
        return [*self.state.inline_text(text, self.lineno)[0]]


class _Wrapper(_Body):
    """All it holds; its argument is a condition or a style."""

    optional_arguments = 1
    final_argument_whitespace = True


class _Nothing(_Wrapper):
    def run(self) -> list[nodes.Node]:
        return []


class _Code(_Wrapper):
    def run(self) -> list[nodes.Node]:
        language = self.argument() or str(self.options.get("language") or self.state.document.get("highlight", ""))
        text = "\n".join(self.content)
        if not text and not re.fullmatch(r"[\w+#.-]*", language):  # one line behind the `::`
            text, language = language, ""
        block = nodes.literal_block(text, text)
        if re.fullmatch(r"[\w+#.-]+", language):
            block["classes"].append(f"highlight-{language}")  # the writer makes `lang` of language-…
        caption = str(self.options.get("caption") or "")
        return [nodes.paragraph("", "", *self.inline(caption)), block] if caption else [block]


class _VersionNote(_Wrapper):
    required_arguments = 1
    optional_arguments = 0

    def run(self) -> list[nodes.Node]:
        words = self.argument().split(None, 2 if self.name == "deprecated-removed" else 1)
        label = f"{VERSION_NOTES[self.name]} {words[0]}"
        if self.name == "deprecated-removed" and len(words) > 1:
            label += f", removed in version {words.pop(1)}"
        text = self.inline(f": {words[1]}") if len(words) > 1 else []
        return [nodes.paragraph("", "", nodes.Text(label), *text), *self.body()]


class _Titled(_Wrapper):
    """An admonition under the name of its directive."""

    def run(self) -> list[nodes.Node]:
        name = "See also" if self.name == "seealso" else self.name.replace("-", " ").capitalize()
        title = nodes.paragraph("", name, classes=["admonition-title"])
        argument = [nodes.paragraph("", "", *self.inline(self.argument()))] if self.arguments else []
        return [nodes.container("", title, *argument, *self.body(), classes=["admonition"])]


class _Scope(_Wrapper):
    """Says what the names that follow belong to."""

    def run(self) -> list[nodes.Node]:
        kind = self.name.rpartition(":")[2]
        scope = "module" if kind == "currentmodule" else kind
        name = self.argument().strip()
        self.state.document[scope] = "" if name == "None" else name
        if kind != "module" or "noindex" in self.options:
            return self.body()
        anchor = f"module-{name}"
        if isinstance(self.state_machine.node, nodes.section):
            self.state_machine.node["ids"].insert(0, anchor)
            return self.body()
        return [nodes.target("", "", ids=[anchor]), *self.body()]


class _Glossary(_Wrapper):
    def run(self) -> list[nodes.Node]:
        found = self.body()
        for term in (term for node in found for term in node.findall(nodes.term)):
            term["ids"] = [sphinx_id(f"term-{term.astext()}")]
        return found


class _Entry(Directive):
    """The signatures and the description of a symbol, an option or a variable."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[Any] = ANY

    def run(self) -> list[nodes.Node]:
        signatures = [line.strip() for line in re.sub(r"\\\n\s*", "", self.arguments[0]).split("\n") if line.strip()]
        names = [self._name(signature) for signature in signatures]
        terms = [self._term(signature, name) for signature, name in zip(signatures, names, strict=True)]
        definition = nodes.definition()
        outer = self.state.document.get("scope", "")
        self.state.document["scope"] = names[0] if self._is_scope() else outer
        self.state.nested_parse(self.content, self.content_offset, definition)
        self.state.document["scope"] = outer
        return [nodes.definition_list("", nodes.definition_list_item("", *terms, definition))]

    def _domain_and_kind(self) -> tuple[str, str]:
        domain, _, kind = self.name.partition(":")
        if not kind:
            return "py" if domain in PYTHON else "", domain
        return domain, kind

    def _is_scope(self) -> bool:
        domain, kind = self._domain_and_kind()
        return kind in {"class", "exception"} or domain in {"c", "cpp", "js"}

    def _name(self, signature: str) -> str:
        """Return the dotted name without the module, that of the class around in front."""
        domain, kind = self._domain_and_kind()
        if kind in VERBATIM:
            return signature
        bare = signature
        while bare.startswith(_PREFIXES):
            bare = bare.partition(" ")[2].lstrip()
        called = _POINTER.search(bare) or _CALLED.search(bare)
        words = _WORD.findall(bare) or [bare]
        name = called[1] if called else words[-1 if domain in {"c", "cpp"} else 0]
        scope = self.state.document.get("scope", "")
        return f"{scope}.{name}" if scope and (domain == "c" or not name.startswith(f"{scope}.")) else name

    def _term(self, signature: str, name: str) -> nodes.term:
        for key, mark in (("type", ": "), ("value", " = ")):
            signature += f"{mark}{self.options[key]}" if self.options.get(key) else ""
        return nodes.term("", signature, ids=self._ids(signature, name), classes=["sig", "sig-object"])

    def _ids(self, signature: str, name: str) -> list[str]:
        document = self.state.document
        domain, kind = self._domain_and_kind()
        if not self.options.keys().isdisjoint({"noindex", "no-index"}) or kind in {"describe", "object"}:
            return []
        if kind in {"option", "cmdoption"}:
            prefix = "-".join(part for part in ("cmdoption", document.get("program", "").replace(" ", "-")) if part)
            options = _OPTION.findall(signature)[:MAX_OPTIONS]
            return [sphinx_id(f"{prefix}{'' if option[0] in '-/' else '-arg'}-{option}") for option in options]
        if domain == "py":
            module = self.options.get("module") or document.get("module", "")
            is_absolute = not module or ("." in name.removeprefix(f"{module}.") and name.startswith(f"{module}."))
            return [sphinx_id(name if is_absolute else f"{module}.{name}")]
        if domain == "cpp":  # mangled; it takes a parser of C++ to tell
            return []
        return [f"c.{name}" if domain == "c" else sphinx_id(name if domain == "js" else f"{kind}-{name}")]


def sphinx_id(text: str) -> str:
    return _NO_ID_AT_ENDS.sub("", _NO_ID.sub("-", " ".join(text.split()))) or "entry"


def _lenient(directive: type[Directive]) -> type[Directive]:
    """Return a directive of docutils that takes the options which Sphinx gives it."""
    options = AnyOption(directive.option_spec or {}) or ANY
    return type(directive.__name__, (directive,), {"option_spec": options})


def directive_for(name: str) -> type[Directive]:
    """Return what reads a directive that docutils does not know."""
    kind = name.partition(":")[2] or name
    tables: tuple[tuple[Any, type[Directive]], ...] = (
        (VERSION_NOTES, _VersionNote),
        (OBJECTS, _Entry),
        (CODE, _Code),
        (NAVIGATION, _Nothing),
        (WRAPPERS, _Wrapper),
        (SCOPES, _Scope),
        ({"glossary"}, _Glossary),
        ({"seealso", "todo", "impl-detail", "availability", "dropdown", "tab-item", "tab"}, _Titled),
    )
    return next((directive for names, directive in tables if kind in names), _Body)


def register_for(names: Set[str]) -> None:
    """Let docutils know the directives of a text that it has not. With any of them, `class` is that of Python."""
    for name in names:
        directives.register_directive(name, directive_for(name))
    directives.register_directive("class", _Entry if names else Class)


def register() -> None:
    """Put these before what docutils makes of the same names."""
    for name in CODE | NAVIGATION:
        directives.register_directive(name, directive_for(name))
    for name, directive in (("math", MathBlock), ("figure", Figure), ("image", Image)):
        directives.register_directive(name, _lenient(directive))
    for admonition in BaseAdmonition.__subclasses__():
        directives.register_directive(admonition.__name__.lower(), _lenient(admonition))
