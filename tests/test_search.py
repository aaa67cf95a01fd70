import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydex.embed import HashEmbedder
from raydex.errors import SnapshotIncompatible
from raydex.records import Hit, StageTimes
from raydex.search import Searcher, merge_hits
from raydex.shard import open_shard, write_shard
from raydex.snapshot import open_snapshot
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table
from tests.samples import normalised, sample_chunk, section_of, write_snapshot

FEW_NUMBERS = st.lists(st.integers(-1, 1), min_size=3, max_size=3).filter(any)  # 26 vectors: ties everywhere


def searcher_over(index_dir, chunks, vectors, shards, index="docs"):
    manifest = write_snapshot(index_dir, chunks, vectors, shards=shards)
    return Searcher(index, open_snapshot(index_dir, manifest.snapshot_id))


def brute_force(chunks, vectors, query):
    """(score, chunk_id) of all chunks, best first, by numpy: exact order of scores that one kernel computed."""
    with tempfile.TemporaryDirectory() as folder:
        none = sections_to_table([])
        written = write_shard("0", chunks_to_table(chunks), vectors, none, pages_to_table([]), Path(folder))
        shard = open_shard(written, Path(folder))
        scores, rows = shard.search(query[np.newaxis], len(chunks))
    exact = dict(zip((chunk.chunk_id for chunk in chunks), vectors.astype(np.float64) @ query, strict=True))
    pairs = [(float(np.clip(s, -1, 1)), shard.chunk_ids[r]) for s, r in zip(scores[0], rows[0], strict=True)]
    assert all(score == pytest.approx(exact[chunk_id], abs=1e-6) for score, chunk_id in pairs)
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))


def ranking(hits):
    return [(hit.score, hit.chunk.chunk_id) for hit in hits]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(FEW_NUMBERS, min_size=1, max_size=40),
    query=FEW_NUMBERS,
    k=st.integers(1, 45),
    offset=st.integers(0, 12),
)
def test_search_over_any_number_of_shards_equals_brute_force_ties_included(rows, query, k, offset):
    chunks = [sample_chunk(number) for number in range(len(rows))]
    vectors, queries = normalised(rows), normalised([query])
    expected = brute_force(chunks, vectors, queries[0])[offset : offset + k]
    for shards in (1, 4, 7):
        with tempfile.TemporaryDirectory() as folder:
            hits = searcher_over(Path(folder), chunks, vectors, shards).search(queries, k=k, offset=offset)[0]
        assert ranking(hits) == expected
        assert [hit.rank for hit in hits] == list(range(offset + 1, offset + 1 + len(expected)))


def test_search_over_four_and_seven_shards_equals_one_on_many_random_vectors(tmp_path):
    random = np.random.default_rng(5)
    vectors = normalised(random.normal(size=(700, 48)))
    vectors[random.integers(0, 700, 300)] = vectors[random.integers(0, 20, 300)]  # duplicates
    chunks = [sample_chunk(number) for number in range(700)]
    queries = np.concatenate([vectors[:20], normalised(random.normal(size=(20, 48)))])
    whole = [ranking(hits) for hits in searcher_over(tmp_path / "1", chunks, vectors, 1).search(queries, k=25)]
    assert whole[25] == brute_force(chunks, vectors, queries[25])[:25]
    for shards in (4, 7):
        searcher = searcher_over(tmp_path / str(shards), chunks, vectors, shards)
        assert [ranking(hits) for hits in searcher.search(queries, k=25)] == whole
        assert [ranking(searcher.search(query[np.newaxis], k=25)[0]) for query in queries] == whole


def test_identical_chunks_are_ordered_by_id_however_few_are_wanted(tmp_path):
    chunks = [sample_chunk(number) for number in range(200)]
    vectors = normalised(np.ones((200, 8)))
    hits = searcher_over(tmp_path, chunks, vectors, 3).search(vectors[:1], k=3)[0]
    assert [hit.chunk for hit in hits] == sorted(chunks, key=lambda chunk: chunk.chunk_id)[:3]


def test_pages_follow_each_other_without_gap_or_repetition(tmp_path):
    chunks = [sample_chunk(number) for number in range(23)]
    vectors = normalised(np.random.default_rng(1).integers(1, 3, size=(23, 4)))
    searcher = searcher_over(tmp_path, chunks, vectors, 4)
    pages = [searcher.search(vectors[:1], k=5, offset=offset)[0] for offset in range(0, 30, 5)]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3, 0]
    assert [hit for page in pages for hit in page] == searcher.search(vectors[:1], k=100)[0]


def test_scores_are_clamped_to_one_and_chunks_beyond_it_tie(tmp_path):
    random = np.random.default_rng(2)
    vectors = normalised(np.repeat(normalised(random.normal(size=(1, 384))), 9, axis=0) * random.uniform(1, 9, (9, 1)))
    searcher = searcher_over(tmp_path, [sample_chunk(number) for number in range(9)], vectors, 2)
    for hits in searcher.search(np.concatenate([vectors, -vectors]), k=9):
        assert all(-1 <= hit.score <= 1 for hit in hits)
        assert ranking(hits) == sorted(ranking(hits), key=lambda pair: (-pair[0], pair[1]))


def test_an_empty_snapshot_has_no_hits(tmp_path):
    searcher = searcher_over(tmp_path, [], np.empty((0, 4), np.float32), 3)
    assert searcher.search(normalised(np.ones((2, 4))), k=5) == [[], []]
    assert searcher_over(tmp_path / "none", [], np.empty((0, 4), np.float32), 0).search(
        normalised(np.ones((1, 4))), k=5
    ) == [[]]


def test_no_queries_give_no_rankings(tmp_path):
    searcher = searcher_over(tmp_path, [sample_chunk(0)], normalised(np.ones((1, 4))), 1)
    assert searcher.search(np.empty((0, 4), np.float32), k=5) == []


def test_hits_of_words_are_the_chunks_with_these_words(tmp_path):
    texts = ["scale replicas up", "bake bread slowly", "replicas restart when they fail"]
    chunks = [sample_chunk(number, text) for number, text in enumerate(texts)]
    embedder = HashEmbedder()
    searcher = searcher_over(tmp_path, chunks, embedder.embed_passages(texts), 2)
    hits = searcher.search(embedder.embed_queries(["bake bread"]), k=1)[0]
    assert hits == [Hit(rank=1, score=hits[0].score, index="docs", chunk=chunks[1])]
    assert searcher.section(chunks[2].section_id) == section_of(chunks[2])
    assert searcher.section("https://docs.example.org/none") is None


def test_queries_that_do_not_fit_are_refused(tmp_path):
    searcher = searcher_over(tmp_path, [sample_chunk(0)], normalised(np.ones((1, 4))), 1)
    with pytest.raises(SnapshotIncompatible, match=r"index docs: the shape .* is \(1, 5\), expected \(q, 4\)"):
        searcher.search(normalised(np.ones((1, 5))), k=1)
    with pytest.raises(ValueError, match="NaN"):
        searcher.search(np.full((1, 4), np.nan, np.float32), k=1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        searcher.search(normalised(np.ones((1, 4))), k=0)


def test_search_reports_the_seconds_of_its_stages(tmp_path):
    times = StageTimes()
    searcher = searcher_over(tmp_path, [sample_chunk(0)], normalised(np.ones((1, 4))), 1)
    searcher.search(normalised(np.ones((1, 4))), k=1, times=times)
    assert list(times.seconds) == ["scan", "merge"]
    assert all(seconds > 0 for seconds in times.seconds.values())


def test_concurrent_searches_are_right(tmp_path):
    vectors = normalised(np.random.default_rng(4).normal(size=(90, 16)))
    searcher = searcher_over(tmp_path, [sample_chunk(number) for number in range(90)], vectors, 4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda vector: searcher.search(vector[np.newaxis], k=10)[0], vectors))
    assert found == searcher.search(vectors, k=10)


def test_hits_of_several_indexes_merge_into_one_ranking(tmp_path):
    chunks = [sample_chunk(number) for number in range(30)]
    vectors = normalised(np.random.default_rng(6).integers(1, 3, size=(30, 4)))
    whole = searcher_over(tmp_path / "whole", chunks, vectors, 1).search(vectors[:1], k=7, offset=4)[0]
    halves = [
        searcher_over(tmp_path / name, chunks[part], vectors[part], 2, index=name).search(vectors[:1], k=11)[0]
        for name, part in (("first", slice(0, 13)), ("second", slice(13, 30)))
    ]
    merged = merge_hits(halves, k=7, offset=4)
    assert ranking(merged) == ranking(whole)
    assert [hit.rank for hit in merged] == [5, 6, 7, 8, 9, 10, 11]
    assert {hit.index for hit in merged} == {"first", "second"}
    assert merge_hits([], k=3) == []


def test_a_chunk_that_two_indexes_hold_comes_from_both_in_the_order_of_their_names(tmp_path):
    vectors = normalised(np.ones((1, 4)))
    rankings = [searcher_over(tmp_path / n, [sample_chunk(0)], vectors, 1, n).search(vectors, k=1)[0] for n in "ba"]
    assert [(hit.rank, hit.index) for hit in merge_hits(rankings, k=2)] == [(1, "a"), (2, "b")]
