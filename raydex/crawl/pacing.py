"""How hard to lean on an origin: as many requests at once as it answers gladly, none while it asks for peace.

    Pace.enter → request → Pace.answered or .failed → Pace.leave;  Policy decides, without clock or waiting

Concurrency grows by one a round while answers are good and as fast as ever, and halves when the origin pushes back
(429, 503), fails (time-outs, lost connections) or slows down. At one request at a time, push-back spaces them out.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

from raydex.errors import FetchError

PUSH_BACK = frozenset({429, 503})
FIRST = 2
FIRST_SPACING_S, LONGEST_SPACING_S = 0.25, 8.0
JUDGED = 9  # latencies whose median tells whether an origin is slow: one heavy page does not
SLOW_FACTOR, SLOW_MARGIN_S = 4.0, 0.5  # far above the best: four times and half a second
REMEMBERED = 500  # latencies that the median of the report is taken of


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceStats:
    """What became of the requests to one origin. requests: retries included; concurrency: as allowed at the end."""

    requests: int
    retries: int
    pauses: int
    concurrency: int
    median_latency_s: float


class Policy:
    """Additive increase, multiplicative decrease. most: requests at once; spacing_s: between two request starts."""

    def __init__(self, most: int) -> None:
        self.limit = float(min(FIRST, most))
        self.spacing_s = 0.0
        self._most = most
        self._best_s = math.inf
        self._recent: deque[float] = deque(maxlen=JUDGED)
        self._judged_at = -math.inf

    def good(self, *, sent_at: float, now: float, is_full: bool) -> None:
        """Take note of an answer. is_full: as many requests were in flight as the limit allows."""
        self._best_s = min(self._best_s, now - sent_at)
        if sent_at < self._judged_at:
            return  # sent before the last decrease: it tells nothing of the new limit
        self._recent.append(now - sent_at)
        self.spacing_s = self.spacing_s * 0.9 if self.spacing_s > FIRST_SPACING_S / 10 else 0.0
        if self._is_slow():
            self.strained(sent_at=sent_at, now=now)
        elif is_full and not self.spacing_s:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)

    def strained(self, *, sent_at: float, now: float) -> None:
        """Halve the limit, once for all requests that were in flight together."""
        if sent_at >= self._judged_at:
            self._judged_at = now
            self._recent.clear()
            self.limit = max(1.0, self.limit / 2)

    def pushed_back(self, *, sent_at: float, now: float) -> None:
        if sent_at >= self._judged_at and self.limit < 2:
            self.spacing_s = min(max(self.spacing_s * 2, FIRST_SPACING_S), LONGEST_SPACING_S)
        self.strained(sent_at=sent_at, now=now)

    def _is_slow(self) -> bool:
        worst = max(SLOW_FACTOR * self._best_s, self._best_s + SLOW_MARGIN_S)
        return len(self._recent) == JUDGED and median(self._recent) > worst


class Pace:
    """The turns of all requests to one origin, first come first served; for one event loop.

    delay_s: above 0, one request at a time, and this long between two starts.
    """

    def __init__(
        self, most: int, delay_s: float, *, clock: Callable[[], float], wait: Callable[[float], Awaitable[object]]
    ) -> None:
        self.delay_s = delay_s
        self._policy = Policy(most)
        self._clock, self._wait = clock, wait
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_start, self._paused_until, self._pushed_back_with = -math.inf, -math.inf, 0
        self._requests, self._retries, self._pauses = 0, 0, 0
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def concurrency(self) -> int:
        return 1 if self.delay_s > 0 else int(self._policy.limit)

    @property
    def stats(self) -> PaceStats:
        return PaceStats(
            requests=self._requests,
            retries=self._retries,
            pauses=self._pauses,
            concurrency=self.concurrency,
            median_latency_s=median(self._latencies) if self._latencies else 0.0,
        )

    async def enter(self, url: str, patience_s: float, *, is_retry: bool = False) -> None:
        """Wait for a turn; `leave` must follow. A retry goes before those who have not been asked for yet.

        Raises FetchError http_<status> when the origin asked for more peace than patience_s, and keeps it.
        """
        await self._slot(is_retry)
        try:
            await self._start(url, patience_s)
        except BaseException:
            self.leave()
            raise
        self._requests += 1
        self._retries += is_retry

    def leave(self) -> None:
        self._busy -= 1
        while self._waiting and self._busy < self.concurrency:
            ticket = self._waiting.popleft()
            if not ticket.done():  # else its owner was cancelled
                self._busy += 1
                ticket.set_result(None)

    def answered(self, status: int, retry_after_s: float, *, sent_at: float) -> None:
        now = self._clock()
        self._latencies.append(now - sent_at)
        if status in PUSH_BACK:
            self._policy.pushed_back(sent_at=sent_at, now=now)
            if retry_after_s:
                self._pauses += self._paused_until <= now
                self._paused_until = max(self._paused_until, now + retry_after_s)
                self._pushed_back_with = status
        elif status < 500:
            self._policy.good(sent_at=sent_at, now=now, is_full=self._busy >= self.concurrency)

    def failed(self, *, sent_at: float) -> None:
        """Take note of a time-out or a lost connection."""
        self._policy.strained(sent_at=sent_at, now=self._clock())

    async def _slot(self, is_retry: bool) -> None:  # noqa: FBT001
        if self._busy < self.concurrency and (is_retry or not self._waiting):
            self._busy += 1
            return
        ticket = asyncio.get_running_loop().create_future()
        if is_retry:
            self._waiting.appendleft(ticket)
        else:
            self._waiting.append(ticket)
        try:
            await ticket
        except asyncio.CancelledError:
            if not ticket.cancelled():  # the slot was given just before
                self.leave()
            raise

    async def _start(self, url: str, patience_s: float) -> None:
        start = -math.inf
        while start == -math.inf or start < self._paused_until:  # a pause may begin while we wait
            now = self._clock()
            peace_s = self._paused_until - now
            if peace_s > patience_s:
                detail = f"the host asks to be left alone for {peace_s:.0f} s"
                raise FetchError(url, f"http_{self._pushed_back_with}", detail, peace_s)
            spacing_s = max(self.delay_s, self._policy.spacing_s)
            start = self._last_start = max(now, self._last_start + spacing_s, self._paused_until)
            if start > now:
                await self._wait(start - now)
