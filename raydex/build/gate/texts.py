"""Did pages lose their text? Page by page against the parent, over the shards that changed.

    sections of both snapshots → pages that are almost empty now, that read like many others, or that were dropped
    as a copy of a page that says something else

This is what a broken template does: every page is there, and none says what it said. An edit, however large, gives a
page other words of its own, and as many of them.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydex.build.gate.parent import Parent
from raydex.build.gate.verdict import Failure, failure
from raydex.duplicates import WORD, Sketch, sketch
from raydex.records import Manifest, Shard
from raydex.shard import pages_of, section_texts

WORDS_KEPT = 0.25
"""A page with fewer distinct words than this share of its former ones has lost its text. Of 128 pages of Python's
library reference with every second paragraph gone, the median keeps 0.69 of them and the worst 0.30."""

LEAST_WORDS = 30
"""Distinct words from which a page can lose its text: a stub of fewer has little to lose."""

OTHERS = 2
"""Other changed pages that must say the same for it to be a template's text: two that do may well be an edit."""

TEMPLATE_SHARE = 0.8
"""Share of a page's 5-word sequences on so many others from which it says nothing of its own."""

OWN_SHARE = 0.5
"""A page had a text of its own when no more than this share of its 5-word sequences was on other pages."""

STILL_THERE = 0.5
"""Share of a page's former 5-word sequences that must be found on other changed or new pages for its text to have only
moved: a page that was split, that says where it went, or whose sections are cited from a newer version."""

LEAST_COLLAPSED = 3
"""Pages from which it is more than an edit, whatever the share: two of ten pages may become stubs."""


@dataclass(frozen=True, slots=True)
class _Text:
    words: int
    """Distinct ones."""
    sketch: Sketch


def collapsed(manifest: Manifest, parent: Parent, objects_dir: Path, limit: float) -> tuple[list[Failure], float]:
    """Return the failure, if any, and the share of the parent's pages that lost their text.

    In memory: per page of a changed shard its id and a digest, per changed page a sketch (0.5 kB); never a text.
    """
    if parent.readable is None:
        return [], 0.0
    before = sum(shard.page_count for shard in parent.readable.shards)
    lost = sorted(_lost_pages(parent.readable, manifest, objects_dir))
    share = len(lost) / before if before else 0.0
    if share <= limit or len(lost) < LEAST_COLLAPSED:
        return [], share
    message = (
        f"{len(lost)} of {before} pages ({share:.1%}) lost their text or read like other "
        f"pages now; more than {limit:.0%} is refused (--max-collapsed-share)"
    )
    return [failure("texts", message, pages=lost)], share


def _lost_pages(parent: Manifest, manifest: Manifest, objects_dir: Path) -> Iterator[str]:
    shards_before, shards_now = _changed(parent, manifest), _changed(manifest, parent)
    before, now = _digests(shards_before, objects_dir), _digests(shards_now, objects_dir)
    urls = _urls(shards_before, objects_dir)
    changed = {page_id for page_id, digest in now.items() if before.get(page_id, digest) != digest}
    copies = {url: page_id for page_id, url in _copies(shards_now, objects_dir)}
    gone = {page_id for page_id in before.keys() - now.keys() if urls.get(page_id) in copies}
    kept = {copies[urls[page_id]] for page_id in gone}
    fresh = now.keys() - before.keys()
    texts_before = _texts(shards_before, objects_dir, changed | gone)
    texts_now = _texts(shards_now, objects_dir, changed | fresh | kept)
    template, template_before, still = _common(texts_now), _common(texts_before), _all(texts_now)
    lost = {page_id for page_id in changed | gone if _share(texts_before[page_id], still) < STILL_THERE}
    instead = {copies[urls[page_id]] for page_id in lost & gone}
    for page_id in lost:
        old, new = texts_before[page_id], texts_now.get(page_id)
        is_copied = new is None or page_id in instead
        is_empty = new is not None and old.words >= LEAST_WORDS and new.words < WORDS_KEPT * old.words
        had_own = _share(old, template_before) <= OWN_SHARE
        if is_copied or is_empty or (new and had_own and _share(new, template) >= TEMPLATE_SHARE):
            yield urls[page_id]


def _changed(of: Manifest, against: Manifest) -> list[Shard]:
    """Return the shards whose text or pages the other snapshot does not share."""
    shared = {(shard.objects["sections"], shard.objects.get("pages")) for shard in against.shards}
    return [shard for shard in of.shards if (shard.objects["sections"], shard.objects.get("pages")) not in shared]


def _pages(shards: list[Shard], objects_dir: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (page_id, texts of its sections), one page in memory at a time."""
    for shard in shards:
        rows = section_texts(shard, objects_dir)
        for page_id, of_page in itertools.groupby(rows, key=lambda row: row[0]):
            yield page_id, [text for _, text in of_page]


def _digests(shards: list[Shard], objects_dir: Path) -> dict[str, bytes]:
    return {
        page_id: hashlib.blake2b("\n".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for page_id, texts in _pages(shards, objects_dir)
    }


def _texts(shards: list[Shard], objects_dir: Path, wanted: Collection[str]) -> dict[str, _Text]:
    return {
        page_id: _Text(len(set(WORD.findall(" ".join(texts).lower()))), sketch("\n".join(texts)))
        for page_id, texts in (_pages(shards, objects_dir) if wanted else ())
        if page_id in wanted
    }


def _common(texts: Mapping[str, _Text]) -> Sketch:
    """Return the hashes that stand in the sketches of more than OTHERS pages, ascending."""
    if not texts:
        return np.empty(0, np.uint64)
    hashes, counts = np.unique(np.concatenate([text.sketch for text in texts.values()]), return_counts=True)
    return hashes[counts > OTHERS]


def _all(texts: Mapping[str, _Text]) -> Sketch:
    return np.unique(np.concatenate([text.sketch for text in texts.values()])) if texts else np.empty(0, np.uint64)


def _share(text: _Text, common: Sketch) -> float:
    return float(np.isin(text.sketch, common).mean()) if len(text.sketch) else 0.0


def _urls(shards: list[Shard], objects_dir: Path) -> dict[str, str]:
    tables = (pages_of(shard, objects_dir, ("page_id", "url")) for shard in shards)
    return {
        page_id: url
        for table in tables
        for page_id, url in zip(table["page_id"].to_pylist(), table["url"].to_pylist(), strict=True)
    }


def _copies(shards: list[Shard], objects_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (page_id of the kept page, URL of a page that it stands for)."""
    for shard in shards:
        table = pages_of(shard, objects_dir, ("page_id", "copies"))
        for page_id, copies in zip(table["page_id"].to_pylist(), table["copies"].to_pylist(), strict=True):
            yield from ((page_id, url) for url in copies)
