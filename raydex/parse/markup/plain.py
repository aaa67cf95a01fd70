"""Plain text → HTML: paragraphs, lists, indented code, underlined headings, headings of man pages and RFCs.

text, "" → Draft      linear in the text
"""

import re
from collections.abc import Iterator
from html import escape

from raydex.parse.markup.document import Draft

MAX_HEADING = 100  # characters
HEADING_LEVELS = 2  # by indentation, as man pages have them
HEADING_SHARE = 0.8  # of the lines left of the body: so many stand alone
TEXT_ENDS = ".,;:"
_UNDERLINE = re.compile(r"(?:={3,}|-{3,}|~{3,}|\*{3,}|\^{3,})\s*")
_ANCHOR = re.compile(r"\s*\{#([^\s{}]+)\}$")
_BULLET = re.compile(r"\s*(?:[-*•+–]|\(?\d{1,3}[.)])\s+")
_COLUMNS = re.compile(r"[^\s.:!?,] {3,}\S|[|+]-")
_OVERSTRIKE = re.compile(r".\x08")
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def read(text: str, variant: str) -> Draft:
    text = _CONTROL.sub("", _OVERSTRIKE.sub("", text).replace("\f", "\n")).expandtabs()
    lines = [line.rstrip() for line in text.split("\n")]
    base = _base_indent(lines)
    return Draft("\n".join(_block(block, base) for block in _blocks(lines, base)))


def _blocks(lines: list[str], base: int) -> Iterator[list[str]]:
    """Yield the lines between blank lines; code goes on over blank lines, and a heading is a block of its own."""
    block: list[str] = []
    for number, line in enumerate([*lines, ""]):
        before = block[-1] if block else ""
        if line and _is_outdented(line, base) and len(line) <= MAX_HEADING and not before:
            yield [line]
        elif line:
            if block and _UNDERLINE.fullmatch(line) and len(block) == 1:
                yield [before, line]
                block = []
            elif block and (_is_code(block, base) != (_indent(line) > base)) and not _BULLET.match(block[0]):
                yield block
                block = [line]
            else:
                block.append(line)
        elif block:
            following = next((later for later in lines[number + 1 : number + 4] if later), "")
            if _is_code(block, base) and _indent(following) > base and not _BULLET.match(following):
                block.append("")
            else:
                yield block
                block = []


def _block(lines: list[str], base: int) -> str:
    if len(lines) == 2 and _UNDERLINE.fullmatch(lines[1]):
        level = 1 if lines[1].startswith("=") else 2
        return _heading(lines[0], level)
    if len(lines) == 1 and _is_outdented(lines[0], base):
        return _heading(lines[0], 3 if _indent(lines[0]) else 2)
    if _BULLET.match(lines[0]):
        return _list(lines)
    if _is_code(lines, base) or sum(_COLUMNS.search(line.strip()) is not None for line in lines) * 2 > len(lines) > 1:
        indent = min(_indent(line) for line in lines if line)
        return "<pre>" + escape("\n".join(line[indent:] for line in lines).rstrip(), quote=False) + "</pre>"
    return "<p>" + escape("\n".join(lines), quote=False) + "</p>"


def _heading(line: str, level: int) -> str:
    anchor = _ANCHOR.search(line)
    attributes = f' id="{escape(anchor[1])}"' if anchor else ""
    text = line[: anchor.start()] if anchor else line
    return f"<h{level}{attributes}>{escape(text.strip())}</h{level}>"


def _list(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        bullet = _BULLET.match(line)
        if bullet:
            items.append(line.strip() if line.strip()[0].isdigit() else line[bullet.end() :])
        else:
            items[-1] += f"\n{line}"
    return "<ul>" + "".join(f"<li>{escape(item, quote=False)}</li>" for item in items) + "</ul>"


def _base_indent(lines: list[str]) -> int:
    """Return the indentation of the body text: 7 in a man page, 3 in an RFC, 0 where what is not indented is text."""
    numbers: dict[int, list[int]] = {}
    for number, line in enumerate(lines):
        if line:
            numbers.setdefault(_indent(line), []).append(number)
    for indent in sorted(numbers)[: HEADING_LEVELS + 1]:
        headings = sum(_is_heading(lines, number, indent) for number in numbers[indent])
        if headings < HEADING_SHARE * len(numbers[indent]):
            return indent
    return 0


def _is_heading(lines: list[str], number: int, indent: int) -> bool:
    """Tell whether a line stands alone, or right over deeper text, and does not end as text does."""
    following = lines[number + 1] if number + 1 < len(lines) else ""
    stands_alone = not (number and lines[number - 1]) and (not following or _indent(following) > indent)
    return stands_alone and lines[number][-1] not in TEXT_ENDS and len(lines[number]) <= MAX_HEADING


def _is_outdented(line: str, base: int) -> bool:
    return _indent(line) < base and line[-1] not in TEXT_ENDS


def _is_code(lines: list[str], base: int) -> bool:
    return all(_indent(line) > base for line in lines if line) and not _BULLET.match(lines[0])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
