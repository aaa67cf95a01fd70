"""What a typed text is read as."""

import pytest

from raydex.query import parse_query
from raydex.records import Filters


def test_words_phrases_and_exclusions_are_told_apart():
    query = parse_query('open file "context manager" -windows -"text mode"')
    assert query.words == ("open", "file")
    assert query.phrases == ("context manager",)
    assert query.excluded == ("windows", "text mode")


def test_flags_are_words_not_exclusions():
    assert parse_query("node --max-old-space-size -v -O2").excluded == ()
    assert parse_query("-Wall").words == ("-Wall",)
    assert parse_query("-Wall -Werror").words == ("-Wall", "-Werror")


def test_a_word_with_a_dash_that_the_index_knows_as_a_name_is_no_exclusion():
    assert parse_query("gcc -Wall").excluded == ("Wall",)
    assert parse_query("gcc -Wall", lambda word: word == "-Wall").excluded == ()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("os.path.join", "symbol"),
        ("std::vector", "symbol"),
        ("getUserName", "symbol"),
        ("__init__", "symbol"),
        ("print()", "symbol"),
        ("--verbose", "flag"),
        ("-v", "flag"),
        ("E501", "error_code"),
        ("ENOENT", "error_code"),
        ("asyncio", "keywords"),
        ("kubectl get pods", "keywords"),
        ("How do I open a file", "question"),
        ("What's new", "question"),
        ("ファイルを開く 方法？", "question"),
        ("remove duplicates from list while keeping order", "question"),
        ('"os.path"', "keywords"),
    ],
)
def test_a_query_has_the_kind_its_form_says(text, kind):
    assert parse_query(text).kind == kind


def test_a_single_word_that_the_index_knows_as_a_name_is_a_symbol():
    assert parse_query("asyncio", lambda word: word == "asyncio").kind == "symbol"


@pytest.mark.parametrize("text", ["", " ", '"', '""', "-", "--", '-""', "“”", "\x00", "?" * 500])
def test_texts_that_say_nothing_are_read_without_an_error(text):
    parse_query(text)


def test_filters_are_false_when_they_take_all():
    assert not Filters()
    assert Filters(paths=("/3",))
