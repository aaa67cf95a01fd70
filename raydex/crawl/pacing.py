"""How fast one host is asked: as many requests at once as it answers well, a delay where it asks for one.

    answers, troubles, Retry-After → Pace → turns

Requests at once grow while answers come well (by one an answer until the first trouble, then by one a round, as TCP
does: RFC 5681) and are halved by an error, or by answers that have become far slower than the fastest ones.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

FIRST_AT_ONCE = 2
SLOW, SLOWEST = 4.0, 8.0
"""Times the fastest answer from which a host is asked no faster, and from which it is asked more slowly …"""
LEAST_SLOW_S = 0.5
"""… unless the answer came within this: on a fast network, ten times as long means nothing."""
REMEMBERED = 64  # latencies, for the median

Wait = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceStats:
    """How the requests to a host went; times in seconds."""

    requests: int
    troubles: int
    pauses: int
    at_once: int
    median_latency_s: float


class Pace:
    """Hands out turns to make a request to one origin. most: turns at once at most; delay_s: between two starts."""

    def __init__(
        self, most: int, delay_s: float, *, wait: Wait = asyncio.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._delay_s, self._wait, self._clock = most, delay_s, wait, clock
        self._at_once = float(min(FIRST_AT_ONCE, most))
        self._in_turn = 0
        self._freed = asyncio.Condition()
        self._next_start = self._paused_until = self._cut_until = 0.0
        self._fastest_s = float("inf")
        self._had_trouble = False
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._requests = self._troubles = self._pauses = 0

    @property
    def at_once(self) -> int:
        """How many requests may be under way; one after the other where there is a delay."""
        return 1 if self._delay_s else max(1, int(self._at_once))

    def slow_down(self, delay_s: float) -> None:
        """Keep at least this delay from now on (robots.txt's Crawl-delay)."""
        self._delay_s = max(self._delay_s, delay_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a request may be made; it is under way until the block ends."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._in_turn < self.at_once)
            self._in_turn += 1
            now = self._clock()
            start = max(now, self._next_start, self._paused_until)
            self._next_start = start + self._delay_s
        try:
            if start > now:
                await self._wait(start - now)
            self._requests += 1
            yield
        finally:
            async with self._freed:
                self._in_turn -= 1
                self._freed.notify_all()

    def answered(self, latency_s: float) -> None:
        """Take in an answer that was no error."""
        self._latencies.append(latency_s)
        self._fastest_s = min(self._fastest_s, latency_s)
        if latency_s > max(LEAST_SLOW_S, SLOWEST * self._fastest_s):
            self._cut(latency_s)
        elif latency_s <= max(LEAST_SLOW_S, SLOW * self._fastest_s):
            self._at_once = min(self._most, self._at_once + (1 / self._at_once if self._had_trouble else 1))

    def troubled(self, latency_s: float) -> None:
        """Take in a timeout, a lost connection, a 429 or 5xx."""
        self._troubles += 1
        self._cut(latency_s)

    def pause(self, seconds: float) -> None:
        """Make no request for this long (Retry-After); those under way go on."""
        self._pauses += 1
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def stats(self) -> PaceStats:
        return PaceStats(
            requests=self._requests,
            troubles=self._troubles,
            pauses=self._pauses,
            at_once=self.at_once,
            median_latency_s=round(median(self._latencies), 4) if self._latencies else 0.0,
        )

    def _cut(self, latency_s: float) -> None:
        """Halve the requests at once; what was under way when that happened does not halve them again."""
        now = self._clock()
        if now >= self._cut_until:
            self._at_once = max(1.0, self._at_once / 2)
            self._cut_until = now + latency_s
            self._had_trouble = True
