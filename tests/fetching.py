"""A Fetcher for tests: its event loop runs while it is called, and nobody waits."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from raydex.config import CrawlConfig
from raydex.crawl import Fetcher, NotModified, Redirect, RobotsRules, seed_addresses
from raydex.errors import FetchError
from raydex.records import Page, Source
from tests.docsite import DocSite

SEED = Source(name="seed", seeds=("http://127.0.0.1/",))


class SyncFetcher:
    """A Fetcher in an event loop that runs while it is called."""

    def __init__(self, config: CrawlConfig, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._config, self._options = config, options

    async def _made(self) -> Fetcher:
        if not hasattr(self, "_fetcher"):
            options = {"addresses": seed_addresses([SEED])} | self._options
            self._fetcher = Fetcher(self._config, **options)
        return self._fetcher

    def fetch(self, source: Source, url: str, **validators: str) -> Page | Redirect | NotModified:
        async def run() -> Page | Redirect | NotModified:
            return await (await self._made()).fetch(source, url, **validators)

        return self._runner.run(run())

    def robots(self, url: str) -> RobotsRules:
        async def run() -> RobotsRules:
            return await (await self._made()).robots(url.rstrip("/"))

        return self._runner.run(run())

    def close(self) -> None:
        async def run() -> None:
            await (await self._made()).__aexit__(None, None, None)

        self._runner.run(run())
        self._runner.close()


@contextmanager
def fetching(config: CrawlConfig, **options: Any) -> Iterator[SyncFetcher]:
    fetcher = SyncFetcher(config, **options)
    yield fetcher
    fetcher.close()


class Waits(list[float]):
    """What was waited for, in no time; its clock goes on by as much."""

    def __init__(self) -> None:
        self._passed_s = 0.0

    async def wait(self, seconds: float) -> None:
        self.append(seconds)
        self._passed_s += seconds

    def clock(self) -> float:
        return time.monotonic() + self._passed_s


def source_at(url: str, **fields: Any) -> Source:
    return Source(name="docs", seeds=(url,), **fields)


def fetch(fetcher: SyncFetcher, site: DocSite, path: str, **validators: str) -> Page | Redirect | NotModified:
    return fetcher.fetch(source_at(site.url), site.url + path, **validators)


def fetch_page(fetcher: SyncFetcher, site: DocSite, path: str) -> Page:
    fetched = fetch(fetcher, site, path)
    assert isinstance(fetched, Page)
    return fetched


def failure(fetcher: SyncFetcher, site: DocSite, path: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(fetcher, site, path)
    return caught.value
