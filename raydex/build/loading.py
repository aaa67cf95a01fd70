"""Put what a LangChain loader yields into the page store, from where it is read like any page. No Ray here.

Source (loader) → documents, one at a time → page store → URLs, in the loader's order
"""

from dataclasses import dataclass

from raydex.build.units import BuildContext
from raydex.checkpoint import PageStore, full_disk_named
from raydex.interop import load_documents, pages_of_loader


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """problems: one sentence for each document that is no page."""

    urls: tuple[str, ...]
    problems: tuple[str, ...]


def load_pages(context: BuildContext, source_name: str) -> Loaded:
    """Store the documents of a loader source as pages of this build. Raises ConfigError, FetchError (loader_failed)."""
    source = context.source(source_name)
    store = PageStore(context.pages_dir)
    urls: list[str] = []
    problems: list[str] = []
    with full_disk_named(context.index_dir):
        documents = load_documents(source.loader, dict(source.loader_args))
        pages = pages_of_loader(
            source, documents, context.config.crawl, on_problem=lambda error: problems.append(str(error))
        )
        for page in pages:
            store.save(page, context.build_id)
            urls.append(page.crawl_url)
    return Loaded(urls=tuple(urls), problems=tuple(problems))
