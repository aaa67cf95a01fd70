from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest

from raydex.errors import SnapshotCorrupt
from raydex.records import Chunk, Section, StoredObject
from raydex.shard import open_shard, write_shard
from raydex.tables import (
    CHUNK_SCHEMA,
    SECTION_SCHEMA,
    chunks_to_table,
    pages_to_table,
    sections_to_table,
)
from tests.samples import normalised, page_of, sample_chunk, section_of

DIM = 24


def make(tmp_path, count=30, dim=DIM, order=None):
    chunks = [sample_chunk(number) for number in range(count)]
    vectors = random_vectors(count, dim)
    order = list(range(count) if order is None else order)
    return write_shard(
        "00000",
        chunks_to_table([chunks[i] for i in order]),
        vectors[order],
        sections_to_table([section_of(chunks[i]) for i in order]),
        pages_to_table([page_of(chunks[i]) for i in order]),
        tmp_path,
    )


def random_vectors(count, dim=DIM, seed=7):
    return normalised(np.random.default_rng(seed).normal(size=(count, dim)))


def all_scores(shard, vectors):
    """The score of every row for every query, (q, n)."""
    scores, rows = shard.search(vectors, len(shard))
    table = np.empty_like(scores)
    np.put_along_axis(table, rows, scores, axis=1)
    return table


@pytest.mark.parametrize(("record", "schema"), [(Chunk, CHUNK_SCHEMA), (Section, SECTION_SCHEMA)])
def test_schemas_have_the_fields_of_their_records(record, schema):
    assert schema.names == [field.name for field in fields(record) if field.name != "token_ids"]  # of a build only


def test_records_survive_their_tables(tmp_path):
    chunks = [sample_chunk(number, text) for number, text in enumerate(["a", "Zürich\n東京 🙂", "\x00"])]
    sections = [section_of(chunk) for chunk in chunks]
    sections[0] = replace(sections[0], symbol="--file", aliases=("-f", "tar -f"))
    pages = pages_to_table([page_of(chunks[0])])
    tables = chunks_to_table(chunks), random_vectors(3), sections_to_table(sections), pages
    shard = open_shard(write_shard("00000", *tables, tmp_path), tmp_path)
    assert {shard.chunk(row) for row in range(3)} == set(chunks)
    assert [shard.section(section.section_id) for section in sections] == sections


def test_rows_are_ordered_by_chunk_id_and_keep_their_vectors(tmp_path):
    shard = open_shard(make(tmp_path), tmp_path)
    vectors = dict(zip((sample_chunk(i).chunk_id for i in range(30)), random_vectors(30), strict=True))
    assert shard.chunk_ids == sorted(vectors)
    for row, chunk_id in enumerate(shard.chunk_ids):
        scores, rows = shard.search(vectors[chunk_id][np.newaxis], 1)
        assert rows[0, 0] == row
        assert scores[0, 0] == pytest.approx(1, abs=1e-6)
        assert shard.chunk(row).chunk_id == chunk_id


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path):
    first = make(tmp_path)
    written = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert make(tmp_path, order=reversed(range(30))) == first
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == written  # nothing is written twice


def test_a_chunk_that_comes_twice_is_kept_once(tmp_path):
    assert make(tmp_path, order=[*range(30), 3, 4, 4]) == make(tmp_path)


def test_counts_and_look_ups_of_chunks_and_sections(tmp_path):
    shard = open_shard(make(tmp_path), tmp_path)
    assert (len(shard), shard.dim, shard.page_count, shard.shard.section_count) == (30, DIM, 10, 30)
    for number in range(30):
        chunk = sample_chunk(number)
        assert shard.section(chunk.section_id) == section_of(chunk)
    assert shard.section("https://docs.example.org/") is None
    assert shard.section("zzz") is None


def test_an_empty_shard_opens_and_finds_nothing(tmp_path):
    shard = open_shard(make(tmp_path, count=0), tmp_path)
    scores, rows = shard.search(random_vectors(2), 5)
    assert scores.shape == rows.shape == (2, 0)
    assert (len(shard), shard.page_count, shard.section("any")) == (0, 0, None)


def test_search_returns_no_more_rows_than_there_are_and_takes_no_queries(tmp_path):
    shard = open_shard(make(tmp_path), tmp_path)
    scores, rows = shard.search(random_vectors(3), 100)
    assert scores.shape == rows.shape == (3, 30)
    assert sorted(rows[0]) == list(range(30))
    assert shard.search(random_vectors(0), 5)[0].shape == (0, 5)


@pytest.mark.parametrize("dim", [3, 8, 64, 384])
def test_a_score_is_bit_equal_whatever_shares_its_shard_and_its_call(tmp_path, dim):
    count, queries = 600, random_vectors(400, dim, seed=1)  # 400 × 384 is above the limit where FAISS turns to BLAS
    whole = open_shard(make(tmp_path, count, dim), tmp_path)
    one_by_one = np.vstack([all_scores(whole, query[np.newaxis]) for query in queries])
    np.testing.assert_array_equal(all_scores(whole, queries), one_by_one)
    column = {chunk_id: row for row, chunk_id in enumerate(whole.chunk_ids)}
    for part in np.array_split(np.random.default_rng(2).permutation(count), 7):
        shard = open_shard(make(tmp_path, count, dim, order=part), tmp_path)
        rows = [column[chunk_id] for chunk_id in shard.chunk_ids]
        np.testing.assert_array_equal(all_scores(shard, queries), one_by_one[:, rows])
        np.testing.assert_array_equal(shard.index.scores(queries[5]), one_by_one[5, rows])
        few = np.arange(0, len(shard), 3)
        np.testing.assert_array_equal(shard.index.scores(queries[5], few), one_by_one[5, rows][few])


def test_concurrent_searches_give_what_one_after_another_give(tmp_path):
    shard = open_shard(make(tmp_path), tmp_path)
    queries = random_vectors(64, seed=3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: shard.search(query[np.newaxis], 5)[1], queries))
    np.testing.assert_array_equal(np.vstack(found), shard.search(queries, 5)[1])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (random_vectors(3), "3 vectors for 2 chunks"),
        (random_vectors(2) * 2, "row 0 has length 2,"),
        (np.zeros((2, DIM), np.float32), "row 0 has length 0,"),
        (np.full((2, DIM), np.nan, np.float32), "row 0 has length nan"),
        (random_vectors(2).astype(np.float64), r"float64 \(2, 24\)"),
        (random_vectors(2)[0], r"float32 \(24,\)"),
    ],
)
def test_vectors_that_do_not_fit_are_refused_by_name(tmp_path, vectors, message):
    chunks = [sample_chunk(0), sample_chunk(1)]
    with pytest.raises(ValueError, match=message):
        write_shard("0", chunks_to_table(chunks), vectors, sections_to_table([]), pages_to_table([]), tmp_path)


def test_queries_of_another_dimension_are_refused(tmp_path):
    shard = open_shard(make(tmp_path), tmp_path)
    with pytest.raises(ValueError, match=r"\(1, 5\), expected \(q, 24\)"):
        shard.search(random_vectors(1, 5), 1)


@pytest.mark.parametrize("role", ["index", "chunks", "sections"])
def test_a_missing_cut_or_changed_object_is_found_on_opening(tmp_path, role):
    shard = make(tmp_path)
    path = tmp_path / shard.objects[role].sha256
    content = path.read_bytes()
    for damaged, message in [(content[:-1], "bytes"), (content[:-1] + bytes([content[-1] ^ 1]), "found")]:
        path.write_bytes(damaged)
        with pytest.raises(SnapshotCorrupt, match=message):
            open_shard(shard, tmp_path)
    path.unlink()
    with pytest.raises(SnapshotCorrupt, match=f"{path.name}: found No such file"):
        open_shard(shard, tmp_path, verify=False)


@pytest.mark.parametrize(
    ("role", "other_role"), [("index", "chunks"), ("chunks", "index"), ("chunks", "sections"), ("sections", "chunks")]
)
def test_a_file_of_another_kind_is_found_even_when_its_checksum_fits(tmp_path, role, other_role):
    shard = make(tmp_path)
    other = shard.objects[other_role]
    with pytest.raises(SnapshotCorrupt, match=other.sha256):
        open_shard(replace(shard, objects={**shard.objects, role: other}), tmp_path)


def test_a_shard_whose_counts_or_roles_do_not_fit_its_files_is_corrupt(tmp_path):
    shard = make(tmp_path)
    for wrong in (
        replace(shard, chunk_count=29),
        replace(shard, section_count=31),
        replace(shard, dim=DIM + 1),
        replace(shard, objects={"index": shard.objects["index"]}),
    ):
        with pytest.raises(SnapshotCorrupt):
            open_shard(wrong, tmp_path)


def test_an_unreadable_object_is_corrupt_and_not_a_foreign_error(tmp_path):
    shard = make(tmp_path)
    (tmp_path / "folder").mkdir()
    size = (tmp_path / "folder").stat().st_size
    folder = StoredObject(sha256="folder", bytes=size)
    with pytest.raises(SnapshotCorrupt, match="directory"):
        open_shard(replace(shard, objects={**shard.objects, "chunks": folder}), tmp_path)


def test_writing_again_heals_a_damaged_object(tmp_path):
    shard = make(tmp_path)
    path = tmp_path / shard.objects["chunks"].sha256
    path.write_bytes(b"damaged")
    assert make(tmp_path) == shard
    assert len(open_shard(shard, tmp_path)) == 30
