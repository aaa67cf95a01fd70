"""The body of a page as flat lists, one item per token: a walk costs no object per node, any subtree is a slice.

    HTML of a body, as a parser serialises it → Tree

Formatting elements without a say in how a page reads (`<span class="k">`) leave only their text, so that highlighted
code is one string. Sums up to each token answer in one subtraction how many words, letters or links a subtree holds.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from itertools import accumulate

from raydex.parse.roles import Role, parse_attributes, role_of
from utils.html_text import VOID
from utils.html_visibility import Attributes

HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_AROUND_CODE = HEADINGS | {"pre"}
"""Where `code` is more than formatting: it makes a heading a symbol, and its class names the language."""
SEPARATORS = " \t\r\n|·•,;:/()[]-–—«»<>"  # between links they are neither text nor link

_ATTRIBUTES = r'(?: [^\s/>][^\s/>=]*="[^"]*")*'
_UNREAD = "script|style|svg|template|noscript|iframe|canvas|xmp|noembed|noframes|object"
_TOKEN = re.compile(
    rf"<(?:({_UNREAD})({_ATTRIBUTES})>([^<]*(?:<(?!/\1>)[^<]*)*)</\1>"
    rf"|(/?)([a-zA-Z][^\s/>]*)({_ATTRIBUTES})>|!--.*?-->|\?[^>]*>)([^<]*)",
    re.DOTALL,
)
_UNREAD_NAMES = frozenset(_UNREAD.split("|"))
_NEVER_CLOSED = VOID | {"basefont", "bgsound", "frame", "keygen"}

_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*")
_FORMAT = re.compile(r"<(/?)(a|big|b|code|em|font|i|nobr|strike|small|strong|s|tt|u)(?=[\s/>])[\s/]*([^\s/>]?)", re.I)
_SELF_ENDING = VOID | {"p", "li", "dt", "dd", "td", "th", "tr", "tbody", "thead", "tfoot", "option", "colgroup"}
_MAX_STEPS = 1000  # kept; pages can make up any number of names
_HARMLESS_TAGS = 2000  # fewer cannot hurt, whatever they are
MAX_DEPTH = 20_000  # open elements; a parser compares each new block with all of them: 0.3 s at this depth
MAX_COPIES = 10_000_000  # nodes; a parser copies unclosed formatting into every block that follows


class _Steps(dict[str, int]):
    """`<div` → 1, `</div` → -1; 0 for elements that need no end."""

    def __missing__(self, tag: str) -> int:
        step = 0 if tag.lstrip("</").lower() in _SELF_ENDING else -1 if tag[1] == "/" else 1
        return self.setdefault(tag, step) if len(self) < _MAX_STEPS else step


_STEPS = _Steps()


def is_bomb(html: str) -> bool:
    """Tell whether unclosed tags make a parser need quadratic time or memory."""
    if html.count("<") < _HARMLESS_TAGS:
        return False
    tags = _TAG.findall(html)
    depth = max(accumulate(map(_STEPS.__getitem__, tags)), default=0)
    return depth > MAX_DEPTH or (depth * len(tags) > MAX_COPIES and _unclosed_formats(html) * len(tags) > MAX_COPIES)


def _unclosed_formats(html: str) -> int:
    """How many formatting elements that differ are open at once; of equal ones a parser keeps three."""
    opened: dict[str, list[bool]] = {}
    count = most = 0
    for slash, name, attributes in _FORMAT.findall(html):
        stack = opened.setdefault(name.lower(), [])
        if slash:
            count -= stack.pop() if stack else False
        else:
            stack.append(bool(attributes))
            count += stack[-1]
            most = max(most, count)
    return most


@dataclass(slots=True)
class Tree:
    """Token i begins an element (`names[i]`) or ends one (""). Token 0 begins the body.

    texts: what stands between token i and the next. partners: where the element of token i ends, or began; void
    elements end where they begin. letters: characters before token i, white space and separators at the ends aside.
    """

    names: list[str] = field(default_factory=list)
    raws: list[str] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    partners: list[int] = field(default_factory=list)
    letters: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)  # the tokens that begin one
    link_letters: list[int] = field(default_factory=list)  # in the first 0, 1, 2 … links
    headings: list[int] = field(default_factory=list)  # the tokens that begin one

    def __len__(self) -> int:
        return len(self.names)

    def attributes(self, index: int) -> Attributes:
        return parse_attributes(self.raws[index])

    def get(self, index: int, name: str) -> str:
        raw = self.raws[index]
        return parse_attributes(raw).get(name) or "" if raw else ""

    def text(self, index: int) -> str:
        """All text of the element, as it stands."""
        return "".join(self.texts[index : self.partners[index]])

    def words_of(self, index: int) -> int:
        return len(" ".join(self.texts[index : self.partners[index]]).split())

    def letters_of(self, index: int) -> int:
        return self.letters[self.partners[index]] - self.letters[index]

    def links_of(self, index: int) -> tuple[int, int]:
        """How many links the element holds, and how many letters these hold."""
        first, last = bisect_left(self.links, index), bisect_left(self.links, self.partners[index])
        return last - first, self.link_letters[last] - self.link_letters[first]

    def links_in(self, index: int) -> list[int]:
        return self.links[bisect_left(self.links, index) : bisect_left(self.links, self.partners[index])]

    def headings_of(self, index: int) -> int:
        return bisect_left(self.headings, self.partners[index]) - bisect_left(self.headings, index)

    def ancestors(self, index: int) -> list[int]:
        """The elements around the element, outermost first."""
        names, partners = self.names, self.partners
        return [at for at in range(index) if partners[at] > index and names[at]]

    def children(self, index: int) -> Iterator[int]:
        at, end, partners = index + 1, self.partners[index], self.partners
        while at < end:
            yield at
            at = partners[at] + 1

    def descendants(self, index: int) -> Iterator[int]:
        names = self.names
        return (at for at in range(index + 1, self.partners[index]) if names[at])

    def previous(self, index: int) -> int:
        """The element right before, white space aside; -1 when text or nothing stands there."""
        before = index - 1
        if before < 1 or self.texts[before].strip():
            return -1
        at = before if not self.names[before] or self.partners[before] == before else -1
        return self.partners[at] if at >= 0 else -1

    def next(self, index: int) -> int:
        """The element right after, white space aside; -1 when text or nothing stands there."""
        end = self.partners[index]
        at = end + 1
        return at if at < len(self) and self.names[at] and not self.texts[end].strip() else -1


_LEAF = re.compile(
    r'<(?:span|em|strong|b|i|tt)(?: class="(?:(?!nav|toc)[a-z]\w{0,2}|hljs-\w+|token \w+)")?>([^<]*)'
    r"</(?:span|em|strong|b|i|tt)>"
)
"""Formatting of single words, as highlighters write it by the thousand."""


def read_tree(html: str, hidden_names: frozenset[str]) -> Tree:
    """html: an element as a parser serialises it: every element closed, every attribute in double quotes."""
    tree = Tree()
    names, raws, roles, texts, partners = tree.names, tree.raws, tree.roles, tree.texts, tree.partners
    opened: list[int] = []  # the token that began each open element; -1 for formatting
    begun = -1
    plainer = html if hidden_names else "".join(_LEAF.split(html))
    for unread, unread_raw, unread_text, slash, name, raw, text in _TOKEN.findall(plainer):
        role: Role = "formatting"
        if slash:
            begun = opened.pop() if opened and name not in _UNREAD_NAMES else -1
            if begun >= 0:
                role, name = "content", ""
                partners[begun] = len(names)
        elif name:
            role = role_of(name, raw, hidden_names)
            if name == "code" and role == "formatting" and opened[-1] >= 0 and names[opened[-1]] in _AROUND_CODE:
                role = "content"
            begun = len(names)
            if name not in _NEVER_CLOSED:
                opened.append(-1 if role == "formatting" else begun)
        elif unread == "script" and 'type="math/tex' in unread_raw:
            text = f"${unread_text}$ {text}"
        if role == "formatting":
            texts[-1] += text
        else:
            names.append(name)
            raws.append(raw)
            roles.append(role)
            texts.append(text)
            partners.append(begun)
    _sum_up(tree)
    return tree


def _sum_up(tree: Tree) -> None:
    texts = tree.texts[:] = [unescape(text) if "&" in text else text for text in tree.texts]
    tree.letters = list(accumulate([len(text.strip(SEPARATORS)) if text else 0 for text in texts], initial=0))
    tree.headings = [token for token, name in enumerate(tree.names) if name in HEADINGS]
    tree.links = [token for token, name in enumerate(tree.names) if name == "a" and 'href="' in tree.raws[token]]
    tree.link_letters = list(accumulate(map(tree.letters_of, tree.links), initial=0))
