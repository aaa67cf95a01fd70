import json
import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow.parquet as pq
import pytest

from raydex.digest import digest_of_records, digest_records
from raydex.embed import HashEmbedder
from raydex.errors import SnapshotCorrupt, SnapshotIncompatible, SnapshotNotFound
from raydex.lineage import roll_back
from raydex.records import StoredObject
from raydex.shard import pages_of
from raydex.snapshot import (
    current_id,
    index_names,
    list_snapshots,
    new_snapshot_id,
    open_snapshot,
    publish,
    read_manifest,
    snapshot_bytes,
    verify,
    write_manifest,
)
from tests.samples import NOON, normalised, sample_chunk, write_snapshot
from utils.files import sha256_of

PICKLE_MAGIC = b"\x80\x04"


def snapshot_of(index_dir, texts, *, hour=0, **options):
    chunks = [sample_chunk(number, text) for number, text in enumerate(texts)]
    vectors = HashEmbedder().embed_passages(texts)
    return write_snapshot(index_dir, chunks, vectors, now=NOON + timedelta(hours=hour), **options)


def history(index_dir, length=3, **options):
    """Snapshots an hour apart, each the parent of the next; the last is live."""
    ids: list[str] = []
    for hour in range(length):
        texts = [f"text {number} of {hour}" for number in range(4)]
        ids.append(snapshot_of(index_dir, texts, hour=hour, parent=ids[-1] if ids else "", **options).snapshot_id)
    publish(index_dir, ids[-1])
    return ids


def object_path(index_dir, manifest, role="chunks", shard=0):
    return index_dir / "objects" / manifest.shards[shard].objects[role].sha256


def edit_manifest(index_dir, folder, **changes):
    path = index_dir / "snapshots" / folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_content_digest_depends_on_chunks_texts_model_and_chunking_alone(tmp_path):
    def digest(texts="ab", model="model", **chunking):
        path = tmp_path / "chunks.records"
        path.write_bytes(digest_records([f"{number:032x}" for number in range(len(texts))], list(texts)))
        return digest_of_records([path, path], model, {"max_tokens": 9, "overlap_tokens": 1} | chunking)

    assert digest() == digest(overlap_tokens=1, max_tokens=9)
    assert len({digest(), digest("ac"), digest("a"), digest(model="other"), digest(max_tokens=8)}) == 5


def test_content_digest_does_not_depend_on_the_number_of_shards(tmp_path):
    texts = [f"text {number}" for number in range(9)]
    digests = {snapshot_of(tmp_path / str(n), texts, shards=n).content_digest for n in (1, 4, 7)}
    assert len(digests) == 1


def test_snapshot_ids_are_utc_time_and_digest_and_never_repeat(index_dir):
    zurich = datetime(2026, 1, 1, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    assert new_snapshot_id(index_dir, zurich, "3f9c1b77") == "20260101T120000Z-3f9c1b"
    first = snapshot_of(index_dir, ["a"])
    second = snapshot_of(index_dir, ["a"])
    third = new_snapshot_id(index_dir, NOON, first.content_digest)
    assert len({first.snapshot_id, second.snapshot_id, third}) == 3
    assert first.snapshot_id < second.snapshot_id < third


def test_a_manifest_comes_back_as_it_was_written(index_dir):
    manifest = snapshot_of(index_dir, ["a", "b", "c"], gate={"checksums": "passed", "counts": "passed: 3 chunks"})
    assert read_manifest(index_dir, manifest.snapshot_id) == manifest
    gated = replace(manifest, gate={"counts": "passed"})
    write_manifest(index_dir, gated)
    assert read_manifest(index_dir, manifest.snapshot_id) == gated


def test_an_opened_snapshot_holds_every_chunk(index_dir):
    manifest = snapshot_of(index_dir, ["a", "b", "c"], shards=5)
    publish(index_dir, manifest.snapshot_id)
    snapshot = open_snapshot(index_dir, expected=HashEmbedder().info)
    assert snapshot.manifest == manifest
    texts = [shard.chunk(row).text for shard in snapshot.shards for row in range(len(shard))]
    assert sorted(texts) == ["a", "b", "c"]


def test_no_file_of_a_snapshot_is_a_pickle(index_dir):
    snapshot_of(index_dir, ["a", "b"])
    files = [path for path in index_dir.rglob("*") if path.is_file()]
    assert len(files) == 8  # manifest; index, chunks and sections of two shards, and their pages, which are the same
    assert not [path for path in files if path.read_bytes().startswith(PICKLE_MAGIC) or path.suffix == ".pkl"]


def test_snapshot_of_the_format_before_this_one_can_be_opened(index_dir):
    """Format 1 knew no kinds and symbols of sections, and no table of pages."""
    made = snapshot_of(index_dir, ["a", "b"])
    shards = []
    for shard in made.shards:
        sections = pq.read_table(index_dir / "objects" / shard.objects["sections"].sha256)
        data = index_dir / "objects" / "old"
        pq.write_table(sections.drop_columns(["kind", "symbol", "aliases"]), data)
        stored = StoredObject(sha256=sha256_of(data), bytes=data.stat().st_size)
        data.rename(index_dir / "objects" / stored.sha256)
        objects = {role: kept for role, kept in shard.objects.items() if role != "pages"} | {"sections": stored}
        shards.append(replace(shard, objects=objects))
    write_manifest(index_dir, replace(made, format_version=1, shards=tuple(shards)))
    assert verify(index_dir, made.snapshot_id) == []
    opened = open_snapshot(index_dir, made.snapshot_id)
    section = opened.shards[0].section(opened.shards[0].chunk(0).section_id)
    assert section is not None
    assert (section.kind, section.symbol, section.aliases) == ("prose", "", ())
    assert pages_of(shards[0], index_dir / "objects", ["title"]).num_rows == 1


def test_snapshots_share_the_files_of_unchanged_shards(index_dir):
    first = snapshot_of(index_dir, ["a", "b"])
    before = {path.name for path in (index_dir / "objects").iterdir()}
    second = snapshot_of(index_dir, ["a", "changed"], hour=1)
    after = {path.name for path in (index_dir / "objects").iterdir()}
    assert first.shards[0] == second.shards[0]
    assert len(after - before) == 3
    assert snapshot_bytes(second) == sum(
        (index_dir / "objects" / name).stat().st_size
        for name in {file.sha256 for shard in second.shards for file in shard.objects.values()}
    )


def test_files_that_shards_share_count_once(index_dir):
    empty = write_snapshot(index_dir, [], np.empty((0, 4), np.float32), shards=5)
    assert snapshot_bytes(empty) == sum(path.stat().st_size for path in (index_dir / "objects").iterdir())


def test_nothing_published_is_not_found_and_says_how_to_build(index_dir):
    assert current_id(index_dir) == ""
    with pytest.raises(SnapshotNotFound, match=r"nothing is published\. Build with `python build_index\.py .*docs`"):
        open_snapshot(index_dir)
    with pytest.raises(SnapshotNotFound):
        roll_back(index_dir)


@pytest.mark.parametrize("snapshot_id", ["20250101T000000Z-000000", "../docs", "", "."])
def test_an_unknown_snapshot_is_neither_read_nor_published(index_dir, snapshot_id):
    live = history(index_dir)[-1]
    with pytest.raises(SnapshotNotFound):
        read_manifest(index_dir, snapshot_id)
    with pytest.raises(SnapshotNotFound):
        publish(index_dir, snapshot_id)
    assert current_id(index_dir) == live


def test_snapshots_are_listed_newest_first_and_unreadable_ones_left_out(index_dir, caplog):
    first, second, third = history(index_dir)
    edit_manifest(index_dir, second, format_version=99)
    (index_dir / "snapshots" / "unfinished").mkdir()
    with caplog.at_level(logging.WARNING):
        assert [manifest.snapshot_id for manifest in list_snapshots(index_dir)] == [third, first]
    assert second in caplog.text
    assert list_snapshots(index_dir.parent / "none") == []


def test_index_names_are_the_folders_with_something_published(tmp_path):
    history(tmp_path / "ray")
    history(tmp_path / "docs")
    snapshot_of(tmp_path / "unpublished", ["a"])
    assert index_names(tmp_path) == ["docs", "ray"]
    assert index_names(tmp_path / "none") == []


def test_roll_back_goes_to_the_parent_and_again_to_its_parent_and_forward_by_id(index_dir):
    first, second, third = history(index_dir)
    files = {path: path.stat().st_mtime_ns for path in (index_dir / "objects").iterdir()}
    assert [roll_back(index_dir), current_id(index_dir)] == [second, second]
    assert [roll_back(index_dir), current_id(index_dir)] == [first, first]
    with pytest.raises(SnapshotNotFound, match=f"no snapshot before {first}"):
        roll_back(index_dir)
    assert [roll_back(index_dir, third), current_id(index_dir)] == [third, third]
    assert {path: path.stat().st_mtime_ns for path in (index_dir / "objects").iterdir()} == files


def test_roll_back_skips_a_parent_that_is_gone_and_snapshots_that_never_passed(index_dir):
    first, second, third = history(index_dir)
    snapshot_of(index_dir, ["refused"], hour=1, gate={"counts": "counts: 1 chunk, the live snapshot has 4"})
    snapshot_of(index_dir, ["killed before its gate"], hour=1, gate={})
    (index_dir / "snapshots" / second / "manifest.json").unlink()
    assert roll_back(index_dir) == first
    assert third != current_id(index_dir)


def test_roll_back_works_when_the_live_manifest_is_broken(index_dir):
    _, second, third = history(index_dir)
    (index_dir / "snapshots" / third / "manifest.json").write_text("{")
    assert roll_back(index_dir) == second


def test_roll_back_to_a_damaged_snapshot_leaves_the_live_one(index_dir):
    _, second, third = history(index_dir)
    object_path(index_dir, read_manifest(index_dir, second)).write_bytes(b"damaged")
    with pytest.raises(SnapshotCorrupt):
        roll_back(index_dir)
    assert current_id(index_dir) == third


def test_a_snapshot_of_another_format_is_refused_with_what_to_do(index_dir):
    live = history(index_dir)[-1]
    edit_manifest(index_dir, live, format_version=3)
    with pytest.raises(SnapshotIncompatible, match=r"format_version is 3, expected 2\. .*build the index again"):
        open_snapshot(index_dir)


def test_a_snapshot_of_another_model_is_refused_with_what_to_do(index_dir):
    history(index_dir)
    other = replace(HashEmbedder().info, name="other", sha256="f" * 64)
    with pytest.raises(SnapshotIncompatible, match=r"the embedding model is hash \(.*expected other .*--model"):
        open_snapshot(index_dir, expected=other)
    assert open_snapshot(index_dir, expected=replace(HashEmbedder().info, name="a copy elsewhere"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\x00", b'{"format_version": "1"}', b'{"format_version": 1}']
)
def test_a_broken_manifest_is_corrupt(index_dir, content):
    live = history(index_dir)[-1]
    (index_dir / "snapshots" / live / "manifest.json").write_bytes(content)
    with pytest.raises(SnapshotCorrupt, match="manifest"):
        read_manifest(index_dir, live)
    assert len(verify(index_dir, live)) == 1


def test_a_manifest_that_cannot_be_read_is_corrupt_and_not_a_foreign_error(index_dir):
    (index_dir / "snapshots" / "odd" / "manifest.json").mkdir(parents=True)
    with pytest.raises(SnapshotCorrupt, match="directory"):
        read_manifest(index_dir, "odd")


def test_a_manifest_names_its_missing_or_mistyped_field(index_dir):
    live = history(index_dir)[-1]
    edit_manifest(index_dir, live, chunking={"max_tokens": "256"})
    with pytest.raises(SnapshotCorrupt, match=r"found chunking\.max_tokens: Input should be a valid integer"):
        read_manifest(index_dir, live)


def test_a_manifest_that_contradicts_itself_is_corrupt(index_dir):
    live = history(index_dir)[-1]
    manifest = read_manifest(index_dir, live)
    for wrong in (
        replace(manifest, counts={"chunks": 5}),
        replace(manifest, embedder=HashEmbedder(32).info),
    ):
        write_manifest(index_dir, wrong)
        with pytest.raises(SnapshotCorrupt):
            open_snapshot(index_dir)
        assert verify(index_dir, live)
    edit_manifest(index_dir, live, snapshot_id="another")
    with pytest.raises(SnapshotCorrupt, match="that of another"):
        open_snapshot(index_dir)


def test_an_unknown_index_kind_is_incompatible(index_dir):
    manifest = read_manifest(index_dir, history(index_dir)[-1])
    shards = tuple(replace(shard, index_kind="hnsw") for shard in manifest.shards)
    write_manifest(index_dir, replace(manifest, shards=shards))
    with pytest.raises(SnapshotIncompatible, match="index_kind is hnsw, expected flat"):
        open_snapshot(index_dir)


def test_verify_finds_nothing_in_a_whole_snapshot(index_dir):
    assert all(verify(index_dir, snapshot_id) == [] for snapshot_id in history(index_dir))


def test_verify_names_every_damaged_object(index_dir):
    live = history(index_dir)[-1]
    manifest = read_manifest(index_dir, live)
    missing = object_path(index_dir, manifest, "sections")
    missing.unlink()
    cut = object_path(index_dir, manifest, "chunks")
    cut.write_bytes(cut.read_bytes()[:-5])
    changed = object_path(index_dir, manifest, "index", shard=1)
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x99")
    problems = verify(index_dir, live)
    assert len(problems) == 3
    assert all(any(path.name in problem for problem in problems) for path in (missing, cut, changed))


def test_verify_notices_shards_of_other_content_with_right_checksums(index_dir):
    live = history(index_dir)[-1]
    other = snapshot_of(index_dir, [f"other {number}" for number in range(4)], hour=9)
    write_manifest(index_dir, replace(read_manifest(index_dir, live), shards=other.shards))
    assert "content digest" in verify(index_dir, live)[0]
    miscounted = replace(other.shards[0], section_count=9)
    write_manifest(index_dir, replace(read_manifest(index_dir, live), shards=(miscounted, other.shards[1])))
    assert "expected 9 rows" in verify(index_dir, live)[0]


def test_verify_reports_an_unknown_snapshot(index_dir):
    assert "no snapshot nothing" in verify(index_dir, "nothing")[0]


@pytest.mark.parametrize("role", ["index", "chunks", "sections"])
def test_a_damaged_snapshot_does_not_open_and_another_can_still_go_live(index_dir, role):
    _, second, third = history(index_dir)
    object_path(index_dir, read_manifest(index_dir, third), role).write_bytes(b"damaged")
    with pytest.raises(SnapshotCorrupt, match="--rollback"):
        open_snapshot(index_dir)
    assert roll_back(index_dir) == second
    assert open_snapshot(index_dir).manifest.snapshot_id == second


def test_readers_see_a_whole_id_while_others_publish(index_dir):
    ids = history(index_dir)
    done = threading.Event()

    def publish_many(snapshot_id):
        for _ in range(30):
            publish(index_dir, snapshot_id)

    def read_until_done():
        while not done.is_set():
            seen.add(current_id(index_dir))

    seen: set[str] = set()
    reader = threading.Thread(target=read_until_done)
    writers = [threading.Thread(target=publish_many, args=(snapshot_id,)) for snapshot_id in ids]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen <= set(ids)
    assert sorted(path.name for path in index_dir.iterdir()) == [
        *("CURRENT", "journal.jsonl", "objects", "publish.lock", "snapshots")
    ]


def test_an_open_snapshot_answers_after_its_files_are_deleted(index_dir):
    history(index_dir)
    snapshot = open_snapshot(index_dir)
    for path in (index_dir / "objects").iterdir():
        path.unlink()
    query = normalised(np.ones((1, 64)))
    assert sum(shard.search(query, 4)[1].size for shard in snapshot.shards) == 4
    assert datetime.fromisoformat(snapshot.manifest.created_at).tzinfo == UTC
