"""What is neither Markdown nor HTML in documentation sources: components, imports, comments and shortcodes.

    <TabItem value="a" label="Apple"> → Apple      import X from "y" → nothing      {{< note >}} → nothing

Rules for markdown-it. Code is left alone, since its rules come before these.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

MAX_TAG = 4000  # characters of one tag, attributes and all
MAX_TAG_LINES = 60
_NAMED = re.compile(r"""\b(?:label|title|summary|header|alt|text)\s*=\s*\{?\s*(?:"([^"]*)"|'([^']*)'|`([^`]*)`)""")
_STATEMENT = re.compile(
    r"import\s+(?:[\w*{][^\n]*?\bfrom\s+)?[\"'][^\"'\n]+[\"'];?\s*$|import\s*\{\s*$"
    r"|export\s+(?:default\s+(?:function|class|\(|async\b)|(?:const|let|var|function|async|class)\s|[{*])"
)
_MDX_LINE = re.compile(r"^ {0,12}</[A-Z][\w.]{0,60}>\s*$|^import\s[^\n]{0,300}\sfrom\s+[\"'][^\"'\n]+[\"'];?\s*$", re.M)
_SHORTCODE = re.compile(
    r"\{[a-z][\w:.+-]{0,40}\}(?=`)"  # a role of MyST: {func}`open`
    r"|\{\{[<%][^{}]{0,500}[%>]\}\}|\{%[^{}]{0,500}%\}|\{\s{0,9}/\*(?!\s*#\S+\s*\*/)(?:[^*]|\*(?!/)){0,2000}\*/\s{0,9}\}"
)


def looks_like_mdx(text: str) -> bool:
    """Tell whether a line is the end of a component, or an import."""
    return _MDX_LINE.search(text) is not None


def plugin(markdown: MarkdownIt, *, is_mdx: bool) -> None:
    """Add the rules. is_mdx: drop imports and exports too, and take indented text for what it is in MDX, no code."""
    interrupts: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    markdown.block.ruler.before("html_block", "component", _component_block, interrupts)
    markdown.inline.ruler.before("html_inline", "component", _component_inline)
    markdown.inline.ruler.before("html_inline", "shortcode", _shortcode)
    if is_mdx:
        markdown.block.ruler.before("paragraph", "statement", _statement_block)
        markdown.disable("code")


def _component_block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:  # noqa: FBT001
    """A line that begins with a component's tag, and ends with it, is nothing but its title."""
    start = state.bMarks[start_line] + state.tShift[start_line]
    if state.is_code_block(start_line) or state.src[start : start + 1] != "<":
        return False
    end = _tag_end(state.src, start, state.eMarks[min(end_line, start_line + MAX_TAG_LINES) - 1])
    line = next((n for n in range(start_line, end_line) if state.eMarks[n] >= end), end_line) if end else end_line
    if line >= end_line or state.src[end : state.eMarks[line]].strip():
        return False
    if silent:
        return True
    state.line = line + 1
    if title := _title(state.src[start:end]):
        state.push("paragraph_open", "p", 1).map = [start_line, line + 1]
        inline = state.push("inline", "", 0)
        inline.content, inline.map, inline.children = title, [start_line, line + 1], []
        state.push("paragraph_close", "p", -1)
    return True


def _component_inline(state: StateInline, silent: bool) -> bool:  # noqa: FBT001
    end = _tag_end(state.src, state.pos, state.posMax) if state.src[state.pos] == "<" else 0
    if not end:
        return False
    if not silent and (title := _title(state.src[state.pos : end])):
        state.pending += f"{title} "
    state.pos = end
    return True


def _shortcode(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - the form of a rule
    found = _SHORTCODE.match(state.src, state.pos) if state.src[state.pos] == "{" else None
    if found is None:
        return False
    state.pos = found.end()
    return True


def _statement_block(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:  # noqa: FBT001
    """An import or export at the beginning of a line goes, with all up to the next blank line."""
    start = state.bMarks[start_line]
    if state.tShift[start_line] or not _STATEMENT.match(state.src[start : state.eMarks[start_line]]):
        return False
    if not silent:
        state.line = next((n for n in range(start_line, end_line) if state.isEmpty(n)), end_line)
    return True


def _tag_end(text: str, start: int, limit: int) -> int:
    """Return where the component's tag at start ends, 0 when there is none: `<Tab …>`, `</Tab>`, `<>`, `</>`.

    Attributes may hold `>` in quotes and braces: `<Row onClick={() => run("a > b")} />`.
    """
    first = text[start + 1 : start + 2]
    name = text[start + 2 : start + 3] if first == "/" else first
    if not (name == ">" or "A" <= name <= "Z"):
        return 0
    depth, quote = 0, ""
    for position in range(start + 1, min(limit, start + MAX_TAG)):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'`" and (depth or text[position - 1] in "={ "):
            quote = char
        elif char in "{}":
            depth += 1 if char == "{" else -1
        elif depth <= 0 and char in "<>":
            return position + 1 if char == ">" else 0
    return 0


def _title(tag: str) -> str:
    found = _NAMED.search(tag)
    return next((value for value in found.groups() if value), "") if found else ""
