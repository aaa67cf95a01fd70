"""Jupyter notebook → HTML: text cells as Markdown, code cells with their language, the head of what they print.

JSON, "" → Draft      nbformat 3 and 4; no images, no tracebacks, nothing is run
"""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from raydex.errors import ParseError
from raydex.parse.markup import markdown
from raydex.parse.markup.anchors import Slugs
from raydex.parse.markup.document import Draft, facts_of

MAX_OUTPUT_LINES = 40  # of one cell
MAX_LINE = 500  # characters of a line of output
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read(text: str, variant: str) -> Draft:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError("", "bad_notebook", str(error)) from error
    cells = list(_cells(document))
    if not cells:
        raise ParseError("", "bad_notebook", "no list of cells")
    metadata = _table(document.get("metadata"))
    language = _language(metadata)
    slugs = Slugs(variant or "notebook")
    return Draft("\n".join(_cell(cell, language, slugs) for cell in cells), facts_of({"title": metadata.get("title")}))


def _cells(document: Any) -> Iterable[Mapping[str, Any]]:
    sheets = _table(document).get("worksheets")  # nbformat 3
    for sheet in sheets if isinstance(sheets, list) else [document]:
        cells = _table(sheet).get("cells")
        yield from (cell for cell in cells if isinstance(cell, Mapping)) if isinstance(cells, list) else ()


def _language(metadata: Mapping[str, Any]) -> str:
    names = (_table(metadata.get("language_info")).get("name"), _table(metadata.get("kernelspec")).get("language"))
    return next((name for name in names if isinstance(name, str)), "python")


def _cell(cell: Mapping[str, Any], language: str, slugs: Slugs) -> str:
    kind = cell.get("cell_type")
    source = _joined(cell.get("source", cell.get("input")))
    if kind == "heading":  # nbformat 3
        level = cell.get("level")
        marks = "#" * level if isinstance(level, int) and 1 <= level <= 6 else "#"
        return markdown.render(f"{marks} {source}", slugs)
    if kind == "markdown":
        return markdown.render(source, slugs)
    if kind != "code":
        return f"<pre>{escape(source)}</pre>" if source.strip() else ""
    name = cell.get("language")
    code = markdown.code_block(source, name if isinstance(name, str) else language) if source.strip() else ""
    printed = _printed(cell.get("outputs"))
    return code + (markdown.code_block(printed, "") if printed else "")


def _printed(outputs: Any) -> str:
    """Return the head of what a cell printed and of its value as text."""
    lines: list[str] = []
    for output in outputs if isinstance(outputs, list) else ():
        table = _table(output)
        if table.get("output_type") in {"stream", "execute_result", "display_data", "pyout"}:
            text = table.get("text", _table(table.get("data")).get("text/plain"))
            lines += _TERMINAL.sub("", _joined(text)).splitlines()
    head = [line[:MAX_LINE].rstrip() for line in lines[:MAX_OUTPUT_LINES]]
    return "\n".join(head).strip("\n") + ("\n…" if len(lines) > MAX_OUTPUT_LINES else "")


def _joined(text: Any) -> str:
    if isinstance(text, list):
        return "".join(line for line in text if isinstance(line, str))
    return text if isinstance(text, str) else ""


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
