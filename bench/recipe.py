"""The well-known recipe in a process of its own: langchain-community's RecursiveUrlLoader and BeautifulSoup text.

    python bench/recipe.py URL [--builder lxml]    one line of JSON: pages, seconds, pages_per_s, characters

As its documentation shows it: an extractor that makes text of each page, everything else as it comes, and a depth that
reaches the whole site. Only the load is timed. Documents that are no HTML are loaded, but not counted as pages.
"""

import argparse
import json
import logging
import sys
import time

from bs4 import BeautifulSoup
from langchain_community.document_loaders import RecursiveUrlLoader

NO_DEPTH_LIMIT = 100_000
"""The loader goes depth first: pages that link to the next one make its depth the number of pages."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Load a site with RecursiveUrlLoader and BeautifulSoup.")
    parser.add_argument("url", help="start page; all below it is loaded")
    parser.add_argument("--builder", default="html.parser", choices=("html.parser", "lxml"), help="BeautifulSoup's")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a line for each broken link
    sys.setrecursionlimit(NO_DEPTH_LIMIT)
    loader = RecursiveUrlLoader(
        options.url,
        max_depth=NO_DEPTH_LIMIT,
        prevent_outside=True,
        timeout=20,
        check_response_status=True,
        extractor=lambda html: BeautifulSoup(html, options.builder).get_text(),
    )
    started = time.perf_counter()
    documents = loader.load()
    seconds = time.perf_counter() - started
    pages = [document for document in documents if "html" in document.metadata["content_type"]]
    characters = sum(len(document.page_content) for document in pages)
    result = {"pages": len(pages), "seconds": round(seconds, 2), "pages_per_s": round(len(pages) / seconds, 2)}
    print(json.dumps({**result, "characters": characters, "other_documents": len(documents) - len(pages)}))


if __name__ == "__main__":
    main()
