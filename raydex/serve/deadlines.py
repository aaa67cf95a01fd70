"""How long a request may take: nothing begins after that, and what waits stops waiting.

deadline = Deadline.of(options.timeout_ms, config.limits)
async with deadline.kept(): …        deadline.check() between two pieces of work in a thread
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from raydex.config import LimitsConfig
from raydex.errors import DeadlineExceeded, QueryError


@dataclass(frozen=True, slots=True)
class Deadline:
    """ends: on the clock of time.monotonic()."""

    timeout_ms: int
    ends: float

    @classmethod
    def of(cls, timeout_ms: int, limits: LimitsConfig) -> Self:
        """timeout_ms: as the caller asked, 0 for the default. Raises QueryError when it is more than allowed."""
        if timeout_ms > limits.max_timeout_ms:
            raise QueryError("timeout_ms", f"is above {limits.max_timeout_ms} ms (max_timeout_ms)")
        allowed = timeout_ms or min(limits.default_timeout_ms, limits.max_timeout_ms)
        return cls(allowed, time.monotonic() + allowed / 1000)

    def seconds_left(self) -> float:
        return self.ends - time.monotonic()

    def check(self) -> None:
        """Raise DeadlineExceeded once it is over; to be asked before each piece of work."""
        if time.monotonic() >= self.ends:
            raise DeadlineExceeded(self.timeout_ms)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Cancel what is awaited in the block when time is up, and raise DeadlineExceeded."""
        self.check()
        try:
            async with asyncio.timeout(self.ends - time.monotonic()) as timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise DeadlineExceeded(self.timeout_ms) from error
