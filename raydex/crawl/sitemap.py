"""Read what a sitemap lists, as https://www.sitemaps.org/protocol.html says; without I/O.

bytes (XML or text, plain or gzip) → Sitemap(pages, sitemaps)
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError as XmlError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from raydex.errors import ParseError
from utils.urls import canonical_url

MAX_BYTES = 50 * 2**20  # unpacked, and
MAX_ENTRIES = 50_000  # of one file: the limits of the protocol
MAX_NESTING = 16  # elements; extensions (images, videos) need five
ROOTS = frozenset({"urlset", "sitemapindex"})
LAST_ZONE = timezone(timedelta(hours=-12))  # where a day ends last
_DATE = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?")


@dataclass(frozen=True, slots=True)
class SitemapEntry:
    """A page that a sitemap lists. url: canonical; lastmod: the latest moment, in UTC, that its text can mean."""

    url: str
    lastmod: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sitemap:
    """What one file lists: pages, and further sitemaps when it is an index. problem: why the end of it is missing."""

    pages: tuple[SitemapEntry, ...] = ()
    sitemaps: tuple[str, ...] = ()
    problem: str = ""


def read_sitemap(body: bytes, base_url: str) -> Sitemap:
    """Return what a sitemap lists, in its order; locations that are no web address are left out.

    Raises ParseError (bad_sitemap). A file beyond the limits of the protocol is read up to them, and says so.
    """
    pages, sitemaps, problem, count = [], [], "", 0
    try:
        data = _unpacked(body)
        if len(data) > MAX_BYTES:
            data, problem = data[:MAX_BYTES], f"longer than {MAX_BYTES} bytes; the rest was left out"
        for count, (kind, location, lastmod) in enumerate(islice(_entries(data), MAX_ENTRIES + 1)):
            if count == MAX_ENTRIES:
                problem = f"more than {MAX_ENTRIES} entries; the rest was left out"
            elif location.strip() and (url := canonical_url(location, base=base_url)):
                pages += [SitemapEntry(url, read_lastmod(lastmod))] if kind == "url" else []
                sitemaps += [url] if kind == "sitemap" else []
    except (XmlError, DefusedXmlException, ValueError, LookupError, OSError, EOFError, zlib.error) as error:
        if not problem:  # else it is our own cut that makes the XML ill-formed
            raise ParseError(base_url, "bad_sitemap", str(error) or type(error).__name__) from error
    return Sitemap(tuple(pages), tuple(sitemaps), problem)


def read_lastmod(text: str) -> datetime | None:
    """Return a W3C date-time of any granularity as the last moment it covers, None when it is none.

    `2024-05` may be as late as the end of May, where May ends last. So a copy fetched after the moment is current.
    """
    text = text.strip()
    try:
        if not (date := _DATE.fullmatch(text)):
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=LAST_ZONE)).astimezone(UTC)
        year, month, day = (int(part) if part else 0 for part in date.groups())
        start = datetime(year, month or 1, day or 1, tzinfo=LAST_ZONE)
        if day:
            end = start + timedelta(days=1)
        else:
            end = start.replace(year=year + (month in {0, 12}), month=month % 12 + 1 if month else 1)
        return (end - timedelta(seconds=1)).astimezone(UTC)
    except (ValueError, OverflowError):  # 2024-13; the year 9999
        return None


def _unpacked(body: bytes) -> bytes:
    if not body.startswith(b"\x1f\x8b"):
        return body
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
        return packed.read(MAX_BYTES + 1)


def _entries(data: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield (url or sitemap, location, lastmod)."""
    if data.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n").startswith(b"<"):
        return _xml_entries(data)
    return _text_entries(data)


def _xml_entries(data: bytes) -> Iterator[tuple[str, str, str]]:
    """Each entry is forgotten when the next one comes: the tree of a whole sitemap takes 20 times its size."""
    open_elements: list[Element] = []
    for event, element in iterparse(io.BytesIO(data), events=("start", "end")):
        if event == "start":
            open_elements.append(element)
            if len(open_elements) == 1 and _name(element) not in ROOTS:
                raise ValueError(f"<{_name(element)}> is no sitemap")
            if len(open_elements) > MAX_NESTING:
                raise ValueError(f"elements are nested more than {MAX_NESTING} deep")
            continue
        open_elements.pop()
        if len(open_elements) == 1:
            fields = {_name(child): child.text or "" for child in element}
            yield _name(element), fields.get("loc", ""), fields.get("lastmod", "")
            open_elements[0].clear()


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2].lower()


def _text_entries(data: bytes) -> Iterator[tuple[str, str, str]]:
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="replace")
    urls = (line.strip() for line in lines if not line.isspace())
    for number, url in enumerate(urls):
        if number == 0 and not canonical_url(url):
            raise ValueError("neither XML nor a list of URLs")
        yield "url", url, ""
    if not data.strip():
        raise ValueError("empty")
