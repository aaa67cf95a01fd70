"""One page for the parser, and what it makes of it."""

from datetime import UTC, datetime

import pytest

from raydex.errors import ParseError
from raydex.parse import parse_page
from raydex.records import Page

URL = "https://docs.example.org/guide/page.html"
HTML = "text/html; charset=utf-8"


def page(html, *, content_type=HTML, crawl_url="http://127.0.0.1:8000/guide/page.html"):
    body = html if isinstance(html, bytes) else html.encode()
    return Page(
        page_id="page",
        url=URL,
        crawl_url=crawl_url,
        source="docs",
        fetched_at=datetime(2026, 1, 1, tzinfo=UTC),
        status=200,
        content_type=content_type,
        body=body,
        body_sha256="",
    )


def sections(html):
    return parse_page(page(html)).sections


def texts(html):
    return [section.text for section in sections(html)]


def outline(html):
    return [(section.url.removeprefix(URL), section.headings) for section in sections(html)]


def reason(html, content_type=HTML):
    with pytest.raises(ParseError) as caught:
        parse_page(page(html, content_type=content_type))
    return caught.value.reason
