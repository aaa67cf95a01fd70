"""Get the pages of a unit: from the site, or by its leave from the store. One fetcher owns a host. No Ray here.

FetchUnit → (Fetched, …)    in the unit's order; a page that cannot be had is a Fetched with its reason
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from raydex.build.units import BuildContext, Fetched, FetchUnit
from raydex.checkpoint import PageStore, StoredPage
from raydex.crawl import Fetcher, NotModified, Redirect, Visit, read_folder_page
from raydex.errors import FetchError
from raydex.records import Page, stable_id
from raydex.render import Renderer
from raydex.sources import public_url


class UnitFetcher:
    """Fetches the visits of a unit at once, as fast as the fetcher's pace for their host allows."""

    def __init__(self, context: BuildContext, fetcher: Fetcher, renderer: Renderer | None) -> None:
        self._context, self._fetcher, self._renderer = context, fetcher, renderer
        self._store = PageStore(context.pages_dir)

    async def fetch(self, unit: FetchUnit) -> tuple[Fetched, ...]:
        visits = (self._visit(visit, unit.lastmods, renders=unit.renders) for visit in unit.visits)
        return tuple(await asyncio.gather(*visits))

    async def _visit(self, visit: Visit, lastmods: Mapping[str, datetime], *, renders: bool) -> Fetched:
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            fetched = await self._fetched(visit, lastmods.get(visit.url), renders=renders)
        except FetchError as error:
            fetched = Fetched(visit=visit, reason=error.reason, detail=error.detail)
        return replace(fetched, seconds=time.perf_counter() - started, started_ns=started_ns)

    async def _fetched(self, visit: Visit, lastmod: datetime | None, *, renders: bool) -> Fetched:
        source = self._context.source(visit.source)
        stored = self._store.head(stable_id(public_url(source, visit.url)))
        known = stored if stored and stored.page.crawl_url == visit.url and not stored.stale_builds else None
        if known and not renders:
            if known.build_id == self._context.build_id:
                return Fetched(visit=visit, origin="reused")
            if lastmod and self._is_current(known, lastmod):
                return Fetched(visit=visit, origin="lastmod")
        if source.loader:
            raise FetchError(visit.url, "file_missing", "the loader's document is gone from the store; build again")
        if visit.url.startswith("file:"):
            page: Page | Redirect | NotModified = read_folder_page(source, visit.url, self._context.config.crawl)
        else:
            validators = {"etag": known.page.etag, "last_modified": known.page.last_modified} if known else {}
            page = await self._fetcher.fetch(source, visit.url, **({} if renders else validators))
        if isinstance(page, Redirect):
            return Fetched(visit=visit, redirect_to=page.target)
        if isinstance(page, NotModified):
            return Fetched(visit=visit, origin="unchanged")
        if renders and self._renderer:
            page = await self._rendered(self._renderer, page)
        return Fetched(visit=visit, page=page, origin="network")

    def _is_current(self, known: StoredPage, lastmod: datetime) -> bool:
        """Its sitemap names no change since our copy, and that is young enough to trust the sitemap once more."""
        oldest = datetime.now(UTC) - timedelta(days=self._context.config.crawl.lastmod_days)
        return lastmod < known.page.fetched_at and known.page.fetched_at > oldest

    async def _rendered(self, renderer: Renderer, page: Page) -> Page:
        """Return the page after its scripts ran. Without validators: the shell may stay when its data change."""
        body = await renderer.render(page.crawl_url, page.body, page.content_type)
        sha256 = hashlib.sha256(body).hexdigest()
        return replace(
            page, body=body, content_type="text/html; charset=utf-8", body_sha256=sha256, etag="", last_modified=""
        )
