"""The corpus that benches grow: as large as asked for, and a snapshot like any other."""

from bench.grown import bytes_of
from bench.serve_large import grow
from raydex.embed import HashEmbedder
from raydex.records import Query
from raydex.search import Searcher
from raydex.snapshot import current_id, open_snapshot, verify
from tests.machines import TEXTS
from tests.snapshots import make_snapshot

COUNT = 3 * len(TEXTS) + 1


def test_a_grown_index_has_as_many_chunks_as_were_asked_for_and_is_one_like_any_other(tmp_path):
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    grow(tmp_path / "grown", COUNT, tmp_path / "docs")
    assert verify(tmp_path / "grown", current_id(tmp_path / "grown")) == []
    snapshot = open_snapshot(tmp_path / "grown")
    assert sum(map(len, snapshot.shards)) == snapshot.manifest.counts["chunks"] == COUNT
    parts = bytes_of(snapshot.manifest)
    assert parts["vectors"] >= 4 * HashEmbedder().info.dim
    assert parts["all"] > sum(size for part, size in parts.items() if part != "all") - 1
    url, text = next(iter(TEXTS.items()))
    found = Searcher("grown", snapshot).find(Query(text=text, k=1), HashEmbedder().embed_queries([text])[0])
    assert found.hits[0].chunk.url.rsplit("/", 1)[-1] == url.rsplit("/", 1)[-1]
