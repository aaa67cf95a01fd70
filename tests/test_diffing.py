"""What `--diff` finds between two snapshots, whatever their shards and formats."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydex.build.diffing import Change, differences
from raydex.embed import HashEmbedder
from raydex.errors import SnapshotCorrupt
from raydex.records import StoredObject
from raydex.shard import pages_of
from raydex.snapshot import write_manifest
from tests.snapshots import make_snapshot
from utils.files import sha256_of

SITE = "https://docs.example.org/"
PAGES = {
    f"{SITE}{name}.html#{anchor}": f"What {name} says of {anchor}." for name in "abcdefgh" for anchor in ("x", "y")
}


def with_bodies(index_dir, manifest, bodies):
    """Give the pages of a snapshot these bodies: URL → checksum."""
    shards = []
    for shard in manifest.shards:
        rows = pages_of(shard, index_dir / "objects").to_pylist()
        schema = pages_of(shard, index_dir / "objects").schema
        table = pa.Table.from_pylist([{**r, "body_sha256": bodies.get(r["url"], "same")} for r in rows], schema=schema)
        shards.append(replace(shard, objects={**shard.objects, "pages": stored(index_dir, table)}))
    made = replace(manifest, shards=tuple(shards))
    write_manifest(index_dir, made)
    return made


def stored(index_dir, table):
    path = index_dir / "objects" / "new"
    pq.write_table(table, path)
    made = StoredObject(sha256=sha256_of(path), bytes=path.stat().st_size)
    path.rename(path.with_name(made.sha256))
    return made


def as_format_1(index_dir, shard):
    """Without pages, and without kind, symbol and aliases of sections."""
    sections = pq.read_table(index_dir / "objects" / shard.objects["sections"].sha256)
    sections = sections.drop_columns(["kind", "symbol", "aliases"])
    objects = {role: file for role, file in shard.objects.items() if role != "pages"}
    return replace(shard, objects={**objects, "sections": stored(index_dir, sections)})


def two(index_dir, changed, bodies, *, shards=(4, 4)):
    before = make_snapshot(index_dir, PAGES, HashEmbedder(), shards=shards[0])
    after = make_snapshot(index_dir, changed, HashEmbedder(), shards=shards[1])
    return with_bodies(index_dir, before, {}), with_bodies(index_dir, after, bodies)


def edited():
    texts = {url: text for url, text in PAGES.items() if not url.startswith(f"{SITE}c.html")}
    texts[f"{SITE}a.html#x"] = "Now it says something else."
    del texts[f"{SITE}b.html#y"]
    return texts | {f"{SITE}b.html#z": "A new section.", f"{SITE}new.html#x": "A new page."}


EXPECTED = {
    Change("page", "removed", f"{SITE}c.html"),
    Change("page", "added", f"{SITE}new.html"),
    Change("page", "changed", f"{SITE}a.html"),
    Change("page", "changed", f"{SITE}b.html"),
    Change("section", "removed", f"{SITE}c.html#x"),
    Change("section", "removed", f"{SITE}c.html#y"),
    Change("section", "removed", f"{SITE}b.html#y"),
    Change("section", "added", f"{SITE}b.html#z"),
    Change("section", "added", f"{SITE}new.html#x"),
    Change("section", "changed", f"{SITE}a.html#x"),
}


@pytest.mark.parametrize("shards", [(4, 4), (1, 3), (5, 2)])
def test_pages_and_sections_added_removed_and_changed_are_found_whatever_the_shards(index_dir, shards):
    bodies = {f"{SITE}a.html": "other", f"{SITE}b.html": "other"}
    before, after = two(index_dir, edited(), bodies, shards=shards)
    found = list(differences(index_dir, before, after))
    assert set(found) == EXPECTED
    assert len(found) == len(EXPECTED)
    assert [change.kind for change in found] == ["page"] * 4 + ["section"] * 6


def test_diff_the_other_way_round_swaps_added_and_removed(index_dir):
    bodies = {f"{SITE}a.html": "other", f"{SITE}b.html": "other"}
    before, after = two(index_dir, edited(), bodies)
    swapped = {"added": "removed", "removed": "added", "changed": "changed"}
    found = {(c.kind, swapped[c.change], c.url) for c in differences(index_dir, after, before)}
    assert found == {(c.kind, c.change, c.url) for c in EXPECTED}


@pytest.mark.parametrize("shards", [(4, 4), (4, 7)])
def test_equal_snapshots_differ_in_nothing(index_dir, shards):
    assert list(differences(index_dir, *two(index_dir, PAGES, {}, shards=shards))) == []


def test_page_whose_body_alone_changed_is_changed_and_its_sections_are_not(index_dir):
    before, after = two(index_dir, PAGES, {f"{SITE}d.html": "other banner"})
    assert list(differences(index_dir, before, after)) == [Change("page", "changed", f"{SITE}d.html")]


def test_files_that_both_snapshots_share_are_not_read(index_dir):
    before, after = two(index_dir, {**PAGES, f"{SITE}a.html#x": "Edited."}, {f"{SITE}a.html": "other"})
    shared = {file.sha256 for s in before.shards for file in s.objects.values()}
    shared &= {file.sha256 for s in after.shards for file in s.objects.values()}
    assert shared
    for name in shared:
        path = index_dir / "objects" / name
        path.write_bytes(b"?" * path.stat().st_size)
    assert {c.url for c in differences(index_dir, before, after)} == {f"{SITE}a.html", f"{SITE}a.html#x"}


def test_snapshot_of_format_1_is_compared_by_its_sections_and_says_nothing_of_bodies(index_dir):
    before, after = two(index_dir, {**PAGES, f"{SITE}a.html#x": "Edited."}, {f"{SITE}b.html": "other"})
    shards = [as_format_1(index_dir, shard) for shard in before.shards]
    old = replace(before, format_version=1, shards=tuple(shards))
    assert list(differences(index_dir, old, after)) == [Change("section", "changed", f"{SITE}a.html#x")]


def test_missing_file_is_named(index_dir):
    before, after = two(index_dir, edited(), {})
    (index_dir / "objects" / after.shards[0].objects["sections"].sha256).unlink()
    with pytest.raises(SnapshotCorrupt, match=after.shards[0].objects["sections"].sha256):
        list(differences(index_dir, before, after))


def test_snapshot_whose_pages_are_spread_in_another_way_is_compared_as_a_whole(index_dir):
    bodies = {f"{SITE}a.html": "other", f"{SITE}b.html": "other"}
    before, after = two(index_dir, edited(), bodies)
    turned = replace(after, shards=(*after.shards[1:], after.shards[0]))
    assert set(differences(index_dir, before, turned)) == EXPECTED


def test_file_that_is_no_parquet_is_named(index_dir):
    before, after = two(index_dir, edited(), {})
    files = [shard.objects["sections"] for shard in after.shards]
    edited_file = next(file for file in files if file not in [shard.objects["sections"] for shard in before.shards])
    path = index_dir / "objects" / edited_file.sha256
    path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(SnapshotCorrupt, match=path.name):
        list(differences(index_dir, before, after))
