"""Reduce markup to plain text. The one reducer: everything that turns HTML into text goes through TextReducer.

    start(tag, attributes), data(text), end(tag), …  →  paragraphs separated by a blank line
    bytes and their Content-Type                     →  str, without mojibake

clean_html_content("<p>Cut&shy;ting <b>edge</b><ul><li>one<li>two</ul>")  →  "Cutting edge\n\n- one\n- two"
"""

import codecs
import re
from html.parser import HTMLParser

from utils.html_visibility import Attributes, is_hidden

# fmt: off
BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "dir", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hgroup", "hr", "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "search", "section", "summary", "table",
    "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
})
# fmt: on
LISTS = frozenset({"ul", "ol", "menu", "dir"})
LINES = frozenset({"dd", "summary", "figcaption", "legend", "caption"})
"""Blocks that stay with the block before them: a line break, no blank line."""
ROWS = frozenset({"tbody", "thead", "tfoot", "tr"})
CELLS = frozenset({"td", "th"})
# fmt: off
VOID = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
})
# fmt: on
IMPLIED_ENDS = frozenset({"dd", "dt", "li", "option", "p", "td", "th", "tr"})
"""Elements that end where the next one of their kind begins."""
MAX_INDENT = 8  # levels; without a bound, lists nested n deep would cost n² spaces

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
"""Soft hyphen, zero-width space, marks. The zero-width joiners stay: they are spelling in Persian and Hindi."""
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml"})
_UNTYPED = frozenset({"", "text/plain", "application/octet-stream"})
_SNIFFED_CHARS = 1024
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEADER_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE | re.ASCII)
_META_CHARSET = re.compile(r"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE | re.ASCII)
_WEB_CHARSETS = {
    **dict.fromkeys(("iso-8859-1", "iso8859-1", "latin-1", "latin1", "us-ascii", "ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "cp949"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis"), "cp932"),
}
"""Names the web uses for a wider charset (encoding.spec.whatwg.org, names and labels)."""
_META_WINDOW_BYTES = 4096  # browsers look at 1024; generators that write long comments first put it later


def clean_html_content(html: str) -> str:
    """Return the readable text of a page, a fragment or a title; plain text comes back with its white space tidied."""
    feeder = _Feeder()
    feeder.feed(html)
    feeder.close()
    return feeder.reducer.text()


def decode_html(body: bytes, content_type: str = "") -> str:
    """Return the text of a page: byte order mark, UTF-8 where it fits, the header's charset, <meta>, cp1252.

    Text that is well-formed UTF-8 beyond ASCII is hardly ever anything else, and servers that call every file latin-1
    are common, so UTF-8 goes before what is declared, unless NUL or escape bytes hint at UTF-16 or ISO 2022. Bytes
    that no charset explains are replaced, never an error.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    declared = [name for name in _declared_charsets(body, content_type) if _is_plausible(name, body)]
    for encoding in (*declared, "utf-8") if b"\0" in body or b"\x1b" in body else ("utf-8", *declared):
        try:
            return body.decode(_WEB_CHARSETS.get(encoding, encoding))
        except (LookupError, UnicodeError):
            continue
    return body.decode("cp1252", "replace")


def _declared_charsets(body: bytes, content_type: str) -> list[str]:
    head = body[:_META_WINDOW_BYTES].decode("latin-1")
    matches = (_HEADER_CHARSET.search(content_type), _META_CHARSET.search(head))
    return [match[1].lower() for match in matches if match]


def _is_plausible(charset: str, body: bytes) -> bool:
    """UTF-16 and UTF-32 hold NUL bytes in any page with markup; UTF-7 is banned from the web."""
    return charset != "utf-7" and (b"\0" in body or not charset.startswith(("utf-16", "utf-32")))


def is_html(text: str, content_type: str) -> bool:
    """Tell whether a decoded body is markup: so its Content-Type says, or it says nothing and the text begins so."""
    media_type = content_type.partition(";")[0].strip().lower()
    head = text[:_SNIFFED_CHARS].lower()
    if media_type in _UNTYPED:
        return "\0" not in head and ("<!doctype html" in head or "<html" in head)
    return "\0" not in head and media_type in _HTML_TYPES


class TextReducer:
    """Takes the events of a parser and keeps the text.

    Paragraphs are separated by a blank line, list items are `- …` lines, table rows `cell | cell` lines; `pre` is a
    block of its own, verbatim. Hidden elements, and links within the page without a letter or digit (¶, §), leave
    nothing. Events need not be balanced.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []  # finished lines, each after the first led by its line feeds
        self._open: list[str] = []  # parts of the line being read
        self._gap = 0  # line feeds owed before the next line
        self._follows_term = False  # the next line defines the one before and stays with it
        self._lead = 0  # parts of the line that wait for the next paragraph
        self._bullet = ""
        self._lists = 0
        self._cells: list[int] = []  # one per open table: cells seen in its current row
        self._code: list[str] | None = None  # parts of the `pre` being read
        self._ornaments: list[tuple[str, int]] = []  # (tag, length of _open at its start)
        self._dropping: list[str] = []  # open elements, outermost the one that is dropped

    def start(self, tag: str, attributes: Attributes) -> bool:
        """Open an element. False: it is dropped, so its content need not be sent; its end must be."""
        if self._dropping and not self._resumes_at(tag):
            if tag not in VOID:
                self._dropping.append(tag)
            return False
        if is_hidden(tag, attributes):
            if tag not in VOID:
                self._dropping.append(tag)
            return False
        if tag in BLOCKS:
            self.start_block(tag)
        elif tag == "br":
            self.line_break()
        elif tag == "img":
            self.data(f" {attributes.get('alt') or ''} ")
        elif tag == "a" and (attributes.get("href") or "").startswith("#"):
            self._ornaments.append((tag, len(self._open)))
        return True

    def data(self, text: str) -> None:
        if self._dropping:
            return
        if not text.isascii():
            text = text.translate(_INVISIBLE)
        (self._open if self._code is None else self._code).append(text)

    def end(self, tag: str) -> None:
        if tag in VOID:
            return
        if self._dropping:
            if self._ends_inside_dropped(tag):
                return
            self._dropping.clear()  # the end of an element around the dropped one, which was never closed
        if tag in BLOCKS:
            self.end_block(tag)
        elif self._ornaments and self._ornaments[-1][0] == tag:
            _, mark = self._ornaments.pop()
            if not any(map(str.isalnum, "".join(self._open[mark:]))):
                del self._open[mark:]

    def verbatim(self, text: str) -> None:
        """Add a block as it is, blank lines at its ends aside."""
        self._follows_term = False
        self._lead = 0
        self._break(2)
        self._bullet = ""
        text = _BLANK_LINES.sub("", text.replace("\r\n", "\n")).rstrip()
        if text:
            self._write(text)
            self._gap = 2

    def lead(self) -> None:
        """Make the line so far the beginning of the next paragraph: `Note: …`."""
        if any(map(str.strip, self._open)):
            line = "".join(self._open).rstrip()
            self._open = [line if line.endswith(":") else f"{line}: "]
            self._lead = 1

    def text(self) -> str:
        if self._code is not None:
            self.end_block("pre")
        self._lead = 0
        self._break(1)
        return "".join(self._lines)

    def start_block(self, tag: str) -> None:
        if self._code is not None:
            self._end_code_line()
        elif tag == "pre":
            self._break(2)
            self._code = []
        elif tag == "table":
            self._break(2)
            self._cells.append(0)
        elif tag in ROWS and self._cells:
            self._cells[-1] = 0
            self._break(1)
        elif tag in CELLS and self._cells:
            if self._cells[-1]:
                self._open.append(" | ")
            self._cells[-1] += 1
        elif tag in LISTS:
            self._separate(2)
            self._lists += 1
        elif tag == "li":
            self._separate(1)
            self._bullet = "  " * min(self._lists - 1, MAX_INDENT) + "- "
        else:
            self._separate(1 if tag in LINES else 2)

    def end_block(self, tag: str) -> None:
        if self._code is not None:
            self._end_code_line()
            if tag == "pre":
                code, self._code = self._code, None
                self.verbatim("".join(code))
        elif tag == "table":
            self._cells = self._cells[:-1]
            self._break(2)
        elif tag in ROWS and self._cells:
            self._cells[-1] = 0
            self._break(1)
        elif tag in LISTS:
            self._lists = max(0, self._lists - 1)
            self._separate(2)
            self._bullet = ""
        elif tag not in CELLS:
            self._separate(1 if tag in {"li", "dt"} else 2)
            self._follows_term = tag == "dt" or (self._follows_term and tag != "dl")

    def _separate(self, gap: int) -> None:
        """End a paragraph; inside a list a line, inside a table cell nothing but a space."""
        if self._cells and self._cells[-1]:
            self._open.append(" ")
        else:
            self._break(1 if self._lists else gap)

    def line_break(self) -> None:
        if self._code is not None:
            self._code.append("\n")
        else:
            self._separate(1)

    def _end_code_line(self) -> None:
        """Some highlighters make each line of code a block and write no line feed."""
        if self._code and not self._code[-1].endswith("\n"):
            self._code.append("\n")

    def _break(self, gap: int) -> None:
        if self._lead and not any(map(str.strip, self._open[self._lead :])):
            del self._open[self._lead :]
            return
        if self._open:
            self._lead = 0
            line = " ".join("".join(self._open).split())
            self._open.clear()
            self._ornaments.clear()
            if line:
                self._write(self._bullet + line)
                self._bullet = ""
                self._gap = gap
                return
        if self._lines:
            self._gap = max(self._gap, 1 if self._follows_term else gap)

    def _write(self, line: str) -> None:
        self._lines.append("\n" * self._gap + line)
        self._gap = 0
        self._follows_term = False

    def _ends_inside_dropped(self, tag: str) -> bool:
        if self._dropping[-1] != tag and tag not in self._dropping:
            return False
        while self._dropping.pop() != tag:
            pass
        return True

    def _resumes_at(self, tag: str) -> bool:
        """End an unclosed dropped element where a sibling of its kind begins (`<li hidden>a<li>b`)."""
        if len(self._dropping) > 1 or tag != self._dropping[0] or tag not in IMPLIED_ENDS:
            return False
        self._dropping.clear()
        return True


class _Feeder(HTMLParser):
    """Sends the events of the standard library's parser to a reducer."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.reducer = TextReducer()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.reducer.start(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self.reducer.end(tag)

    def handle_data(self, data: str) -> None:
        self.reducer.data(data)

    def parse_marked_section(self, i: int, report: bool = True) -> int:  # noqa: FBT001, FBT002 - the inherited form
        """Skip `<![word[` as HTML does; Python 3.11 asserts that it knows the word."""
        return self.parse_bogus_comment(i, report)
