"""Answers that are kept and shared: within a budget of bytes, one search for all who ask the same at once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from raydex.errors import Overloaded
from raydex.serve.answers import ENTRY_BYTES, Answer, Answers, Outcome

pytestmark = pytest.mark.asyncio

BODY = Answer(b"x" * 100, outcome=Outcome(hits=1))


class Search:
    """A search that ends when it is told to, and counts how often it was begun."""

    def __init__(self, *, fails: int = 0) -> None:
        self.begun, self._fails = 0, fails
        self.may_end = asyncio.Event()

    async def __call__(self) -> Answer:
        self.begun += 1
        begun = self.begun
        await self.may_end.wait()
        if begun <= self._fails:
            raise Overloaded(1)
        return BODY


def asked(answers: Answers, key: str, search: Callable[[], Awaitable[Answer]]) -> "asyncio.Task[tuple[Answer, str]]":
    return asyncio.ensure_future(answers.get(key, search))


async def soon() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_same_question_asked_at_once_is_searched_once():
    answers, search = Answers(10_000), Search()
    tasks = [asked(answers, "a", search) for _ in range(5)]
    await soon()
    search.may_end.set()
    assert [origin for _, origin in await asyncio.gather(*tasks)] == ["computed", *["shared"] * 4]
    assert search.begun == 1
    assert await answers.get("a", search) == (BODY, "kept")


async def test_different_questions_do_not_share():
    answers, search = Answers(10_000), Search()
    search.may_end.set()
    assert [(await answers.get(key, search))[1] for key in ("a", "b", "a")] == ["computed", "computed", "kept"]
    assert search.begun == 2


async def test_who_waits_for_another_who_goes_away_still_gets_an_answer():
    answers, search = Answers(10_000), Search()
    first, second = asked(answers, "a", search), asked(answers, "a", search)
    await soon()
    first.cancel()
    search.may_end.set()
    assert await second == (BODY, "computed")
    assert search.begun == 2


async def test_who_waits_is_not_hurt_by_another_who_was_refused():
    answers, search = Answers(10_000), Search(fails=1)
    first, second = asked(answers, "a", search), asked(answers, "a", search)
    await soon()
    search.may_end.set()
    with pytest.raises(Overloaded):
        await first
    assert await second == (BODY, "computed")


async def test_one_of_those_who_wait_may_go_without_harm_to_the_search():
    answers, search = Answers(10_000), Search()
    first, second = asked(answers, "a", search), asked(answers, "a", search)
    await soon()
    second.cancel()
    await soon()
    search.may_end.set()
    assert await first == (BODY, "computed")


async def test_the_answer_asked_least_lately_is_given_up_when_the_bytes_are_spent():
    answers, search = Answers(2 * (len(BODY.body) + ENTRY_BYTES)), Search()
    search.may_end.set()
    for key in ("a", "b", "a", "c"):
        await answers.get(key, search)
    assert [(await answers.get(key, search))[1] for key in ("a", "c", "b")] == ["kept", "kept", "computed"]


async def test_a_budget_of_nothing_keeps_nothing():
    answers, search = Answers(0), Search()
    search.may_end.set()
    assert [(await answers.get("a", search))[1] for _ in range(2)] == ["computed", "computed"]


async def test_what_is_given_up_makes_room():
    answers, search = Answers(2 * (len(BODY.body) + ENTRY_BYTES)), Search()
    search.may_end.set()
    for key in ("old", "new"):
        await answers.get(key, search)
    answers.give_up(lambda key: key == "old")
    assert [(await answers.get(key, search))[1] for key in ("new", "newer", "new", "newer")] == [
        *("kept", "computed", "kept", "kept")
    ]
