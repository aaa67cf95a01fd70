"""What a collection deletes, and what it must not: by rule, by age, and when it is killed half way."""

import json
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from raydex.build import garbage
from raydex.build.embedding import vector_key
from raydex.build.garbage import choose, collect, collect_after_build
from raydex.build.items import DROPPED_SCHEMA
from raydex.build.reading import Reading
from raydex.build.rows import Dropped
from raydex.checkpoint import Ledger, PageStore, VectorStore, write_parquet
from raydex.embed import HashEmbedder
from raydex.errors import SnapshotCorrupt, SnapshotNotFound
from raydex.lineage import roll_back, roll_forward
from raydex.records import PageInfo, Source, new_page, stable_id
from raydex.snapshot import current_id, list_snapshots, open_snapshot, publish, read_manifest, verify
from tests.samples import NOON, normalised, sample_chunk, write_snapshot

FIRST_TEXTS = [f"text {number}" for number in range(9)]


@pytest.fixture
def fetched_page():
    source = Source(name="docs", seeds=("https://docs.example.org/",))
    return new_page(source, "https://docs.example.org/a.html", b"<h1>A</h1>", "text/html")


def make(index_dir, hour, texts=None, *, live=True, gate=None, embedder=None):
    """Write the child of the live snapshot; without texts, only the last one is another than before."""
    texts = texts or [*FIRST_TEXTS, f"edited at {hour}"]
    chunks = [sample_chunk(number, text) for number, text in enumerate(texts)]
    embedder = embedder or HashEmbedder()
    vectors = embedder.embed_passages([chunk.embedder_input for chunk in chunks])
    manifest = write_snapshot(
        index_dir,
        chunks,
        vectors,
        now=NOON + timedelta(hours=hour),
        parent=current_id(index_dir),
        gate=gate,
        embedder=embedder.info,
    )
    store = VectorStore(index_dir / "vectors" / embedder.info.fingerprint[:16], embedder.info.dim)
    store.refresh()
    keys = [vector_key(chunk.embedder_input) for chunk in chunks]
    known = store.find(keys)
    fresh = [i for i, key in enumerate(keys) if key not in known]
    if fresh:
        store.add([keys[i] for i in fresh], vectors[fresh])
    if live:
        publish(index_dir, manifest.snapshot_id)
    return manifest.snapshot_id


def age(index_dir, seconds=0):
    """Make all files as old as the first snapshot."""
    for path in index_dir.rglob("*"):
        os.utime(path, (NOON.timestamp() - seconds,) * 2)


def stored_vectors(index_dir, embedder=None):
    info = (embedder or HashEmbedder()).info
    store = VectorStore(index_dir / "vectors" / info.fingerprint[:16], info.dim)
    store.refresh()
    return len(store)


def tree(index_dir):
    files = (path for path in index_dir.rglob("*") if path.is_file() and path.name != "publish.lock")
    return {path: path.stat().st_mtime_ns for path in files}


def build_folder(index_dir, build_id, *events, **report):
    folder = index_dir / "builds" / build_id
    ledger = Ledger(folder)
    ledger.append("start", config_digest="config")
    for event, fields in events:
        ledger.append(event, **fields)
    (folder / "report.json").write_text(json.dumps(report))
    return folder


ENDED = ("end", {"outcome": "published"})


def test_newest_snapshots_stay_and_what_only_the_others_need_goes(index_dir):
    ids = [make(index_dir, hour) for hour in range(6)]
    age(index_dir)
    whole = {name: open_snapshot(index_dir, name).manifest for name in ids}
    freed = collect(index_dir, 2, grace_s=0)
    assert [m.snapshot_id for m in list_snapshots(index_dir)] == ids[:3:-1]
    assert freed.snapshots == tuple(ids[3::-1])
    assert all(verify(index_dir, name) == [] for name in ids[4:])
    needed = {file.sha256 for name in ids[4:] for shard in whole[name].shards for file in shard.objects.values()}
    assert {path.name for path in (index_dir / "objects").iterdir()} == needed
    assert freed.objects > 0
    assert stored_vectors(index_dir) == len(FIRST_TEXTS) + 2
    assert freed.vectors == 4
    assert collect(index_dir, 2, grace_s=0).bytes == 0


def test_dry_run_says_what_would_go_and_touches_nothing(index_dir):
    for hour in range(5):
        make(index_dir, hour)
    age(index_dir)
    before = tree(index_dir)
    told = collect(index_dir, 1, grace_s=0, dry_run=True)
    assert tree(index_dir) == before
    done = collect(index_dir, 1, grace_s=0)
    assert told.told("docs").replace("would be removed", "removed") == done.told("docs")
    assert told.snapshots


def test_freed_bytes_are_those_that_the_disk_has_back(index_dir):
    for hour in range(5):
        make(index_dir, hour)
    age(index_dir)
    before = sum(path.stat().st_size for path in (index_dir / "objects").iterdir())
    (index_dir / "vectors").rename(index_dir / "elsewhere")
    freed = collect(index_dir, 1, grace_s=0)
    assert before - sum(path.stat().st_size for path in (index_dir / "objects").iterdir()) == freed.bytes


def test_live_snapshot_its_parent_and_the_way_forward_stay_however_old(index_dir):
    ids = [make(index_dir, hour) for hour in range(6)]
    roll_back(index_dir, ids[1])
    assert choose(index_dir, 1).kept == (ids[5], ids[1], ids[0])
    age(index_dir)
    collect(index_dir, 1, grace_s=0)
    assert roll_back(index_dir) == ids[0]
    assert [roll_forward(index_dir), roll_forward(index_dir)] == [ids[1], ids[5]]
    assert all(verify(index_dir, name) == [] for name in (ids[0], ids[1], ids[5]))


def test_refused_snapshots_stay_until_something_newer_is_live(index_dir):
    first = make(index_dir, 0)
    refused = [make(index_dir, hour, gate={"counts": "gone"}, live=False) for hour in range(1, 5)]
    killed = make(index_dir, 5, gate={}, live=False)
    assert choose(index_dir, 2).kept == (killed, refused[3], first)
    second = make(index_dir, 6)
    assert choose(index_dir, 2).kept == (second, first)


def test_snapshot_published_in_spite_of_its_gate_counts_as_proven(index_dir):
    odd = make(index_dir, 0, gate={"counts": "gone"})
    ids = [make(index_dir, hour) for hour in range(1, 4)]
    assert choose(index_dir, 4).kept == (*reversed(ids), odd)


def test_young_files_stay_for_the_grace_period(index_dir):
    for hour in range(4):
        make(index_dir, hour)
    before = {path.name for path in (index_dir / "objects").iterdir()}
    freed = collect(index_dir, 1, grace_s=3600)
    assert {path.name for path in (index_dir / "objects").iterdir()} == before
    assert (freed.objects, freed.vectors) == (0, 0)
    assert len(freed.snapshots) == 2


def test_collection_killed_at_any_point_leaves_whole_snapshots_and_the_next_one_ends_it(
    index_dir, tmp_path, monkeypatch
):
    """Every deletion in turn is the last one that the first collection does."""
    ids = [make(index_dir, hour) for hour in range(4)]
    build_folder(index_dir, "b1", ENDED)
    build_folder(index_dir, "b2", ENDED)
    build_folder(index_dir, "b3", ENDED)
    age(index_dir)
    complete = copied(index_dir, tmp_path / "complete")
    collect(complete, 1, grace_s=0)
    expected = {path.relative_to(complete) for path in complete.rglob("*")}
    for number in range(100):
        broken = copied(index_dir, tmp_path / str(number))
        with monkeypatch.context() as patched:
            counted = Deletions(patched, limit=number)
            try:
                collect(broken, 1, grace_s=0)
            except Deletions.Killed:
                pass
            else:
                break
        assert counted.done == number
        assert current_id(broken) == ids[-1]
        assert all(verify(broken, manifest.snapshot_id) == [] for manifest in list_snapshots(broken))
        collect(broken, 1, grace_s=0)
        assert {path.relative_to(broken) for path in broken.rglob("*")} == expected
    assert number > 8


class Deletions:
    """Lets so many files be deleted, and ends the process, so to speak, at the next one."""

    class Killed(BaseException):
        """No more."""

    def __init__(self, patched, limit):
        self.done, self._limit, self._unlink = 0, limit, os.unlink
        for name in ("unlink", "rmdir"):
            patched.setattr(os, name, self._guarded(getattr(os, name)))
        patched.setattr(shutil, "rmtree", self._rmtree)

    def _guarded(self, delete):
        def guarded(*arguments, **options):
            if self.done == self._limit:
                raise self.Killed
            self.done += 1
            return delete(*arguments, **options)

        return guarded

    def _rmtree(self, folder):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def copied(index_dir, to):
    shutil.copytree(index_dir, to)
    return to


def test_unreadable_snapshot_keeps_what_it_may_need_until_it_is_old(index_dir):
    ids = [make(index_dir, hour) for hour in range(5)]
    (index_dir / "snapshots" / ids[3] / "manifest.json").write_text("{")
    age(index_dir)
    files = {path.name for path in (index_dir / "objects").iterdir()}
    freed = collect(index_dir, 2, grace_s=0)
    assert ids[3] in freed.left_alone
    assert ids[3] in freed.kept
    assert {path.name for path in (index_dir / "objects").iterdir()} == files
    for hour in range(5, 8):
        make(index_dir, hour)
    age(index_dir)
    freed = collect(index_dir, 2, grace_s=0)
    assert ids[3] in freed.snapshots
    assert not freed.left_alone


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_file_of_a_kept_snapshot_keeps_page_copies_and_vectors_and_is_named(index_dir, damage):
    ids = [make(index_dir, hour) for hour in range(5)]
    age(index_dir)
    kept, going = (
        {shard.objects["chunks"].sha256 for shard in read_manifest(index_dir, name).shards} for name in (ids[4], ids[0])
    )
    path = index_dir / "objects" / min(kept - going)
    path.unlink() if damage == "missing" else path.write_bytes(b"PAR1")
    age(index_dir)
    vectors = stored_vectors(index_dir)
    freed = collect(index_dir, 1, grace_s=0)
    assert path.name in freed.left_alone
    assert stored_vectors(index_dir) == vectors
    assert freed.objects > 0


def test_index_whose_live_manifest_cannot_be_read_is_left_as_it_is(index_dir):
    for hour in range(4):
        make(index_dir, hour)
    (index_dir / "snapshots" / current_id(index_dir) / "manifest.json").write_text("{")
    age(index_dir)
    before = tree(index_dir)
    with pytest.raises(SnapshotCorrupt):
        collect(index_dir, 1, grace_s=0)
    assert tree(index_dir) == before
    assert collect_after_build(index_dir, 1, 0) is None


def test_index_without_a_live_snapshot_is_refused(index_dir):
    make(index_dir, 0, live=False)
    with pytest.raises(SnapshotNotFound):
        collect(index_dir, 1, grace_s=0)


def test_unfinished_build_keeps_the_shards_it_has_written_and_both_stores(index_dir):
    for hour in range(4):
        make(index_dir, hour)
    written = make(index_dir, 9, [f"being built {number}" for number in range(4)], live=False)
    shards = read_manifest(index_dir, written).shards
    (index_dir / "snapshots" / written / "manifest.json").unlink()
    sharded = {"objects": {role: {"sha256": file.sha256} for role, file in shards[0].objects.items()}}
    folder = build_folder(index_dir, "b9", ("sharded", {"shard": sharded}))
    (folder / "units").mkdir()
    age(index_dir)
    vectors = stored_vectors(index_dir)
    freed = collect(index_dir, 1, grace_s=0)
    left = {path.name for path in (index_dir / "objects").iterdir()}
    assert {file.sha256 for file in shards[0].objects.values()} <= left
    assert not {file.sha256 for file in shards[1].objects.values()} & left
    assert stored_vectors(index_dir) == vectors
    assert "b9 is unfinished" in freed.left_alone
    assert (folder / "units").is_dir()
    Ledger(folder).append("end", outcome="gate_refused")
    age(index_dir)
    collect(index_dir, 1, grace_s=0)
    assert stored_vectors(index_dir) == len(FIRST_TEXTS) + 2


def test_build_killed_after_it_published_is_no_unfinished_one_even_when_rolled_back(index_dir):
    make(index_dir, 0)
    second = make(index_dir, 1)
    build_folder(index_dir, "b1", ("publishing", {"snapshot_id": second}))
    assert collect(index_dir, 1, grace_s=0).left_alone == ""
    roll_back(index_dir)
    assert collect(index_dir, 1, grace_s=0).left_alone == ""


def test_vectors_of_a_model_that_no_kept_snapshot_uses_go_with_their_folder(index_dir):
    small = HashEmbedder(32)
    make(index_dir, 0, embedder=small)
    make(index_dir, 1)
    age(index_dir)
    collect(index_dir, 1, grace_s=0)
    assert stored_vectors(index_dir, small) == len(FIRST_TEXTS) + 1  # the parent was made with it
    make(index_dir, 2)
    age(index_dir)
    collect(index_dir, 1, grace_s=0)
    assert [path.name for path in (index_dir / "vectors").iterdir()] == [HashEmbedder().info.fingerprint[:16]]


def test_vectors_made_since_the_live_snapshot_stay_for_the_build_that_failed_meanwhile(index_dir):
    make(index_dir, 0)
    age(index_dir, seconds=10)
    store = VectorStore(index_dir / "vectors" / HashEmbedder().info.fingerprint[:16], 64)
    store.add([bytes(32)], normalised(np.ones((1, 64))))
    path = max((index_dir / "vectors").glob("*/*"), key=lambda path: path.stat().st_mtime)
    os.utime(path, (NOON.timestamp() + 60,) * 2)
    assert collect(index_dir, 1, grace_s=0).vectors == 0
    os.utime(path, (NOON.timestamp() - 60,) * 2)
    assert collect(index_dir, 1, grace_s=0).vectors == 1


@pytest.mark.parametrize(
    ("left_out", "damage"), [("page", Path.unlink), ("section", lambda path: path.write_bytes(b""))]
)
def test_vectors_of_what_is_left_out_as_duplicate_stay_for_the_next_build(index_dir, fetched_page, left_out, damage):
    make(index_dir, 0)
    chunk = replace(sample_chunk(50, "printed"), page_id=fetched_page.page_id)
    VectorStore(index_dir / "vectors" / HashEmbedder().info.fingerprint[:16], 64).add(
        [vector_key(chunk.embedder_input)], normalised(np.ones((1, 64)))
    )
    store = PageStore(index_dir / "pages")
    store.save(fetched_page, "b1")
    info = PageInfo(page_id=fetched_page.page_id, url=fetched_page.url, source="docs", title="A")
    reading = TypeAdapter(Reading).dump_json(Reading(info=info, chunks=(chunk,)))
    store.save_reading(fetched_page.page_id, "recipe", reading)
    row = {"id": fetched_page.page_id if left_out == "page" else f"{fetched_page.url}#s", "url": "", "kept_page_id": ""}
    folder = build_folder(index_dir, "b1", ENDED)
    write_parquet(folder / Dropped.FILE, pa.Table.from_pylist([row], schema=DROPPED_SCHEMA))
    age(index_dir, seconds=10)
    assert collect(index_dir, 1, grace_s=0).vectors == 0
    damage(folder / Dropped.FILE)  # it is not fsynced: a power cut leaves it empty
    assert collect(index_dir, 1, grace_s=0).vectors == 1


def test_page_copies_stay_while_a_kept_snapshot_or_a_kept_build_knows_them(index_dir, fetched_page):
    make(index_dir, 0)
    make(index_dir, 1)
    in_snapshot = replace(fetched_page, page_id=sample_chunk(0).page_id)
    looked_at = replace(fetched_page, page_id=stable_id("looked at"))
    orphan = replace(fetched_page, page_id=stable_id("orphan"))
    store = PageStore(index_dir / "pages")
    for page, build_id in ((in_snapshot, "b1"), (looked_at, "b2"), (orphan, "b1")):
        store.save(page, build_id)
        store.save_reading(page.page_id, "recipe", b"what was read")
    build_folder(index_dir, "b1", ENDED)
    build_folder(index_dir, "b2", ENDED)
    age(index_dir)
    assert collect(index_dir, 2, grace_s=0).pages == 0
    freed = collect(index_dir, 1, grace_s=0)
    assert (freed.pages, freed.builds) == (1, 1)
    assert set(store.ids()) == {in_snapshot.page_id, looked_at.page_id}
    assert store.files(orphan.page_id) == []
    assert len(store.files(looked_at.page_id)) == 2


def test_folders_of_builds_stay_for_kept_snapshots_and_for_the_speed_they_tell(index_dir):
    kept = make(index_dir, 0)
    build_folder(index_dir, "b0", ENDED, tokens_embedded=10**6, tokens_per_s=9.0)
    build_folder(index_dir, "b1", ENDED, tokens_embedded=10**6, tokens_per_s=9.0)
    build_folder(index_dir, "b2", ENDED, snapshot_id=kept)
    build_folder(index_dir, "b3", ENDED, snapshot_id="gone")
    build_folder(index_dir, "b4", ENDED)
    assert collect(index_dir, 1, grace_s=0).builds == 2
    assert sorted(path.name for path in (index_dir / "builds").iterdir()) == ["b1", "b2", "b4"]


def test_left_overs_of_dead_processes_go(index_dir):
    make(index_dir, 0)
    names = ("objects/.ab.x1", ".CURRENT.x2", "vectors/m/.v.parquet.x3", ".import-x4/objects/ab", "snapshots/odd/.m.x5")
    for name in names:
        path = index_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    age(index_dir)
    collect(index_dir, 1, grace_s=0)
    assert not [name for name in names if (index_dir / name).exists()]
    assert not (index_dir / ".import-x4").exists()
    assert verify(index_dir, current_id(index_dir)) == []


def test_file_that_a_roll_back_renames_meanwhile_ends_no_collection(index_dir, monkeypatch):
    for hour in range(3):
        make(index_dir, hour)
    written = index_dir / ".CURRENT.1234"
    written.touch()
    age(index_dir)
    remove = garbage._Remover.remove

    def renamed_meanwhile(remover, path):
        if path == written:
            path.unlink()
        return remove(remover, path)

    monkeypatch.setattr(garbage._Remover, "remove", renamed_meanwhile)
    assert len(collect(index_dir, 1, grace_s=0).snapshots) == 1


def test_build_collects_only_when_a_snapshot_is_one_too_many(index_dir):
    ids = [make(index_dir, hour) for hour in range(3)]
    assert collect_after_build(index_dir, 3, 0) is None
    assert collect_after_build(index_dir, 0, 0) is None
    make(index_dir, 3)
    freed = collect_after_build(index_dir, 3, 0)
    assert freed is not None
    assert freed.snapshots == (ids[0],)


def test_open_snapshot_answers_while_and_after_its_files_are_collected(index_dir):
    first = make(index_dir, 0)
    opened = open_snapshot(index_dir, first)
    for hour in range(1, 4):
        make(index_dir, hour, [f"all new {hour} {number}" for number in range(4)])
    age(index_dir)
    assert first in collect(index_dir, 1, grace_s=0).snapshots
    query = HashEmbedder().embed_queries(["text 3"])
    assert sum(shard.search(query, 10)[1].size for shard in opened.shards) == 10
