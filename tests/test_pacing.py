"""How hard a host is leant on, with a clock that goes on only while we wait."""

import asyncio
from collections.abc import Awaitable

import pytest

from raydex.crawl.pacing import Pace, Policy
from raydex.errors import FetchError


class Clock:
    def __init__(self) -> None:
        self.now, self.waits = 100.0, list[float]()

    def __call__(self) -> float:
        return self.now

    async def wait(self, seconds: float) -> None:
        self.waits.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pace_of(clock: Clock, most: int = 8, delay_s: float = 0.0) -> Pace:
    return Pace(most, delay_s, clock=clock, wait=clock.wait)


async def request(
    pace: Pace, clock: Clock, *, took_s: float = 0.1, status: int = 200, retry_after_s: float = 0.0
) -> None:
    """Make one request that nobody else makes."""
    await pace.enter("https://x.org/", patience_s=60)
    sent_at = clock.now
    clock.now += took_s
    pace.answered(status, retry_after_s, sent_at=sent_at)
    pace.leave()


async def round_of(pace: Pace, clock: Clock, *, took_s: float = 0.1, status: int = 200) -> None:
    """Make as many requests at once as are allowed; all are answered at the same time."""
    at_once = pace.concurrency
    for _ in range(at_once):
        await pace.enter("https://x.org/", patience_s=60)
    sent_at = clock.now
    clock.now += took_s
    for _ in range(at_once):
        pace.answered(status, 0.0, sent_at=sent_at)
    for _ in range(at_once):
        pace.leave()


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


def test_requests_at_once_begin_at_two_and_grow_to_the_most_while_answers_are_good(clock):
    async def work() -> None:
        pace = pace_of(clock, most=6)
        assert pace.concurrency == 2
        seen = []
        for _ in range(12):
            await round_of(pace, clock)
            seen.append(pace.concurrency)
        assert seen == sorted(seen)
        assert seen[-1] == 6
        assert clock.waits == []

    run(work())


def test_errors_of_one_round_halve_the_requests_at_once_once(clock):
    policy = Policy(16)
    policy.limit = 8.0
    for _ in range(8):  # all in flight together
        policy.strained(sent_at=clock.now, now=clock.now + 1)
    assert policy.limit == 4
    policy.strained(sent_at=clock.now + 2, now=clock.now + 3)
    assert policy.limit == 2


def test_a_host_that_becomes_slow_is_asked_less_but_one_heavy_page_changes_nothing(clock):
    async def work() -> None:
        pace = pace_of(clock, most=8)
        for _ in range(20):
            await round_of(pace, clock, took_s=0.1)
        assert pace.concurrency == 8
        await request(pace, clock, took_s=5.0)
        assert pace.concurrency == 8
        for _ in range(12):
            await request(pace, clock, took_s=5.0)
        assert pace.concurrency < 8

    run(work())


def test_a_host_that_pushes_back_at_one_request_at_a_time_gets_them_further_and_further_apart(clock):
    async def work() -> None:
        pace = pace_of(clock)
        for _ in range(5):
            await request(pace, clock, status=429)
        assert pace.concurrency == 1
        assert clock.waits
        assert clock.waits == sorted(clock.waits)
        longest = max(clock.waits)
        clock.waits.clear()
        for _ in range(60):
            await request(pace, clock, took_s=0.01)
        assert clock.waits[-1] < longest

    run(work())


def test_a_pause_that_the_host_asks_for_holds_for_every_request(clock):
    async def work() -> None:
        pace = pace_of(clock)
        await request(pace, clock, status=503, retry_after_s=20)
        await request(pace, clock)
        assert clock.waits[0] == pytest.approx(20, abs=0.01)
        assert pace.stats.pauses == 1

    run(work())


def test_a_page_with_less_patience_than_the_pause_is_given_up_without_asking(clock):
    async def work() -> None:
        pace = pace_of(clock)
        await request(pace, clock, status=429, retry_after_s=3600)
        with pytest.raises(FetchError) as caught:
            await pace.enter("https://x.org/a", patience_s=120)
        assert caught.value.reason == "http_429"
        assert caught.value.retry_after_s > 3000
        assert clock.waits == []
        assert pace.stats.requests == 1

    run(work())


def test_a_delay_means_one_request_at_a_time_and_that_long_between_two_starts(clock):
    async def work() -> None:
        pace = pace_of(clock, delay_s=2.0)
        assert pace.concurrency == 1
        for _ in range(3):
            await request(pace, clock, took_s=0.5)
        assert clock.waits == [1.5, 1.5]

    run(work())


def test_those_who_wait_get_their_turn_in_order_and_a_retry_goes_first(clock):
    async def work() -> None:
        pace = pace_of(clock, most=1)
        await pace.enter("https://x.org/", patience_s=60)
        order: list[str] = []

        async def turn(name: str, *, is_retry: bool = False) -> None:
            await pace.enter(f"https://x.org/{name}", patience_s=60, is_retry=is_retry)
            order.append(name)
            pace.leave()

        waiting = [asyncio.create_task(turn("first")), asyncio.create_task(turn("second"))]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(turn("retry", is_retry=True)))
        await asyncio.sleep(0)
        pace.leave()
        await asyncio.gather(*waiting)
        assert order == ["retry", "first", "second"]
        assert (pace.stats.requests, pace.stats.retries) == (4, 1)

    run(work())


def test_a_page_that_is_cancelled_while_it_waits_frees_its_turn(clock):
    async def work() -> None:
        pace = pace_of(clock, most=1)
        await pace.enter("https://x.org/", patience_s=60)
        cancelled = asyncio.create_task(pace.enter("https://x.org/a", patience_s=60))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        pace.leave()
        await asyncio.wait_for(pace.enter("https://x.org/b", patience_s=60), timeout=5)

    run(work())
