"""Runs build_index.py in this process, on the session's cluster, and looks at what came of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import build_index
from raydex.embed import HashEmbedder
from raydex.records import Hit
from raydex.search import DenseSearcher
from raydex.shard import pages_of
from raydex.snapshot import open_snapshot
from tests.docsite import DocSite

LISTS = ("/robots.txt", "/sitemap.xml", "/llms.txt")
"""What a build asks a site for beside its pages."""


class Builder:
    """Runs build_index.py in this process, on the session's cluster, with the fake embedder."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.index_dir = data_dir / "docs"
        self._capsys = capsys
        self.stdout = self.stderr = ""

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return the exit code and the JSON line ({} without one)."""
        fixed = ["--index", "docs", "--data-dir", str(self.index_dir.parent), "--model", "hash"]
        code = build_index.main([*arguments, *fixed])
        self.stdout, self.stderr = self._capsys.readouterr()
        last = self.stdout.splitlines()[-1] if self.stdout else ""
        return code, json.loads(last) if last.startswith("{") else {}

    def report(self) -> dict[str, Any]:
        newest = max((self.index_dir / "builds").glob("*/report.json"))
        return json.loads(newest.read_text())  # type: ignore[no-any-return]

    def page_urls(self) -> set[str]:
        """Return the URLs of the pages in the live snapshot."""
        snapshot = open_snapshot(self.index_dir)
        objects = self.index_dir / "objects"
        return {url for shard in snapshot.manifest.shards for url in pages_of(shard, objects)["url"].to_pylist()}

    def hits(self, text: str, k: int = 5) -> list[Hit]:
        searcher = DenseSearcher("docs", open_snapshot(self.index_dir))
        return searcher.search(HashEmbedder().embed_queries([text]), k=k)[0]


def urls(pages: Sequence[dict[str, str]], site: DocSite) -> dict[str, str]:
    return {page["url"].removeprefix(site.url): page["reason"] for page in pages}
