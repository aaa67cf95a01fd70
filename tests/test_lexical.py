"""The lexical index: analysis, search, symbols, filters, suggestions."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from raydex.errors import SnapshotCorrupt
from raydex.lexical import Passage, open_lexical, terms, write_lexical, writing
from raydex.lexical.analysis import Marks, analyzer
from raydex.query import parse_query
from raydex.records import Filters

JOIN, THREAD, CLUSTER, BRITISH = range(4)
PASSAGES = [
    Passage(
        text="Join one or more path components. See os.path.split and --max-old-space-size.",
        title="os.path",
        headings=("os.path — Common pathname manipulations", "os.path.join"),
        url="https://docs.example/3/library/os.path.html",
        symbol="os.path.join",
        kind="api",
        source="python",
        version="3.11",
        language="en",
    ),
    Passage(
        text="Running functions in a thread: is_alive says whether the thread runs. Components of a path.",
        title="Threads",
        headings=("Threads",),
        url="https://docs.example/3/howto/threads.html",
        source="python",
        version="3.11",
        language="en",
    ),
    Passage(
        text="Kubernetes verwaltet Häuser und Container.",
        title="Cluster",
        headings=("Cluster",),
        url="https://docs.example/de/cluster",
        source="k8s",
        language="de",
    ),
    Passage(
        text="Colour of a window.",
        title="Windows",
        headings=("Windows", "Colour"),
        url="https://docs.example/gb/window",
        source="gui",
        language="en-GB",
    ),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    objects_dir = tmp_path_factory.mktemp("objects")
    lexical = write_lexical(PASSAGES, objects_dir)
    objects_dir.chmod(0o555)
    return open_lexical(lexical, objects_dir, [["k8s", "kubernetes"], ["environment variable", "path components"]])


def rows(index, text, **filters):
    query = parse_query(text, index.is_name)
    return index.search(query, 10, Filters(**filters))[1].tolist()


def test_compounds_give_their_parts_and_themselves():
    found = {term.text for term in terms("os.path.join --max-old-space-size std::vector HTTPServer2 E501")}
    assert {"os.path.join", "os", "path", "join"} <= found
    assert {"--max-old-space-size", "max", "old", "space", "size"} <= found
    assert {"std::vector", "vector", "http", "server", "httpserver2", "e501"} <= found


def test_spellings_of_one_name_are_one_term():
    wholes = [{term.text for term in terms(name)} for name in ("is_alive", "isAlive", "is-alive", "isalive")]
    assert set.intersection(*wholes)
    assert {term.text for term in terms("__init__")} > {term.text for term in terms("init")}
    assert {term.text for term in terms("C++")} != {term.text for term in terms("C")}


def test_terms_know_their_place_in_the_text():
    text = "See os.path, naïve 日本語 users."
    for term in terms(text):
        assert term.text[:2] == text[term.start : term.end].lower()[:2]
    positions = [term.position for term in terms("a b_c d")]
    assert max(positions) == 3


@pytest.mark.parametrize("language", ["en", "de", "ja"])
def test_marks_are_where_the_terms_stand(language):
    text = (
        "Joining  os.path.join,\u00a0path-joins\t(see `isAlive`)\n\n--max-old-space-size=4 != is_alive() 日本語の文書 "
        "a ab a.a Häuser/Haus C++ std::vector<int> path\x1fpath ! path"
    )
    wanted = {"join", "path", "isalive", "--max-old-space-size", "size", "日本", "a", "haus", "!", "c++"}
    expected = sorted({(term.start, term.end) for term in terms(text, language) if term.text in wanted})
    assert len(expected) > 10
    marks = Marks(wanted, language)
    assert sorted(marks.spans(text)) == expected
    assert marks.spans(text) == marks.spans(text)
    assert Marks((), language).spans(text) == []


def test_words_that_are_remembered_are_no_burden_to_the_garbage_collector():
    of = analyzer("en")
    assert not any(map(gc.is_tracked, [of.word("os.path.join"), *of.placed_terms("os.path.join")]))


def test_words_are_stemmed_by_their_language():
    assert terms("running")[0].text == terms("runs")[0].text
    assert terms("Häuser", "de")[0].text == terms("Haus", "de")[0].text
    assert [term.text for term in terms("日本語", "ja")] == ["日本", "本語"]
    assert [term.text for term in terms("हिन्दी", "hi")] == ["हिन्दी"]


def test_symbols_flags_and_their_parts_are_found(index):
    assert rows(index, "os.path.join")[0] == JOIN
    assert rows(index, "--max-old-space-size") == [JOIN]
    assert rows(index, "max old space size") == [JOIN]
    assert rows(index, "isAlive") == [THREAD]
    assert rows(index, "alive") == [THREAD]


def test_a_heading_weighs_more_than_the_text(tmp_path):
    body = replace(PASSAGES[THREAD], title="One", headings=("One",), text="pickle and three more words")
    heading = replace(body, headings=("One", "pickle"), text="other and three more words")
    found = open_lexical(write_lexical([body, heading], tmp_path), tmp_path)
    assert rows(found, "pickle") == [1, 0]


def test_a_long_passage_that_says_a_word_more_often_comes_before_a_short_one(tmp_path):
    about = (
        "A threshold is set. " + "Other matters are told at some length here. " * 40 + "The threshold, the threshold."
    )
    texts = ["The threshold.", about, *["Something else."] * 8]
    passages = [Passage(text=text, title="", headings=(), url="https://docs.example/") for text in texts]
    index = open_lexical(write_lexical(passages, tmp_path), tmp_path)
    assert index.search(parse_query("threshold"), 10)[1].tolist() == [1, 0]


@pytest.mark.parametrize("text", [writing.PAD, f'"{writing.PAD}"', f"{writing.PAD} path", "…", "…path", "⒈."])
def test_what_passages_are_padded_with_is_in_no_text_and_no_query(index, text):
    assert writing.PAD not in {term.text for term in terms(text)}
    assert writing.PAD not in {term.term for term in index.expand(parse_query(text))}
    assert len(index.search(parse_query(text), 10)[1]) < len(PASSAGES)


def test_scores_fall_and_equal_ones_are_ordered_by_row(tmp_path):
    found = open_lexical(write_lexical([PASSAGES[JOIN]] * 5 + [PASSAGES[THREAD]], tmp_path), tmp_path)
    scores, order = found.search(parse_query("path components join"), 10)
    assert order.tolist() == [0, 1, 2, 3, 4, 5]
    assert scores.dtype == np.float32
    assert order.dtype == np.int64
    assert (np.diff(scores) <= 0).all()
    assert len(found.search(parse_query("path"), 3)[1]) == 3


def test_rows_and_scores_do_not_depend_on_the_engines_segments(tmp_path, monkeypatch):
    passages = [
        replace(PASSAGES[THREAD], text=" ".join(f"w{row}x{word}" for word in range(60)) + " every" * (row % 7 + 1))
        for row in range(4000)
    ]
    one = write_lexical(passages, tmp_path)
    monkeypatch.setattr(writing, "HEAP_BYTES", 15_000_000)  # the least that tantivy takes
    several = write_lexical(passages, tmp_path)
    assert [
        sum(name.startswith("passages/") and name.endswith(".idx") for name in of.objects) > 1 for of in (one, several)
    ] == [
        False,
        True,
    ]
    for text in ("w3999x7", "w0x0", "every"):
        scores, rows_of_one = open_lexical(one, tmp_path).search(parse_query(text), 10)
        other_scores, other_rows = open_lexical(several, tmp_path).search(parse_query(text), 10)
        assert rows_of_one.tolist() == other_rows.tolist()
        assert scores == pytest.approx(other_scores)


def test_a_phrase_must_be_there_word_after_word(index):
    assert set(rows(index, "path components")) == {JOIN, THREAD}
    assert rows(index, '"path components"') == [JOIN]
    assert rows(index, '"Components of a path" thread') == [THREAD]
    assert rows(index, '"path nothing"') == []
    assert rows(index, '"see os path split"') == [JOIN]
    assert rows(index, '"components see" "thread is"') == []


def test_what_is_excluded_is_not_there(index):
    assert rows(index, "components -thread") == [JOIN]
    assert rows(index, 'components -"path components"') == [THREAD]
    assert rows(index, "components -nothing") == rows(index, "components")


def test_a_word_that_no_passage_has_is_corrected_and_scores_lower(index):
    assert rows(index, "componnets")[0] in {JOIN, THREAD}
    assert rows(index, "kuberntes") == [CLUSTER]
    assert rows(index, "xyz") == []
    right, wrong = (index.search(parse_query(text), 1)[0][0] for text in ("kubernetes", "kuberntes"))
    assert wrong < right
    assert index.expand(parse_query("kuberntes"))[0].origin == "corrected"


def test_longer_words_may_have_two_wrong_letters(index):
    assert rows(index, "cantaner") == [CLUSTER]
    assert rows(index, "clostar") == []


def test_a_correction_keeps_the_first_letter_where_it_can(tmp_path):
    passages = [replace(PASSAGES[THREAD], text=word) for word in ("hunter", "bunker")]
    found = open_lexical(write_lexical(passages, tmp_path), tmp_path)
    assert rows(found, "bunter") == [1]
    assert rows(found, "zunker") == [1]


def test_words_of_asking_count_in_no_question_and_in_other_queries(tmp_path):
    passages = [replace(PASSAGES[THREAD], title="", headings=(), text=text) for text in ("how do i", "join a path")]
    found = open_lexical(write_lexical(passages, tmp_path), tmp_path)
    assert rows(found, "How do I join?") == [1]
    assert rows(found, "how") == [0]
    assert rows(found, "How do I?") == [0]


def test_synonyms_are_searched_too(index):
    assert rows(index, "k8s") == [CLUSTER]
    assert JOIN in rows(index, "environment variable")
    assert rows(index, "environment") == []


def test_filters_leave_only_what_they_name(index):
    everything = "path thread cluster colour"
    assert set(rows(index, everything)) == {0, 1, 2, 3}
    assert set(rows(index, everything, sources=("python",))) == {JOIN, THREAD}
    assert set(rows(index, everything, sources=("python", "k8s"), kinds=("api",))) == {JOIN}
    assert set(rows(index, everything, versions=("3.11",))) == {JOIN, THREAD}
    assert set(rows(index, everything, languages=("en",))) == {JOIN, THREAD, BRITISH}
    assert rows(index, everything, languages=("en-GB",)) == [BRITISH]
    assert set(rows(index, everything, paths=("3/library/", "/de"))) == {JOIN, CLUSTER}
    assert set(rows(index, everything, paths=("https://docs.example/3",))) == {JOIN, THREAD}
    assert rows(index, everything, paths=("/3/lib",)) == []
    assert rows(index, "path", languages=("e.*",)) == []


def test_a_filter_does_not_change_the_scores_of_what_it_leaves(index):
    query = parse_query("path")
    free = dict(zip(*reversed(index.search(query, 10)), strict=True))
    kept = dict(zip(*reversed(index.search(query, 10, Filters(kinds=("api",)))), strict=True))
    assert kept == {JOIN: pytest.approx(free[JOIN])}


def test_matching_gives_every_row_that_is_left_or_none_when_all_are(index):
    assert index.matching(parse_query("path")) is None
    for text, left in (
        ("colour -components", [CLUSTER, BRITISH]),
        ('"path components"', [JOIN]),
        ('"path"', [JOIN, THREAD]),
        ("colour -thread", [JOIN, CLUSTER, BRITISH]),
        ('path "components" -thread', [JOIN]),
        ('"no such words"', []),
        ("colour -nosuchword", [JOIN, THREAD, CLUSTER, BRITISH]),
    ):
        assert np.flatnonzero(index.matching(parse_query(text))).tolist() == left, text


def defined(index, name):
    """Rows that define a symbol, each once: spelled so, in another case, by its end."""
    return list(dict.fromkeys(np.concatenate(index.definitions(name)).tolist()))


def test_a_symbol_is_found_by_its_name_and_by_its_ends(index):
    for name in ("os.path.join", "OS.path.join", "path.join", "join()", "os::path::join"):
        assert defined(index, name) == [JOIN], name
    assert defined(index, "oin") == []
    assert index.is_name("os.path.join")
    assert not index.is_name("join")


def test_a_symbol_is_found_and_suggested_by_its_other_names(tmp_path):
    flag = replace(PASSAGES[THREAD], symbol="--help", aliases=("-h", "tar -h"))
    found = open_lexical(write_lexical([flag], tmp_path), tmp_path)
    for name in ("--help", "-h", "tar -h"):
        assert defined(found, name) == [0]
        assert found.is_name(name)
    assert found.suggest("tar", 5)[0].text == "tar -h"


def test_exact_symbols_come_before_other_cases_and_ends(tmp_path):
    names = ["a.queue", "queue", "Queue"]
    passages = [replace(PASSAGES[JOIN], symbol=name) for name in names]
    passages.append(replace(PASSAGES[JOIN], symbol="Queue", is_first=False))
    found = open_lexical(write_lexical(passages, tmp_path), tmp_path)
    assert defined(found, "Queue") == [2, 1, 0]


def test_suggestions_begin_with_what_is_typed_and_forgive_a_letter(index):
    assert next(found.text for found in index.suggest("os.p", 5)) == "os.path.join"
    assert [found.text for found in index.suggest("path jo", 5)] == ["os.path.join"]
    assert [(found.text, found.is_corrected) for found in index.suggest("thraed", 5)] == [("Threads", True)]
    assert [(found.kind, found.row) for found in index.suggest("os.p", 5)][:2] == [("symbol", JOIN), ("title", JOIN)]
    assert [(found.kind, found.row) for found in index.suggest("colo", 5)] == [("heading", BRITISH)]
    assert index.suggest("", 5) == []
    assert index.suggest("zzz", 5) == []
    assert len(index.suggest("c", 1)) == 1


@pytest.mark.parametrize(
    "text", ["", '"', '"?"', "-", "**", "a.*[", '"\x00"', "OR AND (", "path:x^2~", "what’s", "a\\"]
)
def test_no_text_is_an_error(index, text):
    query = parse_query(text)
    index.search(query, 5)
    index.matching(query)
    index.definitions(text)
    index.suggest(text, 5)


def test_files_that_are_none_of_tantivy_s_are_a_corrupt_snapshot(tmp_path):
    lexical = write_lexical(PASSAGES, tmp_path)
    with pytest.raises(SnapshotCorrupt, match="5 documents"):
        open_lexical(replace(lexical, documents=5), tmp_path)
    (tmp_path / lexical.objects["passages/meta.json"].sha256).write_text("{}")
    with pytest.raises(SnapshotCorrupt):
        open_lexical(lexical, tmp_path)


def test_nothing_is_left_beside_the_objects(tmp_path):
    lexical = write_lexical(PASSAGES, tmp_path)
    open_lexical(lexical, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {stored.sha256 for stored in lexical.objects.values()}
