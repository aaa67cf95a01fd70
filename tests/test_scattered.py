"""A snapshot whose shards are in groups is searched as if they were in one process; what a lost group means."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

import pytest

from raydex.embed import HashEmbedder
from raydex.errors import ShardsLost
from raydex.records import Filters, Query
from raydex.search import Group, Scattered, Searcher, SnapshotKey, split
from raydex.snapshot import open_snapshot
from tests.snapshots import make_snapshot

SITE = "https://docs.example.org/3/"
TOPICS = ("thread", "folder", "socket", "date", "file", "path", "signal", "queue")
TEXTS = {
    f"{SITE}{'library' if page % 2 else 'howto'}/{topic}{page}.html#{topic}.{verb}": (
        f"{verb} a {topic}, then {TOPICS[(page + len(verb)) % 8]} {page % 5} again and close the {topic}."
    )
    for page in range(12)
    for topic in TOPICS
    for verb in ("open", "read", "walk")
}
COPIES = {f"{SITE}old/{number}.html#same": "The very same words stand on several pages." for number in range(6)}
MANY = {
    f"{SITE}many/{number}.html#part": f"Part {number} of {TOPICS[number % 8]} {number % 97} and {number % 31} more."
    for number in range(1500)
}
QUERIES = (
    Query(text="open a thread"),
    Query(text="how do I read a file and walk a folder again?", k=30),
    Query(text="thread.walk", explain=True),
    Query(text="signal", k=100, offset=7),
    Query(text="the very same words on several pages", group_by="none", k=9),
    Query(text="the very same words on several pages"),
    Query(text="close the socket", group_by="page", k=5, facets=True),
    Query(text='"then queue" -thread', k=20),
    Query(text='"words that stand nowhere" date', k=20),
    Query(text="open a file", filters=Filters(paths=("/3/howto",)), facets=True),
    Query(text='"walk a date"', filters=Filters(paths=("/3/library",)), k=50),
    Query(text="nonsenseword"),
)


class LocalGroups:
    """Groups in this process, of which some do not answer. asked: what, with those that were asked."""

    def __init__(self, groups: Mapping[int, Group]) -> None:
        self.groups, self.lost, self.asked = groups, set(), []

    def ask(self, key, method, arguments, within_s):
        self.asked.append((method, sorted(arguments)))
        return {
            number: getattr(self.groups[number], method)(*of)
            for number, of in arguments.items()
            if self.has(number, method)
        }

    def has(self, number, method):
        return (number, method) not in self.lost and number not in self.lost


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    index_dir = tmp_path_factory.mktemp("data") / "docs"
    make_snapshot(index_dir, TEXTS | COPIES, HashEmbedder(), shards=7)
    return open_snapshot(index_dir)


@pytest.fixture(scope="module")
def whole(snapshot):
    return Searcher("docs", snapshot)


def scattered(snapshot, count):
    """Return a searcher over so many groups, and the groups."""
    parts = split(snapshot.manifest, count)
    opened = {shard.shard.shard_id: shard for shard in snapshot.shards}
    groups = LocalGroups(
        {
            number: Group("docs", replace(snapshot, shards=[opened[shard.shard_id] for shard in part], lexical=None))
            for number, part in enumerate(parts)
            if part
        }
    )
    key = SnapshotKey("docs", snapshot.manifest.snapshot_id)
    holdings = Scattered(key, snapshot.manifest, groups, count=count, timeout_s=1)
    return Searcher("docs", replace(snapshot, shards=[]), holdings), groups


def find(searcher, query):
    (vector,) = HashEmbedder().embed_queries([query.text])
    return searcher.find(query, vector)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_groups_answer_to_the_last_bit_what_one_process_answers(snapshot, whole, count, mode):
    searcher, _ = scattered(snapshot, count)
    for query in QUERIES:
        asked = replace(query, mode=mode)
        assert find(searcher, asked) == find(whole, asked)


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_groups_of_a_coarse_index_answer_to_the_last_bit_what_one_process_answers(tmp_path, kind):
    make_snapshot(tmp_path / "docs", MANY, HashEmbedder(), shards=5, kind=kind)
    snapshot = open_snapshot(tmp_path / "docs")
    assert {shard.index_kind for shard in snapshot.manifest.shards} == {kind}
    searcher, _ = scattered(snapshot, 3)
    for query in QUERIES:
        assert find(searcher, query) == find(Searcher("docs", snapshot), query)


def test_an_answer_takes_two_rounds_and_the_second_asks_only_those_that_have_the_best(snapshot):
    searcher, groups = scattered(snapshot, 7)
    found = find(searcher, Query(text="open a thread", k=1))
    assert [method for method, _ in groups.asked] == ["look", "chunks"]
    assert groups.asked[0][1] == list(range(7))
    assert found.shards == (7, 7)


def test_without_a_group_the_answer_is_that_of_the_others_and_says_so(snapshot, whole):
    searcher, groups = scattered(snapshot, 3)
    groups.lost = {1}
    lost = {url for shard in split(snapshot.manifest, 3)[1] for url in urls_of(snapshot, shard)}
    for query in (Query(text="open a thread", k=200), Query(text="thread.walk", k=200)):
        found = find(searcher, query)
        shards = len(snapshot.shards)
        assert found.shards == (shards - len(split(snapshot.manifest, 3)[1]), shards)
        assert found.is_partial
        assert found.hits
        assert {hit.chunk.url for hit in found.hits}.isdisjoint(lost)
        for hit in found.hits:
            assert hit.scores["dense"] == dense_scores(whole, query.text)[hit.chunk.chunk_id]


def test_a_group_that_is_lost_between_the_rounds_is_left_out_whole(snapshot):
    searcher, groups = scattered(snapshot, 3)
    groups.lost = {1}
    without = find(searcher, Query(text="open a thread", k=40))
    groups.lost = {(1, "chunks")}
    assert find(searcher, Query(text="open a thread", k=40)) == without


def test_a_group_that_did_not_answer_is_not_asked_again_for_the_same_query(snapshot):
    searcher, groups = scattered(snapshot, 3)
    groups.lost = {1}
    find(searcher, Query(text="open a thread", k=40))
    assert all(1 not in asked for _, asked in groups.asked[1:])


def test_with_no_group_left_there_is_no_answer_rather_than_an_empty_one(snapshot):
    searcher, groups = scattered(snapshot, 3)
    groups.lost = {0, 1, 2}
    with pytest.raises(ShardsLost, match="0 of 7 shards"):
        find(searcher, Query(text="open a thread"))


def test_a_section_is_found_wherever_it_is_and_not_denied_while_a_group_is_lost(snapshot, whole):
    searcher, groups = scattered(snapshot, 3)
    for section_id in TEXTS:
        assert searcher.section(section_id) == whole.section(section_id)
    assert searcher.section("https://docs.example.org/none") is None
    groups.lost = {0}
    with pytest.raises(ShardsLost):
        searcher.section("https://docs.example.org/none")


def test_suggestions_lead_where_they_do_in_one_process_and_nowhere_while_a_group_is_lost(snapshot, whole):
    searcher, groups = scattered(snapshot, 3)
    assert searcher.suggest("thread", 20) == whole.suggest("thread", 20)
    groups.lost = {0, 1, 2}
    assert {url for _, url in searcher.suggest("thread", 20)} == {""}


def test_groups_have_about_the_same_number_of_chunks_each_shard_once_and_in_order(snapshot):
    parts = split(snapshot.manifest, 3)
    assert [shard for part in parts for shard in part] == list(snapshot.manifest.shards)
    sizes = [sum(shard.chunk_count for shard in part) for part in parts]
    assert max(sizes) - min(sizes) <= max(shard.chunk_count for shard in snapshot.manifest.shards)
    assert len(split(snapshot.manifest, 20)) == 20


def test_a_group_is_waited_for_no_longer_than_the_request_lasts(snapshot):
    searcher, groups = scattered(snapshot, 2)
    seconds = []
    answer = groups.ask
    groups.ask = lambda key, method, arguments, within_s: (
        seconds.append(within_s) or answer(key, method, arguments, within_s)
    )
    (vector,) = HashEmbedder().embed_queries(["open"])
    searcher.find(Query(text="open"), vector, seconds_left=lambda: 0.25)
    searcher.find(Query(text="open"), vector, seconds_left=lambda: inf)
    assert seconds == [0.25, 0.25, 1, 1]


def urls_of(snapshot, shard):
    opened = next(one for one in snapshot.shards if one.shard.shard_id == shard.shard_id)
    return opened.chunks["url"].to_pylist()


def dense_scores(whole, text):
    query = Query(text=text, mode="dense", k=400, group_by="none")
    return {hit.chunk.chunk_id: hit.scores["dense"] for hit in find(whole, query).hits}
