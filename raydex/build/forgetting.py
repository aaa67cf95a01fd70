"""Remove pages from an index and from every store, now, and publish what is left. No Ray, no model.

URL prefix or source name → new snapshot without those pages → older snapshots, page store, vectors → Forgotten
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raydex.build.embedding import vector_key
from raydex.build.garbage import remove_manifests
from raydex.build.lexicon import index_words
from raydex.checkpoint import PageStore, VectorStore, build_lock, full_disk_named
from raydex.errors import NothingToIndex, SnapshotNotFound
from raydex.records import Manifest, Shard, embedder_input
from raydex.shard import pages_of, read_rows, write_shard
from raydex.snapshot import (
    current_id,
    list_snapshots,
    new_manifest,
    open_snapshot,
    publish,
    publishing,
    read_manifest,
    stored_objects,
    write_manifest,
)
from raydex.tables import stream_rows

KEYS_READ = ("page_id", "url", "source", "copies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was removed; snapshots: ids of those that held the pages and are gone with them."""

    snapshot_id: str
    pages: int
    stored_copies: int
    vectors: int
    snapshots: tuple[str, ...]

    def told(self, index: str) -> str:
        return (
            f"{index}: {self.pages} pages forgotten, {self.stored_copies} stored copies, {self.vectors} vectors and "
            f"{len(self.snapshots)} older snapshots removed; {self.snapshot_id} is live. "
            "A site that still has the pages brings them back with the next build: deny them in sources.toml."
        )


def forget(index_dir: Path, what: str) -> Forgotten:
    """Remove the pages under a URL prefix, or those of a source, and publish the rest; raises SnapshotNotFound.

    NothingToIndex when nothing would be left: remove the folder of the index instead. Snapshots that hold one of the
    pages are deleted, so that no rollback brings it back.
    """
    live = current_id(index_dir)
    if not live:
        raise SnapshotNotFound(str(index_dir))
    with build_lock(index_dir), full_disk_named(index_dir):
        before = read_manifest(index_dir, live)
        open_snapshot(index_dir, live)  # whole, or nothing is touched
        matcher = Matcher(what)
        holding = [m for m in list_snapshots(index_dir) if any(matcher.held_by(s, index_dir) for s in m.shards)]
        keys = {key for m in holding for shard in m.shards for key in matcher.keys_in(shard, index_dir)}
        manifest, needed = _without(index_dir, before, matcher)
        if before.snapshot_id in {m.snapshot_id for m in holding}:
            _publish(index_dir, manifest)
        for units in (index_dir / "builds").glob("*/units"):
            shutil.rmtree(units)  # an unfinished build fetches its pages again
        _remove_snapshots(index_dir, {m.snapshot_id for m in holding})
        return Forgotten(
            snapshot_id=current_id(index_dir),
            pages=before.counts["pages"] - manifest.counts["pages"],
            stored_copies=_remove_copies(index_dir, matcher),
            vectors=_remove_vectors(index_dir, keys - needed),
            snapshots=tuple(m.snapshot_id for m in holding),
        )


class Matcher:
    """Whether a page is to be forgotten: its URL lies under the prefix, or its source has the name."""

    def __init__(self, what: str) -> None:
        self._what = what

    def matches(self, url: str, source: str) -> bool:
        what = self._what
        if source == what or url == what:
            return True
        return url.startswith(what) and (what[-1] in "/?" or url[len(what)] in "/?")

    def held_by(self, shard: Shard, index_dir: Path) -> set[str]:
        """Return the ids of the pages of a shard that match, and of those that stand for a copy that does."""
        rows = pages_of(shard, index_dir / "objects", KEYS_READ).to_pylist()
        return {r["page_id"] for r in rows if any(self.matches(url, r["source"]) for url in (r["url"], *r["copies"]))}

    def rest_of(self, pages: pa.Table) -> pa.Table:
        """Return the pages that stay; of those that stood for a forgotten copy, without it."""
        rows = [row for row in pages.to_pylist() if not self.matches(row["url"], row["source"])]
        copies = [[url for url in row["copies"] if not self.matches(url, row["source"])] for row in rows]
        kept = [{**row, "copies": left} for row, left in zip(rows, copies, strict=True)]
        return pa.Table.from_pylist(kept, schema=pages.schema)

    def keys_in(self, shard: Shard, index_dir: Path) -> Iterator[bytes]:
        """Yield the vector keys of the chunks of the pages held by a shard."""
        held = self.held_by(shard, index_dir)
        path = index_dir / "objects" / shard.objects["chunks"].sha256
        for page_id, *row in stream_rows(path, ("page_id", "context", "text")) if held else ():
            if page_id in held:
                yield vector_key(embedder_input(*row))


def _without(index_dir: Path, before: Manifest, matcher: Matcher) -> tuple[Manifest, set[bytes]]:
    """Write the shards without the matching pages; return their manifest and the vector keys that are still needed.

    Nothing is live yet. Raises NothingToIndex when no chunk would be left.
    """
    objects_dir = index_dir / "objects"
    shards, needed = [], set[bytes]()
    for shard in before.shards:
        chunks, vectors, sections, pages = read_rows(shard, objects_dir)
        rest = matcher.rest_of(pages)
        staying = set(rest["page_id"].to_pylist())
        of_chunks, of_sections = _on_pages(chunks, staying), _on_pages(sections, staying)
        chunks, sections = chunks.filter(pa.array(of_chunks)), sections.filter(pa.array(of_sections))
        texts = zip(*(chunks[name].to_pylist() for name in ("context", "text")), strict=True)
        needed.update(vector_key(embedder_input(*row)) for row in texts)
        shards.append(
            shard
            if rest.equals(pages)
            else write_shard(
                shard.shard_id,
                chunks,
                vectors[np.array(of_chunks, bool)],
                sections,
                rest,
                objects_dir,
                kind=shard.index_kind,
            )
        )
    if not needed:
        raise NothingToIndex(index_dir.name, "every page would be forgotten", f"remove {index_dir} instead")
    with tempfile.TemporaryDirectory(prefix="raydex-forget-") as scratch:
        lexical = index_words(shards, objects_dir, Path(scratch), before)
    manifest = new_manifest(
        index_dir,
        tuple(shards),
        parent="",  # what came before is removed
        embedder=before.embedder,
        chunking=before.chunking,
        sources=before.sources,
        ann_recall=before.ann_recall,
        lexical=lexical,
    )
    return manifest, needed


def _on_pages(table: pa.Table, pages: set[str]) -> list[bool]:
    return [page_id in pages for page_id in table["page_id"].to_pylist()]


def _publish(index_dir: Path, manifest: Manifest) -> None:
    write_manifest(index_dir, manifest)
    open_snapshot(index_dir, manifest.snapshot_id)  # proven before it goes live
    write_manifest(index_dir, replace(manifest, gate={"checksums": "passed"}))
    publish(index_dir, manifest.snapshot_id, "forgot")


def _remove_snapshots(index_dir: Path, snapshot_ids: set[str]) -> None:
    """Delete these snapshots, then the objects that no snapshot refers to."""
    with publishing(index_dir):
        remove_manifests(index_dir, snapshot_ids)
    needed = stored_objects(list_snapshots(index_dir))
    for path in (index_dir / "objects").iterdir():
        if path.name not in needed:
            path.unlink()


def _remove_copies(index_dir: Path, matcher: Matcher) -> int:
    store = PageStore(index_dir / "pages")
    found = [s.page.page_id for s in store.heads() if matcher.matches(s.page.url, s.page.source)]
    for page_id in found:
        store.remove(page_id)
    return len(found)


def _remove_vectors(index_dir: Path, keys: set[bytes]) -> int:
    """Remove the vectors of every model."""
    folders = [folder for folder in (index_dir / "vectors").glob("*") if folder.is_dir()]
    return sum(VectorStore(folder, dim=0).remove(keys) for folder in folders)
