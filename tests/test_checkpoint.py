"""Page store, embedding store, ledger, lock and room on disk: what a killed build goes on from."""

import errno
import hashlib
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard

from raydex.checkpoint import (
    Ledger,
    PageStore,
    VectorStore,
    build_lock,
    check_free_space,
    full_disk_named,
    open_build,
)
from raydex.errors import BuildLocked, EmbedError, StorageFull
from raydex.records import Page, Vectors


def page(body: bytes = b"<h1>\xff caf\xe9</h1>", page_id: str = "ab12") -> Page:
    return Page(
        page_id=page_id,
        url="https://example.org/a",
        crawl_url="http://127.0.0.1/a",
        source="docs",
        fetched_at=datetime(2026, 1, 2, tzinfo=UTC),
        status=200,
        content_type="text/html; charset=latin-1",
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
        etag='"x"',
        last_modified="Thu, 01 Jan 2026 00:00:00 GMT",
    )


def unit_vectors(count: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def keys_of(count: int, first: int = 0) -> list[bytes]:
    return [hashlib.sha256(f"{first} {i}".encode()).digest() for i in range(count)]


def test_stored_page_comes_back_byte_for_byte(tmp_path):
    store = PageStore(tmp_path)
    store.save(page(), "build-1")
    stored = store.load("ab12")
    assert stored is not None
    assert (stored.page, stored.build_id) == (page(), "build-1")


def test_unknown_page_is_none(tmp_path):
    assert PageStore(tmp_path).load("ffff") is None


def test_saving_a_page_again_replaces_it(tmp_path):
    store = PageStore(tmp_path)
    store.save(page(b"old"), "build-1")
    store.save(page(b"new"), "build-2")
    stored = store.load("ab12")
    assert stored is not None
    assert (stored.page.body, stored.build_id) == (b"new", "build-2")


def test_stored_vectors_are_found_by_another_process_view_after_refresh(tmp_path):
    writer, reader = VectorStore(tmp_path, 8), VectorStore(tmp_path, 8)
    keys, vectors = keys_of(5), unit_vectors(5, seed=1)
    writer.add(keys, vectors)
    assert reader.find(keys) == {}
    reader.refresh()
    found = reader.find([keys[3], b"\x00" * 31 + b"\x99", keys[0]])
    assert set(found) == {keys[3], keys[0]}
    np.testing.assert_array_equal(found[keys[3]], vectors[3])


def test_vectors_of_many_files_are_found_together(tmp_path):
    store = VectorStore(tmp_path, 8)
    expected: dict[bytes, Vectors] = {}
    for part in range(4):
        keys, vectors = keys_of(10, first=part), unit_vectors(10, seed=part)
        store.add(keys, vectors)
        expected.update(zip(keys, vectors, strict=True))
    store.refresh()
    found = store.find(list(expected))
    assert set(found) == set(expected)
    for key, vector in expected.items():
        np.testing.assert_array_equal(found[key], vector)


def test_keys_that_share_their_first_bytes_are_not_confused(tmp_path):
    store = VectorStore(tmp_path, 8)
    stored, other = b"\x07" * 32, b"\x07" * 31 + b"\x08"
    store.add([stored], unit_vectors(1, seed=0))
    store.refresh()
    assert other not in store.find([other])


def test_damaged_page_is_as_good_as_none(tmp_path):
    store = PageStore(tmp_path)
    store.save(page(), "build-1")
    (path,) = tmp_path.glob("*/*.page")
    path.write_bytes(path.read_bytes()[:-5])
    assert store.load("ab12") is None
    path.write_bytes(b"{}\n")
    assert store.load("ab12") is None


def test_body_that_is_not_the_one_saved_is_as_good_as_none(tmp_path):
    store = PageStore(tmp_path)
    store.save(page(), "build-1")
    (path,) = tmp_path.glob("*/*.page")
    head = path.read_bytes().partition(b"\n")[0]
    path.write_bytes(head + b"\n" + zstandard.compress(b"another body"))
    assert store.load("ab12") is None


def test_confirmed_page_keeps_its_body_under_a_new_head(tmp_path):
    store = PageStore(tmp_path)
    store.save(page(), "build-1")
    head = store.head("ab12")
    assert head is not None
    assert head.page.body == b""
    store.confirm(head.page, "build-2", stale_builds=1)
    stored = store.load("ab12")
    assert stored is not None
    assert (stored.page, stored.build_id, stored.stale_builds) == (page(), "build-2", 1)


def test_reading_is_found_by_its_recipe_alone_and_a_damaged_one_is_none(tmp_path):
    store = PageStore(tmp_path)
    store.save_reading("ab12", "recipe-1", b"what the page says")
    assert store.reading("ab12", "recipe-1") == b"what the page says"
    assert store.reading("ab12", "recipe-2") is None
    (path,) = tmp_path.glob("*/*.reading")
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    assert store.reading("ab12", "recipe-1") is None


def test_removed_page_is_gone_with_its_reading(tmp_path):
    store = PageStore(tmp_path)
    store.save(page(), "build-1")
    store.save_reading("ab12", "recipe", b"words")
    store.remove("ab12")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert list(store.heads()) == []


def test_removed_vectors_are_gone_from_disk_and_the_others_stay(tmp_path):
    store = VectorStore(tmp_path, 8)
    first, second = keys_of(3, first=1), keys_of(3, first=2)
    store.add(first, unit_vectors(3, seed=1))
    store.add(second, unit_vectors(3, seed=2))
    assert store.remove({*first, second[0]}) == 4
    left = VectorStore(tmp_path, 8)
    left.refresh()
    assert set(left.find([*first, *second])) == {*second[1:]}


def test_damaged_vectors_are_left_out_and_the_others_found(tmp_path):
    store = VectorStore(tmp_path, 8)
    good, bad = keys_of(3, first=1), keys_of(3, first=2)
    store.add(bad, unit_vectors(3, seed=2))
    (path,) = tmp_path.glob("*.parquet")
    path.write_bytes(b"PAR1")
    store.add(good, unit_vectors(3, seed=1))
    store.refresh()
    assert set(store.find([*good, *bad])) == set(good)
    assert store.remove({good[0]}) == 1
    assert not path.exists()  # nobody can tell whether it holds what is to be forgotten


def test_damaged_rows_behind_whole_keys_are_as_good_as_none(tmp_path):
    store = VectorStore(tmp_path, 8)
    keys = keys_of(3, first=1)
    store.add(keys, unit_vectors(3, seed=1))
    store.refresh()
    (path,) = tmp_path.glob("*.parquet")
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert store.find(keys) == {}
    assert VectorStore(tmp_path, 8).remove({keys[0]}) == 1
    assert not path.exists()


def test_vector_that_is_no_number_is_never_stored(tmp_path):
    vectors = unit_vectors(2, seed=0)
    vectors[1, 0] = np.nan
    with pytest.raises(EmbedError, match="not a number"):
        VectorStore(tmp_path, 8).add(keys_of(2), vectors)
    assert not list(tmp_path.iterdir())


def test_ledger_ignores_and_then_cuts_a_torn_last_line(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("start", config_digest="c")
    ledger.append("crawled", unit_id="u1")
    with (tmp_path / "ledger.jsonl").open("ab") as out:
        out.write(b'{"event": "crawled", "unit_')
    assert [line["event"] for line in ledger.lines()] == ["start", "crawled"]
    ledger.cut_torn_line()
    ledger.append("end", outcome="published")
    assert [line["event"] for line in ledger.lines()] == ["start", "crawled", "end"]


def test_newest_unfinished_build_of_the_same_configuration_is_resumed(tmp_path):
    first, resumed = open_build(tmp_path, "config-a")
    assert not resumed
    again, resumed = open_build(tmp_path, "config-a")
    assert resumed
    assert again.build_dir == first.build_dir


def test_fresh_build_is_never_a_resumed_one_and_removes_the_unit_files_of_the_old(tmp_path):
    first, _ = open_build(tmp_path, "config-a")
    (first.build_dir / "units").mkdir()
    second, resumed = open_build(tmp_path, "config-a", fresh=True)
    assert not resumed
    assert second.build_dir != first.build_dir
    assert not (first.build_dir / "units").exists()


@pytest.mark.parametrize("ended", [True, False])
def test_build_of_another_configuration_or_an_ended_one_is_not_resumed(tmp_path, ended):
    first, _ = open_build(tmp_path, "config-a")
    if ended:
        first.append("end", outcome="published")
    second, resumed = open_build(tmp_path, "config-a" if ended else "config-b")
    assert not resumed
    assert second.build_dir.name > first.build_dir.name


def hold_lock(index_dir: Path, held: "multiprocessing.synchronize.Event", release: "multiprocessing.synchronize.Event"):
    with build_lock(index_dir):
        held.set()
        release.wait(30)


def test_second_build_of_an_index_is_refused_with_the_holder_named(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold_lock, args=(tmp_path, held, release))
    holder.start()
    assert held.wait(30)
    with pytest.raises(BuildLocked, match=f"pid {holder.pid} on "), build_lock(tmp_path):
        pytest.fail("the lock was given twice")
    release.set()
    holder.join(30)
    with build_lock(tmp_path):
        pass  # free again, although the file is still there


def test_lock_of_a_killed_build_is_free(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold_lock, args=(tmp_path, held, release))
    holder.start()
    assert held.wait(30)
    holder.kill()
    holder.join(30)
    with build_lock(tmp_path):
        assert f"pid {os.getpid()} " in (tmp_path / "build.lock").read_text()


def test_too_small_a_disk_is_named_before_the_build_starts(tmp_path):
    with pytest.raises(StorageFull, match="needed"):
        check_free_space(tmp_path / "index", 2**62)


def test_full_disk_becomes_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(StorageFull, match="same command resumes"), full_disk_named(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_disk_errors_keep_their_own_words(tmp_path):
    with pytest.raises(PermissionError), full_disk_named(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_vectors_that_come_file_by_file_are_all_found(tmp_path):
    store = VectorStore(tmp_path, 8)
    keys = [hashlib.sha256(bytes([number])).digest() for number in range(60)]
    vectors = unit_vectors(60, seed=3)
    for number in range(60):
        store.add(keys[number : number + 1], vectors[number : number + 1])
        store.refresh()
        assert len(store.find(keys)) == number + 1
    found = store.find(keys)
    np.testing.assert_array_equal([found[key] for key in keys], vectors)


def test_full_store_is_listed_the_seldomer_the_more_files_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr("raydex.checkpoint.FILES_PER_REFRESH", 2)
    writer, reader = VectorStore(tmp_path, 8), VectorStore(tmp_path, 8)
    for number in range(8):
        writer.add(keys_of(1, first=number), unit_vectors(1, seed=number))
    reader.refresh()
    late = keys_of(1, first=9)
    writer.add(late, unit_vectors(1, seed=9))
    calls = 0
    while late[0] not in reader.find(late):
        reader.refresh()
        calls += 1
    assert calls == 8 // 2
