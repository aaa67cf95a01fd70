"""Index kinds: streamed files are those of FAISS, scores are exact, recall is measured and kept."""

import json
from dataclasses import replace

import faiss
import numpy as np
import pytest

from raydex.ann import (
    REFINE,
    as_queries,
    best_rows,
    joined,
    open_index,
    recall_by_refine,
    write_coarse,
    write_flat,
)
from raydex.errors import SnapshotCorrupt
from raydex.search import DenseSearcher
from raydex.shard import open_shard, read_rows, write_shard
from raydex.snapshot import Snapshot, open_snapshot, recall_failures, verify
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table
from tests.samples import normalised, page_of, sample_chunk, section_of, write_snapshot
from utils.files import write_by_checksum

DIM = 64
COARSE = [kind for kind, factors in REFINE.items() if factors]


def clustered(count, seed=1):
    """Vectors in groups, as those of texts are; RaBitQ ranks unrelated random ones badly."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, DIM))
    return normalised(centres[rng.integers(40, size=count)] + rng.normal(size=(count, DIM)) * 0.8)


def make(folder, vectors, kind, least_recall=None):
    chunks = [sample_chunk(number) for number in range(len(vectors))]
    more = {} if least_recall is None else {"least_recall": least_recall}
    return write_shard(
        "00000",
        chunks_to_table(chunks),
        vectors,
        sections_to_table([section_of(chunk) for chunk in chunks]),
        pages_to_table([page_of(chunk) for chunk in chunks]),
        folder,
        kind=kind,
        **more,
    )


def test_a_flat_index_written_block_by_block_has_the_bytes_that_faiss_writes(tmp_path):
    vectors = clustered(1000)
    whole = faiss.IndexFlatIP(DIM)
    whole.add(vectors)
    with write_by_checksum(tmp_path) as out:
        write_flat(out, DIM, len(vectors), (vectors[first : first + 300] for first in range(0, 1000, 300)))
    assert (tmp_path / out.sha256).read_bytes() == faiss.serialize_index(whole).tobytes()


def test_a_half_precision_index_written_block_by_block_has_the_bytes_that_faiss_writes(tmp_path):
    vectors = clustered(1000)
    whole = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    whole.add(vectors)
    with write_by_checksum(tmp_path) as out:
        write_coarse(out, "fp16", vectors)
    assert (tmp_path / out.sha256).read_bytes() == faiss.serialize_index(whole).tobytes()


def test_an_index_of_bytes_written_block_by_block_has_the_bytes_that_faiss_writes(tmp_path):
    vectors = clustered(1000)
    whole = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT)
    whole.train(vectors)
    whole.add(vectors)
    with write_by_checksum(tmp_path) as out:
        write_coarse(out, "int8", vectors)
    assert (tmp_path / out.sha256).read_bytes() == faiss.serialize_index(whole).tobytes()


@pytest.mark.parametrize("kind", ["fp16", "int8"])
@pytest.mark.parametrize("count", [3, 700, 5000])
def test_a_kind_with_a_known_error_ranks_as_exact_search_does_ties_included(tmp_path, kind, count):
    """However near the scores are to each other, which is where a coarse form cannot tell them apart."""
    rng = np.random.default_rng(count)
    near = normalised(clustered(1) + rng.normal(size=(count, DIM)) * 10.0 ** rng.uniform(-6, 0, size=(count, 1)))
    near[rng.integers(count, size=count // 3)] = near[0]
    chunks = [sample_chunk(number) for number in range(count)]
    snapshots = []
    for name, shards in (("flat", 1), (kind, 3)):
        written = write_snapshot(tmp_path / name, chunks, near, shards=shards, kind=name)
        snapshots.append(open_snapshot(tmp_path / name, written.snapshot_id))
    exact, coarse = (DenseSearcher("docs", snapshot) for snapshot in snapshots)
    assert kind in {shard.shard.index_kind for shard in snapshots[1].shards}  # one that finds too little is flat
    for query in np.concatenate([near[:3], as_queries(near[:20])]):
        for wanted in (1, 10, 200):
            ranked = [
                [(score, of.chunk_id(row)) for score, row in zip(*(part.tolist() for part in found), strict=True)]
                for of in (exact, coarse)
                for found in [of.rank(query, wanted)]
            ]
            assert ranked[0] == ranked[1]
            assert len(ranked[0]) == min(wanted, count)


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_coarse_score_is_not_off_by_more_than_the_index_says(tmp_path, kind):
    shard = open_shard(make(tmp_path, clustered(3000), kind), tmp_path)
    for query in as_queries(clustered(20, seed=4)):
        coarse, rows = shard.index.near(query, 3000)
        error = np.abs(coarse - shard.index.scores(query, rows)).max()
        assert 0 < error <= shard.index.slack(query)


@pytest.mark.parametrize("dim", [4, 10, 64, 384])
def test_joined_bytes_are_not_off_by_more_than_they_say_and_their_scores_are_exact(tmp_path, dim):
    rng, indexes, parts = np.random.default_rng(dim), [], []
    for count in (700, 0, 300):
        vectors = normalised(rng.normal(size=(count, dim))) if count else np.empty((0, dim), np.float32)
        with write_by_checksum(tmp_path) as whole:
            write_flat(whole, dim, count, [vectors])
        with write_by_checksum(tmp_path) as coarse:
            write_coarse(coarse, "int8", vectors)
        indexes.append(open_index(tmp_path / whole.sha256, tmp_path / coarse.sha256))
        parts.append(vectors)
    [as_one] = joined(indexes)
    for query in as_queries(np.concatenate(parts)[::50]):
        near, rows = as_one.near(query, 1000)
        order = np.argsort(rows)
        exact = as_one.scores(query, rows[order])
        alone = [index.scores(query) for index in indexes]
        assert (rows[order] == np.arange(1000)).all()
        assert exact.tobytes() == np.concatenate(alone).tobytes()
        assert 0 < np.abs(near[order] - exact).max() <= as_one.slack(query)


def test_bytes_of_too_many_rows_or_beside_another_kind_are_not_joined(tmp_path, monkeypatch):
    bytes_, halves = (open_shard(make(tmp_path, clustered(500), kind), tmp_path).index for kind in ("int8", "fp16"))
    assert len(joined([bytes_, bytes_])) == 1
    assert joined([bytes_, halves]) == [bytes_, halves]
    monkeypatch.setattr("raydex.ann.MOST_JOINED_ROWS", 999)
    assert joined([bytes_, bytes_]) == [bytes_, bytes_]


@pytest.mark.parametrize("kind", COARSE)
def test_the_same_vectors_give_the_same_shard_whatever_the_kind(tmp_path, kind):
    assert make(tmp_path / "a", clustered(3000), kind) == make(tmp_path / "b", clustered(3000), kind)


@pytest.mark.parametrize("kind", COARSE)
def test_an_index_that_is_not_exact_finds_the_best_rows_and_gives_them_their_exact_scores(tmp_path, kind):
    vectors = clustered(5000)
    exact, shard = make(tmp_path, vectors, "flat"), make(tmp_path, vectors, kind)
    assert shard.index_kind == kind
    assert shard.recall >= 0.99
    assert shard.objects["vectors"] == exact.objects["index"]  # one file for both
    queries = as_queries(clustered(50, seed=9))
    true_scores, true_rows = open_shard(exact, tmp_path).search(queries, 5000)
    scores, rows = open_shard(shard, tmp_path).search(queries, 10)
    found = sum(len({*mine} & {*best[:10]}) for mine, best in zip(rows, true_rows, strict=True))
    assert found >= 0.98 * 500
    of_row = np.empty_like(true_scores)
    np.put_along_axis(of_row, true_rows, true_scores, axis=1)
    np.testing.assert_array_equal(scores, np.take_along_axis(of_row, rows, axis=1))


@pytest.mark.parametrize("kind", COARSE)
def test_everything_can_be_asked_of_an_index_that_is_not_exact(tmp_path, kind):
    shard = open_shard(make(tmp_path, clustered(300), kind), tmp_path)
    scores, rows = shard.search(clustered(3, seed=2), 1000)
    assert sorted(rows[0]) == list(range(300))
    assert (np.diff(scores, axis=1) <= 0).all()


def test_an_index_that_finds_too_little_gets_more_candidates_and_then_becomes_exact(tmp_path):
    vectors = normalised(np.random.default_rng(3).normal(size=(20_000, DIM)))  # the worst case: nothing is near
    whole = make(tmp_path, vectors, "flat")
    lenient, strict = make(tmp_path, vectors, "rabitq", 0.5), make(tmp_path, vectors, "rabitq", 0.95)
    assert lenient.refine < strict.refine
    assert lenient.recall < strict.recall
    assert make(tmp_path, vectors, "rabitq", 1.01) == whole


def test_measured_recall_is_the_share_of_the_best_rows_among_the_candidates(tmp_path):
    vectors = clustered(4000)
    shard = make(tmp_path, vectors, "rabitq")
    whole, coarse = (tmp_path / shard.objects[role].sha256 for role in ("vectors", "index"))
    index = open_index(whole, coarse, refine=10)
    queries = as_queries(clustered(20, seed=5))
    scores, _ = best_rows(index.vectors, queries)
    by_hand = []
    for factor in REFINE["rabitq"]:
        rows = index.candidates(queries, 10 * factor)
        best = np.argsort(-(queries @ index.vectors.T), axis=1)[:, :10]
        by_hand.append(np.mean([len({*mine} & {*true}) / 10 for mine, true in zip(rows, best, strict=True)]))
    assert list(recall_by_refine(index, "rabitq", queries, scores).values()) == pytest.approx(by_hand)


def test_rows_of_a_shard_that_is_not_exact_are_read_back_whole(tmp_path):
    vectors = clustered(200)
    shard = make(tmp_path, vectors, "rabitq")
    chunks, found, sections, pages = read_rows(shard, tmp_path)
    of_chunk = {sample_chunk(number).chunk_id: vectors[number] for number in range(200)}
    np.testing.assert_array_equal(found, [of_chunk[chunk_id] for chunk_id in chunks["chunk_id"].to_pylist()])
    assert write_shard("00000", chunks, found, sections, pages, tmp_path, kind="rabitq") == shard


def test_an_empty_shard_is_exact_and_opens(tmp_path):
    shard = make(tmp_path, np.empty((0, DIM), np.float32), "rabitq")
    assert (shard.index_kind, shard.recall) == ("flat", 1.0)
    assert open_shard(shard, tmp_path).search(clustered(2), 5)[0].shape == (2, 0)


def test_a_shard_that_is_not_exact_needs_its_whole_vectors(tmp_path):
    shard = make(tmp_path, clustered(200), "fp16")
    (tmp_path / shard.objects["vectors"].sha256).unlink()
    with pytest.raises(SnapshotCorrupt, match=shard.objects["vectors"].sha256):
        open_shard(shard, tmp_path)
    del shard.objects["vectors"]
    with pytest.raises(SnapshotCorrupt, match="'vectors'"):
        open_shard(shard, tmp_path)


@pytest.mark.parametrize("kind", COARSE)
def test_a_snapshot_of_any_kind_is_verified_opened_and_searched(tmp_path, kind):
    vectors = clustered(2000)
    chunks = [sample_chunk(number) for number in range(2000)]
    exact = write_snapshot(tmp_path / "flat", chunks, vectors, shards=1)
    coarse = write_snapshot(tmp_path / kind, chunks, vectors, shards=3, kind=kind)
    assert coarse.content_digest == exact.content_digest
    assert verify(tmp_path / kind, coarse.snapshot_id) == []
    queries = as_queries(clustered(20, seed=7))

    def hits(snapshot: Snapshot):
        found = DenseSearcher("docs", snapshot).search(queries, k=10)
        return [[(hit.score, hit.chunk.chunk_id) for hit in of_query] for of_query in found]

    whole = hits(open_snapshot(tmp_path / "flat", exact.snapshot_id))
    parts = hits(open_snapshot(tmp_path / kind, coarse.snapshot_id))
    assert sum(len({*a} & {*b}) for a, b in zip(whole, parts, strict=True)) >= 0.98 * 200


def test_shards_and_snapshots_that_find_too_little_are_named(tmp_path):
    manifest = write_snapshot(tmp_path, [sample_chunk(number) for number in range(9)], clustered(9), shards=2)
    assert recall_failures(manifest, 0.99) == []
    worse = replace(manifest, shards=(manifest.shards[0], replace(manifest.shards[1], recall=0.9)), ann_recall=0.95)
    shard, whole = recall_failures(worse, 0.99)
    assert "shard 00001" in shard
    assert "90.00%" in shard
    assert "95.00%" in whole
    assert recall_failures(worse, 0.9) == []


def test_a_manifest_from_before_index_kinds_is_read_as_exact(tmp_path):
    manifest = write_snapshot(tmp_path, [sample_chunk(number) for number in range(9)], clustered(9))
    path = tmp_path / "snapshots" / manifest.snapshot_id / "manifest.json"
    fields = json.loads(path.read_bytes())
    del fields["ann_recall"]
    for shard in fields["shards"]:
        del shard["refine"], shard["recall"]
    path.write_text(json.dumps(fields))
    assert open_snapshot(tmp_path, manifest.snapshot_id).manifest == manifest
    assert verify(tmp_path, manifest.snapshot_id) == []
