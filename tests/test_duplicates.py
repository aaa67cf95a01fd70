"""Near-duplicates: sketches estimate shared text, groups never merge unlike texts, and the best copy is kept."""

import hashlib
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydex.duplicates import SKETCH_SIZE, Item, group, similarity, sketch

VOCABULARY = tuple(
    f"{a}{b}{c}" for a in ("an", "con", "de", "ex") for b in ("fi", "lo", "ra", "tu") for c in "aeimnorst"
)
LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software. " * 4


def prose(seed, words=400):
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def edited(text, share, seed=0):
    """Return the text with this share of its words replaced."""
    rng, words = random.Random(seed), text.split()
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = "edited"
    return " ".join(words)


def item(key, text, *, url="", **more):
    sha = hashlib.sha256(text.encode()).hexdigest()
    url = url or f"https://docs.example.org/{key}.html"
    return Item(key=key, url=url, words=len(text.split()), text_sha=sha, sketch=sketch(text), **more)


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def kept_of(groups):
    return {dropped: found.kept for found in groups for dropped in found.dropped}


# --- sketches ---


def test_sketch_is_the_same_on_every_machine():
    assert sketch("The quick brown fox jumps over.").tolist() == [1310109244639738908, 5197759196069776679]


def test_sketch_ignores_case_white_space_and_punctuation():
    assert np.array_equal(sketch("One two, three\n\tFOUR (five) “six”."), sketch("one TWO three four five — six"))


def test_sketch_is_short_distinct_and_ascending():
    hashes = sketch(prose(1) * 50)
    assert len(hashes) == SKETCH_SIZE
    assert np.all(hashes[:-1] < hashes[1:])


def test_a_text_of_one_phrase_repeated_has_few_hashes():
    assert len(sketch("to be or not " * 5000)) == 4


def test_texts_without_words_resemble_nothing():
    assert similarity(sketch(""), sketch("… !")) == 0


def test_chinese_characters_are_words():
    text = "这个函数返回一个新的列表其中包含所有匹配的元素并且保持原来的顺序不变" * 3
    assert len(sketch(text)) > 30


@given(st.text(max_size=300))
def test_any_text_has_a_sketch_that_equals_itself(text):
    found = sketch(text)
    assert similarity(found, found) == (1.0 if len(found) else 0.0)


@given(st.integers(0, 10_000), st.floats(0, 0.1))
@settings(max_examples=50, deadline=None)
def test_similarity_estimates_the_shared_share_of_shingles(seed, share):
    a, b = prose(seed), edited(prose(seed), share, seed)
    true = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
    assert similarity(sketch(a), sketch(b)) == pytest.approx(true, abs=0.25)  # four standard errors
    assert similarity(sketch(a, 10_000), sketch(b, 10_000), 10_000) == pytest.approx(true)


# --- groups ---


@given(st.randoms(use_true_random=False), st.sampled_from([0.3, 0.6, 0.9, 1.0]))
@settings(max_examples=30, deadline=None)
def test_groups_hold_for_any_order_and_every_dropped_item_is_similar_to_the_kept_one(rng, least):
    texts = [edited(prose(rng.randrange(4), 120), rng.choice([0, 0, 0.01, 0.03, 0.1]), seed) for seed in range(24)]
    items = {str(at): item(str(at), text, version=rng.choice(["", "1.0", "2.0"])) for at, text in enumerate(texts)}
    groups = group(items.values(), least=least)
    assert groups == group(rng.sample(list(items.values()), len(items)), least=least)
    for found in groups:
        similar = [similarity(items[found.kept].sketch, items[key].sketch) for key in found.dropped]
        assert found.similarity == min(similar) >= least
    kept = set(items) - set(kept_of(groups))
    assert set(kept_of(groups).values()) <= kept
    for a in kept:  # nothing was missed: what is kept is unlike
        assert all(a == b or _differ(items[a], items[b], least) for b in kept)


def _differ(a, b, least):
    return a.text_sha != b.text_sha and (least == 1 or similarity(a.sketch, b.sketch) < least)


def test_pages_of_one_template_with_own_content_stay_apart():
    template = "This function is part of the stable interface and may be called from any thread at any time. " * 3
    items = [item(str(at), f"{template} {prose(at, 60)} {template} {prose(-at, 40)}") for at in range(300)]
    assert group(items, least=0.9) == []


def test_unlike_pages_do_not_chain_up_through_those_between_them():
    texts = [prose(0, 600)]
    for step in range(30):
        texts.append(edited(texts[-1], 0.01, step))
    items = {str(at): item(str(at), text) for at, text in enumerate(texts)}
    groups = group(items.values(), least=0.8)
    assert len(groups) > 1
    assert all(found.similarity >= 0.8 for found in groups)


def test_print_views_are_dropped_for_the_page_they_print():
    pages = {f"p{at}": prose(at, 500) for at in range(100)}
    items = [item(key, text, url=f"https://e.org/{key}?chapter=very-long") for key, text in pages.items()]
    printed = [
        item(f"{key}-print", f"Printed from e.org {text} Copyright 2024", url=f"https://e.org/{key}/print")
        for key, text in pages.items()
    ]
    groups = group(items + printed, least=0.9)
    assert kept_of(groups) == {f"{key}-print": key for key in pages}
    assert {found.kind for found in groups} == {"near"}


@pytest.mark.parametrize(
    ("better", "worse"),
    [("stable", "3.12"), ("latest", "dev"), ("", "3.12"), ("3.12", "3.9"), ("v3", "2.10.1"), ("3.9", "main"),
     ("2.0", "3.0rc1"), ("1.0", "2.0-beta")],
)  # fmt: skip
def test_the_newest_version_of_a_page_is_kept(better, worse):
    text = prose(5)
    pages = [
        item("a", edited(text, 0.005), version=worse),
        item("z", text, version=better, url="https://e.org/longer/z"),
    ]
    assert kept_of(group(pages, least=0.8)) == {"a": "z"}


def test_the_page_that_others_name_as_canonical_is_kept_before_all():
    text, url = prose(5), "https://docs.example.org/print/old-and-long.html"
    pages = [
        item("old", edited(text, 0.005), url=url, version="dev"),
        item("new", text, version="stable", canonical=url),
        item("other", text, version="stable"),
    ]
    (found,) = group(pages, least=0.8)
    assert (found.kept, found.kind) == ("old", "canonical")
    assert set(found.dropped) == {"new", "other"}


def test_a_canonical_link_to_an_unlike_page_drops_nothing():
    pages = [item("home", prose(1)), item("page", prose(2), canonical="https://docs.example.org/home.html")]
    assert group(pages, least=0.5) == []


def test_of_equal_copies_the_shortest_url_then_the_first_is_kept():
    text = prose(3)
    pages = [
        item("1", text, url="https://e.org/guide/index.html"),
        item("2", text, url="https://e.org/b/"),
        item("3", text, url="https://e.org/a/"),
    ]
    (found,) = group(pages, least=1)
    assert (found.kept, found.dropped, found.similarity, found.kind) == ("3", ("2", "1"), 1.0, "identical")


def test_least_0_turns_it_off_and_least_1_drops_identical_texts_only():
    text = prose(3)
    pages = [item("a", text), item("b", text), item("c", text + " more")]
    assert group(pages, least=0) == []
    assert kept_of(group(pages, least=1)) == {"b": "a"}
    assert kept_of(group(pages, least=0.9)) == {"b": "a", "c": "a"}


def test_short_pages_are_duplicates_only_when_identical():
    text = prose(1, 30)
    pages = [item("a", text), item("b", text + " end"), item("c", text)]
    assert kept_of(group(pages, least=0.5)) == {"c": "a"}


def test_a_licence_on_many_pages_is_kept_once():
    sections = [item(f"{at}#licence", f"{LICENCE} {at}", page=str(at)) for at in range(50)]
    (found,) = group(sections, least=0.8)
    assert (found.kept, len(found.dropped)) == ("0#licence", 49)


def test_short_sections_are_never_duplicates():
    sections = [item(f"{at}#parameters", "name: the name of the table", page=str(at)) for at in range(5)]
    assert group(sections, least=0.5) == []


def test_sections_of_one_page_are_not_duplicates_of_each_other():
    text = prose(1, 60)
    same = [item("a#1", text, page="a"), item("a#2", text, page="a")]
    assert group(same, least=0.9) == []
    assert kept_of(group([*same, item("b#1", text, page="b")], least=0.9)) == {"b#1": "a#1"}


def test_pages_of_other_names_are_kept_however_alike_unless_one_names_the_other_as_canonical():
    text = prose(1)
    pages = [item("keys", text, name="Struct Keys"), item("values", text, name="Struct Values")]
    assert group(pages, least=0.9) == []
    printed = item("print", text, name="Printed", canonical="https://docs.example.org/keys.html")
    assert kept_of(group([*pages, printed], least=0.9)) == {"print": "keys"}


def test_symbols_described_in_the_same_words_are_all_kept():
    text = prose(1, 60)
    names = {"math": "math.isclose", "cmath": "cmath.isclose", "old": "math.isclose"}
    sections = [item(page, text, page=page, name=name) for page, name in names.items()]
    assert kept_of(group(sections, least=0.9)) == {"math": "old"}
