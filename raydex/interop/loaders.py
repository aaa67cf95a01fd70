"""LangChain on both sides: what its loaders load becomes pages, and a running service becomes a retriever.

"package.module:Class", arguments → documents → Pages, one at a time
RaydexRetriever(client=RaydexClient(url)).invoke("how do I open a file") → Documents
"""

import importlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raydex.config import CrawlConfig
from raydex.errors import ConfigError, FetchError, TooLarge
from raydex.records import Page, Source, new_page, stable_id
from utils.urls import canonical_url, file_path, file_url, is_file_url

logger = logging.getLogger(__name__)

ADDRESS_KEYS = ("source", "url", "link", "file_path", "path")
HTML, MARKDOWN, PLAIN = "text/html", "text/markdown", "text/plain"
RST = "text/x-rst"
SUFFIX_TYPES = {".md": MARKDOWN, ".mdx": MARKDOWN, ".markdown": MARKDOWN, ".rst": RST}
LOADER_FAILURES = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What loaders raise over the documents they read; anything else is a mistake in the loader itself."""

_LOOKS_LIKE_HTML = re.compile(r"<(?:!doctype html|html|head|body|main|article|section|div|p|h[1-6]|table|ul)\b", re.I)
_LOOKS_LIKE_MARKDOWN = re.compile(r"^#{1,6} \S|^(?:```|~~~)", re.MULTILINE)
_SNIFFED_CHARS = 4000


def load_documents(spec: str, args: Mapping[str, str]) -> Iterator[Any]:
    """Return the documents of a LangChain loader, read as they are asked for.

    spec: package.module:Class. args: its keyword arguments; a value that is JSON is taken as that, any other as text.
    Raises ConfigError when the loader cannot be made, and FetchError (loader_failed) when it breaks down on the way.
    """
    module_name, _, class_name = spec.partition(":")
    try:
        loader = getattr(importlib.import_module(module_name), class_name)(**{k: _value(v) for k, v in args.items()})
    except ImportError as error:
        raise ConfigError(f"--loader {spec}: {error}; install the package that it needs") from error
    except AttributeError as error:
        raise ConfigError(f"--loader {spec}: {error}; write it as package.module:Class") from error
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"--loader {spec}: {error}; its arguments are given with --loader-arg key=value") from error
    load = getattr(loader, "lazy_load", None)
    if load is None:
        raise ConfigError(f"--loader {spec}: has no lazy_load(), so it is no document loader")
    return _documents(spec, load)


def pages_of_loader(
    source: Source,
    documents: Iterable[Any],
    config: CrawlConfig,
    *,
    on_problem: Callable[[FetchError], None] = lambda problem: logger.warning("document left out reason=%s", problem),
) -> Iterator[Page]:
    """Yield the documents of a loader as pages; one page is held at a time, and of the pages before only their names.

    Neighbours with one address, such as the pages of a PDF, are one page with a heading for each; when the address
    comes again, or the page would pass config.max_body_bytes, it goes on as `…?part=2`. The address is the metadata's
    `source` (url, link, file_path, path): http(s), or a file; else it is `loader://name/…`, by what the metadata says
    or by number. on_problem: gets what is too long to be a page (too_large) or holds no text (empty).
    """
    parts: dict[str, int] = {}
    draft: _Draft | None = None
    for number, document in enumerate(documents, start=1):
        text, metadata = str(document.page_content), document.metadata
        url = _address(source, metadata, number)
        if not text.strip():
            on_problem(FetchError(url, "empty"))
            continue
        piece = _piece(text, metadata, url)
        if len(piece.text.encode(errors="replace")) > config.max_body_bytes:
            on_problem(TooLarge(url, config.max_body_bytes))
            continue
        if draft and not draft.takes(url, piece, config.max_body_bytes):
            yield draft.page(source, parts)
            draft = None
        draft = draft or _Draft(url, piece.content_type, str(metadata.get("title") or ""))
        draft.add(piece)
    if draft:
        yield draft.page(source, parts)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _documents(spec: str, load: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    try:
        yield from load()
    except ImportError as error:  # many loaders import what they need at their first document
        raise ConfigError(f"--loader {spec}: {error}; install the package that it needs") from error
    except LOADER_FAILURES as error:
        raise FetchError(spec, "loader_failed", f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Piece:
    """One document. label: what it is a part of its page by, `Page 3`; anchor: where a browser finds that."""

    text: str
    content_type: str
    label: str
    anchor: str

    def with_heading(self) -> str:
        if not self.label:
            return self.text
        anchor = f" {{#{self.anchor}}}" if self.anchor else ""
        if self.content_type == HTML:
            return f'<h2 id="{escape(self.anchor)}">{escape(self.label)}</h2>\n{self.text}'
        if self.content_type == MARKDOWN:
            return f"## {self.label}{anchor}\n\n{self.text}"
        return f"{self.label}{anchor}\n{'-' * 20}\n\n{self.text}"


@dataclass(slots=True)
class _Draft:
    """A page while its documents come in."""

    url: str
    content_type: str
    title: str
    texts: list[str] = field(default_factory=list)
    size: int = 0

    def takes(self, url: str, piece: _Piece, limit: int) -> bool:
        more = len(piece.with_heading().encode(errors="replace")) + 2
        return (self.url, self.content_type) == (url, piece.content_type) and self.size + more <= limit

    def add(self, piece: _Piece) -> None:
        text = piece.with_heading()
        self.size += len(text.encode(errors="replace")) + 2
        self.texts.append(text)

    def page(self, source: Source, parts: dict[str, int]) -> Page:
        """Return the page. parts: stable id of an address → how many pages it has had; grows."""
        key = stable_id(self.url)
        parts[key] = part = parts.get(key, 0) + 1
        url = self.url if part == 1 else f"{self.url}{'&' if '?' in self.url else '?'}part={part}"
        body = "\n\n".join(self.texts).encode(errors="replace")
        return new_page(source, url, body, f"{self.content_type}; charset=utf-8", title=self.title)


def _address(source: Source, metadata: Mapping[str, Any], number: int) -> str:
    names = [str(metadata[key]) for key in ADDRESS_KEYS if metadata.get(key)]
    urls = chain((canonical_url(name) for name in names), (_file(name) for name in names))
    found = next((url for url in urls if url), "")
    return found or f"loader://{quote(source.name, safe='')}/{quote(names[0], safe='/') if names else number}"


def _file(name: str) -> str:
    try:
        path = file_path(name) if is_file_url(name) else Path(name)
        return file_url(path.resolve()) if path.is_file() else ""
    except (OSError, ValueError):  # a name too long for a file, a NUL in it
        return ""


def _piece(text: str, metadata: Mapping[str, Any], url: str) -> _Piece:
    label, anchor = _label(metadata)
    return _Piece(text, _content_type(text, metadata, url, is_part=bool(label)), label, anchor)


def _label(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Return ("Page 3", "page=3") for a page of a document, counted from 0; ("Row 3", "") for a row of a table."""
    page, row = metadata.get("page"), metadata.get("row")
    if isinstance(page, int):
        return f"Page {metadata.get('page_label') or page + 1}", f"page={page + 1}"  # what PDF viewers go to
    return (f"Row {row + 1}", "") if isinstance(row, int) else ("", "")


def _content_type(text: str, metadata: Mapping[str, Any], url: str, *, is_part: bool) -> str:
    """Return the type of a text; what the metadata calls it counts only where the text may be that.

    A loader that takes the text out of HTML or PDF often goes on to call it HTML or PDF. is_part: of a PDF or a table,
    where a line that begins with `#` is no heading.
    """
    head = text[:_SNIFFED_CHARS]
    if head.lstrip().startswith("<") and _LOOKS_LIKE_HTML.search(head):
        return HTML
    if is_part:
        return PLAIN
    declared = str(metadata.get("content_type") or "").partition(";")[0].strip().lower()
    known = declared if declared in {MARKDOWN, RST} else SUFFIX_TYPES.get(Path(url).suffix.lower())
    return known or (MARKDOWN if _LOOKS_LIKE_MARKDOWN.search(head) else PLAIN)
