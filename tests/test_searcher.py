"""Hybrid search over a real snapshot with a lexical index; vectors by HashEmbedder, which knows words, not meaning."""

from dataclasses import replace

import numpy as np
import pytest

from raydex.embed import HashEmbedder
from raydex.errors import QueryError
from raydex.records import Filters, Query
from raydex.search import Searcher, merge_found
from raydex.snapshot import open_snapshot
from tests.snapshots import make_snapshot

SITE = "https://docs.example.org/3/"
TEXTS = {
    f"{SITE}library/os.html#os.path.join": "Join one or more path segments intelligently; see also os.path.split.",
    f"{SITE}library/os.html#walk": "Walk a folder tree from the top and list every file in it.",
    f"{SITE}library/threads.html#join": "Wait until the thread ends. A thread may be joined many times.",
    f"{SITE}howto/threads.html#start": "Start a thread for every folder and join them in the end.",
    f"{SITE}howto/old.html#start": "Start a thread for every folder and join them in the end!",
    f"{SITE}library-old/os.html#walk": "An older way to walk a folder tree.",
}


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    index_dir = tmp_path_factory.mktemp("data") / "docs"
    make_snapshot(index_dir, TEXTS, HashEmbedder())
    return Searcher("docs", open_snapshot(index_dir))


def find(searcher, text, **options):
    (vector,) = HashEmbedder().embed_queries([text])
    return searcher.find(Query(text=text, **options), vector)


def anchors(found):
    return [hit.chunk.url.removeprefix(SITE) for hit in found.hits]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_every_mode_finds_the_passage_and_says_its_scores(searcher, mode):
    found = find(searcher, "walk a folder tree from the top", mode=mode)
    assert anchors(found)[0] == "library/os.html#walk"
    assert [hit.rank for hit in found.hits] == list(range(1, len(found.hits) + 1))
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    expected = {"hybrid": {"dense", "lexical"}, "dense": {"dense"}, "lexical": {"lexical"}}[mode]
    assert set(found.hits[0].scores) == expected
    assert (found.confidence is not None) == (mode == "hybrid")


def test_hybrid_says_of_a_passage_what_the_legs_say(searcher):
    text = "join a thread"
    whole = {hit.chunk.chunk_id: hit.scores for hit in find(searcher, text, group_by="none").hits}
    for mode in ("dense", "lexical"):
        for hit in find(searcher, text, mode=mode, group_by="none").hits:
            assert whole[hit.chunk.chunk_id][mode] == hit.score


def test_lexical_mode_needs_no_vector_and_others_do(searcher):
    assert searcher.find(Query(text="thread", mode="lexical"), None).hits
    with pytest.raises(ValueError, match="needs the vector"):
        searcher.find(Query(text="thread"), None)


def test_phrases_must_stand_and_exclusions_must_not(searcher):
    found = find(searcher, 'thread "for every folder"', group_by="none")
    assert set(anchors(found)) == {"howto/threads.html#start", "howto/old.html#start"}
    for mode in ("hybrid", "dense", "lexical"):
        found = anchors(find(searcher, "thread -folder", mode=mode))
        assert "library/threads.html#join" in found
        assert not any("start" in anchor or "walk" in anchor for anchor in found), mode


def test_quoted_words_that_stand_nowhere_are_searched_without_the_quotes_and_the_answer_says_so(searcher):
    for mode in ("hybrid", "lexical"):
        found = find(searcher, 'walk "tree folder"', mode=mode)
        assert anchors(found)[0].endswith("#walk")
        assert "without the quotes" in found.message
    assert find(searcher, 'walk "folder tree"').message == ""


def test_paths_are_whole_segments_of_path_or_url(searcher):
    for path in ("/3/library", "/3/library/", f"{SITE}library"):
        for mode in ("hybrid", "dense", "lexical"):
            found = find(searcher, "walk folder thread", mode=mode, filters=Filters(paths=(path,)))
            assert {anchor.split("/")[0] for anchor in anchors(found)} == {"library"}, (path, mode)
    assert not find(searcher, "walk folder", filters=Filters(paths=("/3/lib",))).hits


@pytest.mark.parametrize(
    ("filters", "folders"),
    [
        (Filters(paths=("/",)), {"library", "howto", "library-old"}),
        (Filters(paths=("https://docs.example.org/",)), {"library", "howto", "library-old"}),
        (Filters(paths=("/4", "3/howto/#top")), {"howto"}),
        (Filters(paths=("/3//howto",)), set()),
        (Filters(paths=("/3/howto/threads.html", "/3/library-old")), {"howto", "library-old"}),
        (Filters(languages=("EN",)), {"library", "howto", "library-old"}),
        (Filters(languages=("en-GB",)), {"howto"}),
        (Filters(languages=("EN-gb",), paths=("/3/library",)), set()),
        (Filters(languages=("e",)), set()),
        (Filters(languages=("fr", "EN-GB")), {"howto"}),
    ],
)
def test_a_filter_means_the_same_to_both_legs(tmp_path, filters, folders):
    def page(info):
        return replace(info, language="en-GB" if "howto" in info.url else "en")

    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder(), page=page)
    searcher = Searcher("docs", open_snapshot(tmp_path / "docs"))
    for mode in ("hybrid", "dense", "lexical"):
        found = anchors(find(searcher, "walk folder thread", mode=mode, filters=filters))
        assert {anchor.split("/")[0] for anchor in found} == folders, mode


def test_filters_take_alternatives_and_leave_nothing_when_nothing_fits(searcher):
    kinds = searcher.holdings.facts.facets["kind"].values
    assert find(searcher, "thread", filters=Filters(kinds=("code", *kinds))).hits
    assert not find(searcher, "thread", filters=Filters(versions=("9",))).hits


def test_page_groups_nest_their_next_best_sections(searcher):
    found = find(searcher, "walk a folder and join path segments", group_by="page")
    pages = [hit.chunk.page_id for hit in found.hits]
    assert len(pages) == len(set(pages))
    (of_os,) = [hit for hit in found.hits if "library/os.html" in hit.chunk.url]
    assert [hit.chunk.page_id for hit in of_os.more] == [of_os.chunk.page_id]
    assert of_os.more[0].score <= of_os.score


def test_a_passage_that_says_the_same_is_named_and_not_shown_again(searcher):
    found = find(searcher, "start a thread for every folder")
    shown = [hit for hit in found.hits if "start" in hit.chunk.url]
    assert len(shown) == 1
    assert {shown[0].chunk.url, *shown[0].copies} == {f"{SITE}howto/{page}.html#start" for page in ("threads", "old")}
    alone = find(searcher, "start a thread for every folder", group_by="none")
    assert sum("start" in hit.chunk.url for hit in alone.hits) == 2


def test_pages_of_results_join_without_gap_or_repetition(searcher):
    whole = anchors(find(searcher, "join a thread or walk a folder", k=6))
    parts = [anchors(find(searcher, "join a thread or walk a folder", k=2, offset=offset)) for offset in (0, 2, 4)]
    assert [anchor for part in parts for anchor in part] == whole


def test_facets_count_what_was_found(searcher):
    found = find(searcher, "thread", facets=True, k=1)
    assert sum(found.facets["kind"].values()) >= 2
    assert find(searcher, "thread").facets == {}


def test_explanation_is_what_the_score_is_the_sum_of(searcher):
    hit = find(searcher, "join a thread", explain=True).hits[0]
    assert {"dense", "lexical"} <= set(hit.explanation)
    assert sum(hit.explanation.values()) == pytest.approx(hit.score, abs=1e-5)
    assert find(searcher, "join a thread").hits[0].explanation == {}


def test_highlights_and_excerpt_are_slices_of_the_passage(searcher):
    hit = find(searcher, "joining threads", mode="lexical").hits[0]
    text = hit.chunk.text
    assert {text[start:end].lower() for start, end in hit.highlights} <= {"join", "joined", "thread", "threads"}
    assert hit.highlights
    start, end = hit.excerpt
    assert 0 <= start < end <= len(text)


def test_confidence_is_high_for_what_is_there_and_low_for_what_is_not(searcher):
    here = find(searcher, "walk a folder tree from the top and list every file").confidence
    elsewhere = find(searcher, "recipe with tomatoes and basil").confidence
    assert 0 <= elsewhere < 0.5 < here <= 1


def test_without_a_lexical_index_it_is_searched_by_meaning_alone(tmp_path):
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder(), words=False)
    searcher = Searcher("docs", open_snapshot(tmp_path / "docs"))
    found = find(searcher, "walk a folder tree")
    assert set(found.hits[0].scores) == {"dense"}
    for text, mode in (("walk", "lexical"), ('"a folder"', "hybrid"), ("walk -folder", "hybrid")):
        with pytest.raises(QueryError, match="lexical index"):
            find(searcher, text, mode=mode)


def test_several_indexes_merge_into_one_ranking_and_add_up_their_facets(searcher):
    found = find(searcher, "join a thread", facets=True)
    other = replace(found, hits=tuple(replace(hit, index="other") for hit in found.hits), confidence=0.99)
    merged = merge_found([found, other], k=3, offset=1)
    assert [hit.rank for hit in merged.hits] == [2, 3, 4]
    assert merged.confidence == 0.99
    assert sum(merged.facets["kind"].values()) == 2 * sum(found.facets["kind"].values())
    assert merge_found([], k=3, offset=0).confidence is None


def test_shards_make_no_difference_to_the_last_bit(tmp_path):
    """Scores and their order: the one BM25 index and exact vectors do not know how rows are spread."""
    rankings = []
    for shards in (1, 5):
        make_snapshot(tmp_path / str(shards), TEXTS, HashEmbedder(), shards=shards)
        searcher = Searcher("docs", open_snapshot(tmp_path / str(shards)))
        for text in ("join a thread or walk a folder", "os.path.join", "thread -folder"):
            hits = find(searcher, text, group_by="none", k=len(TEXTS)).hits
            rankings.append([(hit.chunk.chunk_id, hit.score, hit.scores) for hit in hits])
    assert rankings[:3] == rankings[3:]


def test_allowed_rows_are_ranked_exactly_as_without_the_others(searcher):
    (vector,) = HashEmbedder().embed_queries(["join a thread"])
    scores, rows = searcher.holdings.dense.rank(vector, len(TEXTS))
    allowed = np.arange(len(TEXTS)) % 2 == 0
    few_scores, few_rows = searcher.holdings.dense.rank(vector, len(TEXTS), allowed=allowed)
    kept = allowed[rows]
    assert few_rows.tolist() == rows[kept].tolist()
    assert few_scores.tolist() == scores[kept].tolist()
