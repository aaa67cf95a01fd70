"""How the parts of a score add up, for each kind of query."""

import numpy as np
import pytest

from raydex.search.ranking import BEST_OF_PAGE, WEIGHTS, Candidates, fuse


def parts(kind, *, lexical, page, is_api=None, best=10.0):
    count = len(lexical)
    candidates = Candidates(
        rows=np.arange(count),
        cosine=np.full(count, 0.5),
        lexical=np.array(lexical, np.float64),
        last_lexical=0.0,
        best_lexical=best,
        bonus=np.zeros(count),
    )
    is_api = np.zeros(count, bool) if is_api is None else np.array(is_api)
    return fuse(candidates, kind, is_api=is_api, page=np.array(page), page_size=np.ones(count))


def test_of_two_passages_alike_the_one_whose_page_has_more_on_the_words_comes_first():
    scored = parts("keywords", lexical=[5.0, 5.0, 4.0, np.nan], page=[7, 2, 2, 7])
    assert scored.total[1] > scored.total[0]
    weight = WEIGHTS["keywords"].page_words
    assert scored.parts["page_words"].tolist() == pytest.approx(
        [0.5 * weight, 0.9 * weight, 0.9 * weight, 0.5 * weight]
    )


def test_no_more_than_the_best_passages_of_a_page_count_for_it():
    short = parts("keywords", lexical=[3.0] * BEST_OF_PAGE, page=[1] * BEST_OF_PAGE)
    long = parts("keywords", lexical=[3.0] * (BEST_OF_PAGE + 20), page=[1] * (BEST_OF_PAGE + 20))
    assert long.parts["page_words"][0] == pytest.approx(short.parts["page_words"][0])


def test_entries_of_symbols_come_first_in_questions_and_last_in_other_words():
    for kind, first in (("question", 0), ("keywords", 1)):
        scored = parts(kind, lexical=[5.0, 5.0], page=[1, 2], is_api=[True, False])
        assert int(np.argmax(scored.total)) == first, kind


@pytest.mark.parametrize("kind", WEIGHTS)
def test_total_is_the_sum_of_the_parts_and_nothing_may_be_found(kind):
    scored = parts(kind, lexical=[5.0, np.nan, 2.0], page=[3, 1, 3], is_api=[True, False, False])
    assert scored.total.tolist() == pytest.approx(np.sum(list(scored.parts.values()), axis=0).tolist())
    assert len(parts(kind, lexical=[], page=[]).total) == 0
