"""Did something go missing? Pages, sections and chunks against the parent, of the whole and of each directory.

    manifests, page and chunk tables → [Failure, …]

A directory is the first or the first two path segments below what all pages of a host share. It needs no settings, and
names the part of a site that is gone while the rest makes up for it.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from raydex.build.gate.parent import Parent
from raydex.build.gate.verdict import Failure, failure
from raydex.records import Manifest
from raydex.shard import page_counts, pages_of

DEPTHS = (1, 2)
"""Path segments that make a directory: `library/` and `library/asyncio/`; deeper ones hold few pages each."""

LEAST_LOST = {"pages": 5, "chunks": 50}
"""A directory that loses less is an edit, whatever its share."""


def shrunk(manifest: Manifest, parent: Parent, limit: float) -> list[Failure]:
    """Compare the whole: a loss of more than limit (a share) of pages, sections or chunks fails."""
    before = parent.manifest.counts if parent.manifest else {}
    return [
        Failure(
            check="counts",
            message=f"{manifest.counts[name]} {name}, the live snapshot has {before[name]}; a loss above {limit:.0%} "
            "is refused. If the site really shrank, build with a higher --max-shrink-share",
        )
        for name in ("pages", "sections", "chunks")
        if (parent.is_cut_alike or name != "chunks")
        and manifest.counts.get(name, 0) < before.get(name, 0) * (1 - limit)
    ]


def lost_directories(manifest: Manifest, parent: Parent, objects_dir: Path, limit: float) -> list[Failure]:
    """Compare directory by directory; the outermost one that lost too much is named, with its pages that did."""
    if parent.readable is None:
        return []
    now, before = _chunks_by_page(manifest, objects_dir), _chunks_by_page(parent.readable, objects_dir)
    smaller = [url for url, count in before.items() if now.get(url, 0) < count * (1 - limit)]
    roots = _roots([*before, *now])
    failures: list[Failure] = []
    named: set[str] = set()
    for depth in DEPTHS:
        was, is_ = _counted(before, roots, depth), _counted(now, roots, depth)
        for directory in sorted(was["pages"]):
            lost = list(_losses(directory, was, is_, limit, units=("pages", "chunks")[: 1 + parent.is_cut_alike]))
            if lost and not any(directory.startswith(known) for known in named):
                named.add(directory)
                pages = [url for url in smaller if _directory(url, roots, depth) == directory]
                failures.append(failure("directories", f"{directory} lost {' and '.join(lost)}", pages=pages))
    return failures


def _losses(
    directory: str, was: dict[str, Counter[str]], now: dict[str, Counter[str]], limit: float, units: tuple[str, ...]
) -> Iterator[str]:
    for unit in units:
        before, after = was[unit][directory], now[unit][directory]
        if before - after >= LEAST_LOST[unit] and after < before * (1 - limit):
            yield f"{before - after} of {before} {unit}"


def _chunks_by_page(manifest: Manifest, objects_dir: Path) -> dict[str, int]:
    """Return page URL → number of its chunks: of a snapshot's tables only the two columns that are needed."""
    found: dict[str, int] = {}
    for shard in manifest.shards:
        chunks = page_counts(shard, objects_dir)
        pages = pages_of(shard, objects_dir, ("page_id", "url"))
        ids, urls = (pages[name].to_pylist() for name in ("page_id", "url"))
        found.update((url, chunks.get(page_id, 0)) for page_id, url in zip(ids, urls, strict=True))
    return found


def _counted(chunks: dict[str, int], roots: dict[str, int], depth: int) -> dict[str, Counter[str]]:
    counted: dict[str, Counter[str]] = {"pages": Counter(), "chunks": Counter()}
    for url, count in chunks.items():
        if directory := _directory(url, roots, depth):
            counted["pages"][directory] += 1
            counted["chunks"][directory] += count
    return counted


def _roots(urls: list[str]) -> dict[str, int]:
    """Return host → number of leading path segments that all its pages share."""
    shared: dict[str, list[str]] = {}
    for url in urls:
        parts = urlsplit(url)
        folders = parts.path.split("/")[1:-1]
        known = shared.setdefault(parts.netloc, folders)
        same = next((n for n, pair in enumerate(zip(known, folders, strict=False)) if pair[0] != pair[1]), None)
        shared[parts.netloc] = known[: min(len(known), len(folders)) if same is None else same]
    return {host: len(folders) for host, folders in shared.items()}


def _directory(url: str, roots: dict[str, int], depth: int) -> str:
    """Return the directory of a page, with a slash at its end; "" for a page above that depth."""
    parts = urlsplit(url)
    folders = parts.path.split("/")[1:-1]
    wanted = roots[parts.netloc] + depth
    return f"{parts.scheme}://{parts.netloc}/{'/'.join(folders[:wanted])}/" if len(folders) >= wanted else ""
