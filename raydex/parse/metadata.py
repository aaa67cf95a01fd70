"""Read what a page says of itself beside its text.

    (tree, Page) → Metadata    pure, no I/O

What the page says goes before what its URL says; what neither says, or says in no form we are sure of, is "".
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import Any
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode

from raydex.parse.facets import MAX_SCRIPT_CHARS, facets_of_url, language_of, version_of
from raydex.records import Page
from utils.urls import canonical_url

PRODUCT = "raydexbot"  # the name by which a site may address this crawler alone
MAX_DESCRIPTION_CHARS = 500
MAX_BREADCRUMBS, MAX_BREADCRUMB_CHARS = 16, 200

_TRAILS = (
    (
        b"breadcrumb",
        "nav[aria-label*=breadcrumb i], .breadcrumbs, .breadcrumb, #breadcrumbs, .bd-breadcrumbs, .wy-breadcrumbs, "
        ".rustdoc-breadcrumbs",
    ),
    (b"nav-path", "#nav-path"),  # Doxygen
    (b'id="path"', "#path"),  # Apache
    (b"related", "div.related"),  # Sphinx
    (b'rel="up"', "ol:has(> li > a[rel~=up]), ul:has(> li > a[rel~=up])"),
)
"""What a page must hold, in lower case, before the selectors are tried: each of these costs as much as the parsing."""
_BESIDE_THE_TRAIL = frozenset({"right", "wy-breadcrumbs-aside"})
_TRAIL_MARKS = " \t\r\n»›>/|→·•:\u200b\xa0"
_BREADCRUMB_NAMES = '[itemtype$="BreadcrumbList"] [itemprop~=itemListElement] [itemprop~=name]'

_UPDATED_METAS = (
    "article:modified_time",
    "og:updated_time",
    "dcterms.modified",
    "dc.date.modified",
    "last-modified",
    "datemodified",
)
_SAYS_UPDATED = re.compile(
    r"last\s+(?:updated?|modified|modification|changed?|edited|revised)\b|(?:updated|modified)\s+on\b", re.IGNORECASE
)
_MAY_SAY_UPDATED = (b"last updat", b"last modif", b"last chang", b"last edit", b"last revis", b"ated on", b"fied on")
_UPDATED_PLACES = (
    "footer, [role=contentinfo], [id*=footer i], [class*=footer i], [class*=last i], [class*=source-file i], "
    "[class*=revision-date i]"
)
_LABEL_CHARS, _DATE_WINDOW, _TAIL_CHARS = 200, 60, 1000
_MAX_CANDIDATES = 50  # elements of a page that are looked at for a date or a trail

_ISO_DATE = re.compile(
    r"\b(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?: ?(Z|UTC|GMT|[+-]\d\d:?\d\d)\b)?)?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY = r"\b(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"\b(?P<year>(?:19|20)\d\d)\b"
_WRITTEN_DATE = re.compile(
    rf"\b{_MONTH} +{_DAY}\b(?:,? *(?:at )?\d\d?:\d\d(?::\d\d)?)?[ ,]+(?:[A-Z]{{3,4}} +)?{_YEAR}"  # Oct 3, 2026; ctime
    "|" + rf"{_DAY}(?: of)?[ -]+{_MONTH},?[ -]+{_YEAR}".replace("<", "<then_"),  # 3 October 2026
    re.IGNORECASE,
)

_ROBOT_NAME = re.compile(r"\s*([\w*-]+)\s*:\s*(.*)", re.DOTALL)
_ROBOT_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_ALL_ROBOTS = "robots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a page says of itself; "" and () where it does not.

    version: without a leading v. language: BCP 47. breadcrumbs: outermost first, as shown. updated: ISO 8601 date or
    date-time. canonical: absolute, canonical spelling. index, follow: what the robots directives of page and header
    allow.
    """

    description: str = ""
    version: str = ""
    language: str = ""
    breadcrumbs: tuple[str, ...] = ()
    updated: str = ""
    canonical: str = ""
    index: bool = True
    follow: bool = True


def read_metadata(tree: LexborHTMLParser, page: Page) -> Metadata:
    metas = list(_metas(tree))
    first = dict(reversed(metas))
    linked_data = list(_linked_data(tree))
    path_language, path_version = facets_of_url(page.url)
    markup = page.body.lower()
    rules = _robot_rules(metas, page.robots)
    return Metadata(
        description=_shortened(first.get("description") or first.get("og:description") or ""),
        version=version_of(tree, first) or path_version,
        language=language_of(tree, first) or path_language,
        breadcrumbs=_breadcrumbs(tree, linked_data, markup),
        updated=_updated(tree, first, linked_data, markup),
        canonical=_canonical(tree, page.crawl_url),
        index=rules.isdisjoint({"noindex", "none"}),
        follow=rules.isdisjoint({"nofollow", "none"}),
    )


def _metas(tree: LexborHTMLParser) -> Iterator[tuple[str, str]]:
    """Yield (name, property, itemprop or http-equiv in lower case, content) where both are given."""
    for attributes in (node.attributes for node in tree.css("meta[content]")):
        content = (attributes.get("content") or "").strip()
        names = (attributes.get(key) for key in ("name", "property", "itemprop", "http-equiv"))
        if content and (name := next(filter(None, names), "")):
            yield name.strip().lower(), content


def _linked_data(tree: LexborHTMLParser) -> Iterator[dict[str, Any]]:
    """Yield every object of the page's JSON-LD, the nested ones after those that hold them."""
    for script in tree.css('script[type="application/ld+json"]'):
        try:
            waiting = [json.loads(script.text()[:MAX_SCRIPT_CHARS])]
        except (ValueError, RecursionError):
            continue
        while waiting:
            item = waiting.pop()
            if isinstance(item, dict):
                yield item
            waiting.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())


def _shortened(text: str) -> str:
    """Return text on one line, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_DESCRIPTION_CHARS else line[:MAX_DESCRIPTION_CHARS].rpartition(" ")[0]


def _canonical(tree: LexborHTMLParser, url: str) -> str:
    link = tree.css_first("link[rel~=canonical][href]")
    href = (link.attributes.get("href") or "").strip() if link else ""
    if not href:
        return ""
    base = tree.css_first("base[href]")
    try:
        base_url = urljoin(url, (base.attributes.get("href") or "").strip()) if base else url
    except ValueError:  # a host that cannot be
        base_url = url
    return canonical_url(href, base=base_url)


def _breadcrumbs(tree: LexborHTMLParser, linked_data: list[dict[str, Any]], markup: bytes) -> tuple[str, ...]:
    listed = (_listed_names(item) for item in linked_data if "BreadcrumbList" in str(item.get("@type")))
    marked = tree.css(_BREADCRUMB_NAMES) if b"breadcrumblist" in markup else []
    selectors = (selector for word, selector in _TRAILS if word in markup)
    shown = (_shown_names(node) for selector in selectors for node in tree.css(selector)[:_MAX_CANDIDATES])
    for names in chain(listed, [[node.attributes.get("content") or node.text() for node in marked]], shown):
        tidy = (" ".join(name.split()).strip(_TRAIL_MARKS)[:MAX_BREADCRUMB_CHARS] for name in names)
        if trail := tuple(filter(None, tidy)):
            return trail[:MAX_BREADCRUMBS]
    return ()


def _listed_names(breadcrumb_list: dict[str, Any]) -> list[str]:
    """Return the names in a schema.org BreadcrumbList, by position."""
    items = breadcrumb_list.get("itemListElement")
    entries = [entry for entry in items if isinstance(entry, dict)] if isinstance(items, list) else []
    named = [(entry, entry.get("item") if isinstance(entry.get("item"), dict) else {}) for entry in entries]
    if all(isinstance(entry.get("position"), int) for entry in entries):
        named.sort(key=lambda pair: int(pair[0]["position"]))
    return [str(entry.get("name") or (item or {}).get("name") or "") for entry, item in named]


def _shown_names(trail: LexborNode) -> list[str]:
    """Return the entries of a trail: the items of its list, else its children, else those of an only child."""
    items = trail if trail.tag in {"ol", "ul"} else trail.css_first("ol, ul")
    if items is not None:
        entries = [item for item in items.iter() if item.tag == "li"]
        return [item.text() for item in entries if _BESIDE_THE_TRAIL.isdisjoint(_classes(item))]
    children = list(trail.iter(include_text=True))
    while len(children) == 1 and not children[0].is_text_node:
        children = list(children[0].iter(include_text=True))
    return [child.text() or "" for child in children]


def _classes(node: LexborNode) -> list[str]:
    return (node.attributes.get("class") or "").split()


def _updated(tree: LexborHTMLParser, metas: Mapping[str, str], linked_data: list[dict[str, Any]], markup: bytes) -> str:
    claims = chain(
        (metas[name] for name in _UPDATED_METAS if name in metas),
        _marked_dates(tree),
        (item["dateModified"] for item in linked_data if isinstance(item.get("dateModified"), str)),
        _written_dates(tree) if any(words in markup for words in _MAY_SAY_UPDATED) else (),
    )
    return next(filter(None, map(_iso_date, claims)), "")


def _marked_dates(tree: LexborHTMLParser) -> Iterator[str]:
    for node in tree.css("time[datetime]")[:_MAX_CANDIDATES]:
        nearby = (above.text() for above in (node.parent, node.parent and node.parent.parent) if above)
        is_of_update = node.attributes.get("itemprop") == "dateModified" or any(
            len(text) <= _LABEL_CHARS and _SAYS_UPDATED.search(text) for text in nearby
        )
        if is_of_update:
            yield node.attributes.get("datetime") or ""


def _written_dates(tree: LexborHTMLParser) -> Iterator[str]:
    """Yield what follows "last updated" in a footer, else at the very end of the page; the last mention first."""
    places = [node.text(separator=" ") for node in reversed(tree.css(_UPDATED_PLACES)[-_MAX_CANDIDATES:])]
    tail = (tree.body.text(separator=" ")[-_TAIL_CHARS:] for _ in range(1) if tree.body)
    for text in chain(places, tail):
        line = " ".join(text.split())
        for mention in reversed(list(_SAYS_UPDATED.finditer(line))):
            yield line[mention.end() : mention.end() + _DATE_WINDOW]


def _iso_date(text: str) -> str:
    """Return the date or date-time in text as ISO 8601; "" for none, an impossible or an ambiguous one (10/3/2026)."""
    try:
        if match := _ISO_DATE.search(text):
            day, time, zone = match.groups()
            zone = zone and zone.replace("UTC", "Z").replace("GMT", "Z")
            moment = datetime.fromisoformat(f"{day}T{time}{zone or ''}") if time else date.fromisoformat(day)
            return moment.isoformat().replace("+00:00", "Z")
        if match := _WRITTEN_DATE.search(text):
            parts = {name.removeprefix("then_"): value for name, value in match.groupdict().items() if value}
            month = _MONTHS.index(parts["month"].lower()) + 1
            return date(int(parts["year"]), month, int(parts["day"])).isoformat()
    except ValueError:  # February 30
        return ""
    return ""


def _robot_rules(metas: list[tuple[str, str]], header: str) -> set[str]:
    """Return the directives for all robots and for ours, of <meta> and of X-Robots-Tag (one header per line)."""
    rules = [rule for name, content in metas if name in {_ALL_ROBOTS, PRODUCT} for rule in re.split(r"[,\s]+", content)]
    for line in header.splitlines():
        robot = _ALL_ROBOTS
        for part in line.split(","):
            rule = part
            match = _ROBOT_NAME.fullmatch(part)
            if match and match[1].lower() not in _ROBOT_VALUES:
                robot, rule = match[1].lower(), match[2]
            if robot in {_ALL_ROBOTS, "*", PRODUCT}:
                rules.append(rule)
    return {rule.strip().lower() for rule in rules}
