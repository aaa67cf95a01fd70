"""reStructuredText → HTML by docutils, with the text of everything that only Sphinx knows.

text, "" → Draft      nothing is included, read or run; anchors are those of docutils and Sphinx
"""

import re
from typing import Any

from docutils import nodes
from docutils.core import publish_doctree, publish_from_doctree
from docutils.parsers import rst
from docutils.parsers.rst import roles
from docutils.parsers.rst.languages import en
from docutils.utils import unescape
from docutils.writers.html5_polyglot import Writer

from raydex.parse.markup import plain, sphinx
from raydex.parse.markup.document import Draft, facts_of

MAX_LINE = 10_000  # characters; docutils refuses longer lines
MAX_NAMES = 200  # unknown directives of one text

_DIRECTIVE = re.compile(r"^[ \t]*\.\. +(?:\|[^|\n]{1,80}\| +)?([A-Za-z][\w:.+-]{0,60}) ?::(?:\s|$)", re.MULTILINE)
_ROLE = re.compile(r":([A-Za-z][\w:.+-]{0,60}):`|`:([A-Za-z][\w:.+-]{0,60}):")
_TARGET = re.compile(r"(?s)(.*?)\s*<[^<>]*>")
_ROLE_PREFIX = re.compile(r"^[!~]+")
_SETTINGS = {
    "_disable_config": True,
    "auto_id_prefix": "id",
    "doctitle_xform": False,
    "docinfo_xform": False,
    "embed_stylesheet": False,
    "file_insertion_enabled": False,
    "halt_level": 5,
    "initial_header_level": 1,
    "input_encoding": "unicode",
    "line_length_limit": MAX_LINE,
    "math_output": "LaTeX",
    "output_encoding": "unicode",
    "raw_enabled": False,
    "report_level": 3,
    "section_self_link": False,
    "smart_quotes": False,
    "stylesheet_path": "",
    "syntax_highlight": "none",
    "toc_backlinks": False,
    "traceback": True,
    "warning_stream": False,
    "xml_declaration": False,
}


def read(text: str, variant: str) -> Draft:
    if max(map(len, text.split("\n")), default=0) > MAX_LINE:
        return plain.read(text, variant)
    _register_unknown(text)
    tree = publish_doctree(text, parser=rst.Parser(), settings_overrides=_SETTINGS)
    facts = _take_fields(tree)
    _tidy(tree)
    writer = Writer()
    publish_from_doctree(tree, writer=writer, settings_overrides=_SETTINGS)
    return Draft(str(writer.parts["body"]), facts)


def _register_unknown(text: str) -> None:
    """Give every directive and role in the text that docutils does not know something that keeps its text."""
    sphinx.register_for({name.lower() for name in _DIRECTIVE.findall(text)[:MAX_NAMES]} - en.directives.keys())
    vars(roles)["_roles"].clear()  # docutils keeps the roles that one text defines for all texts after it
    for name in {name.lower() for names in _ROLE.findall(text) for name in names if name} - en.roles.keys():
        roles.register_local_role(name, _role)


def _role(
    role: str, rawtext: str, text: str, lineno: int, inliner: object, options: object = None, content: object = None
) -> tuple[list[Any], list[Any]]:
    """`:func:`~os.path.join`` is `join`, `:ref:`the title <target>`` is `the title`."""
    return [_role_text(role, unescape(text))], []


def _role_text(role: str, text: str) -> nodes.Node:
    titled = _TARGET.fullmatch(text)
    if titled and titled[1]:
        return nodes.inline("", titled[1])
    if role in {"ref", "doc", "term", "numref", "abbr", "guilabel", "menuselection", "download", "any"}:
        return nodes.inline("", text)
    bare = _ROLE_PREFIX.sub("", text)
    return nodes.literal("", bare.rpartition(".")[2] if text.startswith("~") else bare)


def _take_fields(tree: nodes.document) -> dict[str, str]:
    """Remove the field list at the top, as Sphinx does; return the facts in it."""
    first = next((node for node in tree.children if not isinstance(node, nodes.comment | nodes.target)), None)
    if not isinstance(first, nodes.field_list):
        return {}
    tree.remove(first)
    return facts_of({field[0].astext(): field[1].astext() for field in first.findall(nodes.field) if len(field) > 1})


def _tidy(tree: nodes.document) -> None:
    """Put the text that docutils could not read where it complains about it; let each section go by its best id."""
    for node in list(tree.findall(nodes.system_message)):
        if node.parent is not None:
            node.parent.replace(node, [child for child in node.children if isinstance(child, nodes.literal_block)])
    tree.parse_messages.clear()
    tree.transform_messages.clear()
    for problem in list(tree.findall(nodes.problematic)):
        problem.parent.replace(problem, nodes.inline("", problem.astext()))
    for section in tree.findall(nodes.section):
        section["ids"].sort(key=lambda anchor: re.fullmatch(r"id\d+", anchor) is not None)  # as Sphinx does
    for image in tree.findall(nodes.image):
        image.setdefault("alt", "")


sphinx.register()
