"""Tell the main content of a page from what surrounds it, by structure and by the density of links.

    main_content(tree) → the element to read        Surroundings.covers(element) → not to be read

No site is known by name: lists of links, trails before the first heading, tables of contents, pagers and closing lines
look alike everywhere.
"""

import re
from bisect import bisect_left

from raydex.parse.tree import Tree

GROUPS = frozenset(
    {"div", "p", "ul", "ol", "dl", "table", "aside", "footer", "section", "header", "center", "details", "td", "th"}
)
"""Blocks that are dropped as a whole when they turn out to be lists of links."""
SECTIONING = frozenset({"article", "section", "blockquote", "main"})

NAVIGATION_LINKS = 10
NAVIGATION_SHARE = 0.9  # of the letters
ASIDE_LINKS = 2  # an aside or footer needs no more links than "previous, next" to be navigation
CONTENTS_LINKS = 3  # that all lead to places on the page itself
CONTENTS_SHARE = 0.75
TRAIL_SHARE = 0.5  # before the first heading
TRAIL_LETTERS = 400
BANNER_LETTERS = 60  # before the first heading: the name of the site
PAGER_LETTERS = 300
PAGER_SHARE = 0.25
MAIN_SHARE = 0.6  # of the page's letters in an article, to be all that is read
TAIL_LETTERS = 200  # that may follow a closing line
MAX_CLOSING_LETTERS = 250
MAX_LABEL_LETTERS = 60
MAX_TOKENS = 200  # of an element whose text is looked at

_CLOSING = re.compile(
    r"\W*(?:last (?:updated|modified|edited|changed|build)|page last|updated on|created (?:using|with|by)|made with"
    r"|built (?:with|by|using)|generated (?:by|on|with|using|from)|powered by|copyright|©|\(c\) \d{4}"
    r"|all rights reserved|was this (?:page|article|helpful)|did you find|report a (?:bug|problem)|found a bug"
    r"|(?:this site|we) uses? cookies)",
    re.IGNORECASE,
)
_EDIT = re.compile(
    r"\W*(?:\[?(?:view )?(?:source|src)\]?"
    r"|(?:edit|improve|view|show|suggest|report|browse|open|see)\b.{0,30}\b"
    r"(?:page|source|github|gitlab|bitbucket|issue|edits?|bug|history|markdown))\W*",
    re.IGNORECASE,
)
_TOGGLE = re.compile(r"\W*(?:expand|show|hide|collapse|toggle)\b.{0,20}", re.IGNORECASE)
_PAGER_RELATIONS = re.compile(r' rel="(?:[^"]* )?(?:prev|previous|next)[" ]')


def main_content(tree: Tree) -> int:
    """Return the element that holds the text of the page: what is marked as main, a lone article, or the body."""
    names, raws = tree.names, tree.raws
    marked = [at for at, name in enumerate(names) if name == "main" or (name and 'role="main"' in raws[at])]
    if marked:
        return max(marked, key=tree.letters_of)
    articles = [at for at, name in enumerate(names) if name == "article"]
    largest = max(articles, key=tree.letters_of, default=0)
    is_main = len(articles) == 1 or tree.letters_of(largest) >= MAIN_SHARE * tree.letters_of(0)
    return largest if is_main else 0


def first_heading(tree: Tree, root: int) -> int:
    """Return the first h1 of the element, else its first h2, else -1."""
    inside = [at for at in tree.headings if root <= at < tree.partners[root]]
    for name in ("h1", "h2"):
        for at in inside:
            if tree.names[at] == name:
                return at
    return -1


class Surroundings:
    """Knows which blocks below an element are not its text. heading: the first one, -1 when there is none."""

    def __init__(self, tree: Tree, root: int, heading: int) -> None:
        self._tree = tree
        self._heading = heading
        self._end = tree.letters[tree.partners[root]]
        self._is_page = root == 0
        self._outward = [link for link in tree.links if ' href="#' not in tree.raws[link]]

    def covers(self, at: int) -> bool:
        tree = self._tree
        letters = tree.letters_of(at)
        if not letters or self._defines_symbols(at):
            return False
        if self._is_before_heading(at) and letters <= BANNER_LETTERS and not tree.headings_of(at):
            return tree.names[at] != "p"
        links, link_letters = tree.links_of(at)
        if links and self._is_navigation(at, links, link_letters / letters, letters):
            return True
        return letters <= MAX_CLOSING_LETTERS and self._is_small(at) and self._is_closing(at)

    def _defines_symbols(self, at: int) -> bool:
        """Tell whether a list gives its entries addresses, however short and full of links their signatures are."""
        tree = self._tree
        return tree.names[at] == "dl" and tree.names[at + 1] == "dt" and ' id="' in tree.raws[at + 1]

    def _is_small(self, at: int) -> bool:
        """Tell whether looking at the element is cheap: blocks nested n deep would be looked at n times."""
        return self._tree.partners[at] - at <= MAX_TOKENS

    def _is_navigation(self, at: int, links: int, share: float, letters: int) -> bool:
        tree = self._tree
        if letters <= TRAIL_LETTERS and share >= TRAIL_SHARE and self._is_before_heading(at):
            return True
        if letters <= TRAIL_LETTERS and share >= NAVIGATION_SHARE and self._is_at_top(at):
            return True
        if letters <= PAGER_LETTERS and self._is_small(at) and self._is_pager(at):
            return share >= PAGER_SHARE
        if share >= CONTENTS_SHARE and links >= CONTENTS_LINKS and self._is_contents(at):
            return True
        needed = ASIDE_LINKS if tree.names[at] in {"aside", "footer"} else NAVIGATION_LINKS
        return links >= needed and share >= NAVIGATION_SHARE and not tree.headings_of(at)

    def _is_before_heading(self, at: int) -> bool:
        """Tell whether a block stands above the first heading of a page without a main element."""
        return self._is_page and self._tree.partners[at] < self._heading

    def _is_at_top(self, at: int) -> bool:
        """Tell whether next to nothing stands above a block of a page without headings."""
        return self._is_page and self._heading < 0 and self._tree.letters[at] <= BANNER_LETTERS

    def _is_contents(self, at: int) -> bool:
        """Tell whether all links lead to places on the page itself."""
        tree = self._tree
        first, last = bisect_left(self._outward, at), bisect_left(self._outward, tree.partners[at])
        return first == last and tree.headings_of(at) <= 1

    def _is_pager(self, at: int) -> bool:
        """Tell whether the links lead to the pages before and after, or to the page in other languages."""
        raws = [self._tree.raws[link] for link in self._tree.links_in(at)]
        return any(map(_PAGER_RELATIONS.search, raws)) or (len(raws) > 1 and all(" hreflang=" in raw for raw in raws))

    def _is_closing(self, at: int) -> bool:
        tree = self._tree
        if self._end - tree.letters[tree.partners[at]] > TAIL_LETTERS or tree.headings_of(at):
            return False
        return _CLOSING.match(tree.text(at)) is not None

    def covers_link(self, at: int) -> bool:
        """Tell whether a link that stands alone leads to the page's source (`Edit this page`)."""
        tree, end = self._tree, self._tree.partners[at]
        if (
            tree.letters_of(at) > MAX_LABEL_LETTERS
            or not self._is_small(at)
            or tree.texts[at - 1].strip()
            or tree.texts[end].strip()
        ):
            return False
        return _EDIT.fullmatch(" ".join(tree.text(at).split())) is not None

    def covers_summary(self, at: int) -> bool:
        """Tell whether a summary says no more than that it opens (`Expand description`)."""
        if self._tree.letters_of(at) > MAX_LABEL_LETTERS or not self._is_small(at):
            return False
        return _TOGGLE.fullmatch(self._tree.text(at).strip()) is not None
