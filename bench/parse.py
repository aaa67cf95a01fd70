"""Our parser against BeautifulSoup's get_text on the same pages: speed, and words kept.

    python bench/parse.py FOLDER [--pages N]    last line: JSON; ratio = our pages/s ÷ html.parser's

FOLDER holds .html files at any depth. Each system reads every page once, from bytes in memory, in one thread.
BeautifulSoup keeps all text of the page and finds no sections; ours decodes, leaves navigation out, cuts and links.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from raydex.errors import ParseError
from raydex.parse import parse_page
from raydex.records import Page


@dataclass(frozen=True)
class Result:
    system: str
    pages_per_s: float
    mb_per_s: float
    words_kept: float  # share of the words that html.parser finds


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure parsing against BeautifulSoup.")
    parser.add_argument("folder", type=Path, help="folder of .html files")
    parser.add_argument("--pages", type=int, default=0, help="most pages to read; 0: all")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.html"))
    pages = [_page(path) for path in paths[: arguments.pages or None]]
    if not pages:
        parser.error(f"{arguments.folder} holds no .html files")
    results = _measure(pages)
    for result in results:
        print(
            f"{result.system:<24} {result.pages_per_s:8.1f} pages/s {result.mb_per_s:7.2f} MB/s"
            f"   {result.words_kept:6.1%} of words kept"
        )
    ratio = results[0].pages_per_s / results[1].pages_per_s
    print(json.dumps({"ratio": round(ratio, 2), "pages": len(pages), "results": [asdict(r) for r in results]}))


def _measure(pages: list[Page]) -> list[Result]:
    systems: dict[str, Callable[[Page], int]] = {"raydex": _our_words, "bs4 html.parser": _soup_words("html.parser")}
    if importlib.util.find_spec("lxml"):
        systems["bs4 lxml"] = _soup_words("lxml")
    timed = {name: _timed(read, pages) for name, read in systems.items()}
    all_words = timed["bs4 html.parser"][1]
    megabytes = sum(len(page.body) for page in pages) / 1e6
    return [
        Result(name, round(len(pages) / seconds, 2), round(megabytes / seconds, 2), round(words / all_words, 4))
        for name, (seconds, words) in timed.items()
    ]


def _timed(read: Callable[[Page], int], pages: list[Page]) -> tuple[float, int]:
    started = time.perf_counter()
    words = sum(read(page) for page in pages)
    return time.perf_counter() - started, words


def _our_words(page: Page) -> int:
    try:
        document = parse_page(page)
    except ParseError:
        return 0
    return document.total_words - document.dropped_words


def _soup_words(builder: str) -> Callable[[Page], int]:
    return lambda page: len(BeautifulSoup(page.body, builder).get_text(" ").split())


def _page(path: Path) -> Page:
    body = path.read_bytes()
    url = f"https://bench.example{path.resolve().as_posix()}"
    return Page(
        page_id=path.name,
        url=url,
        crawl_url=url,
        source="bench",
        fetched_at=datetime.now(UTC),
        status=200,
        content_type="text/html",
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
    )


if __name__ == "__main__":
    main()
