"""Try again, later and later. Standard library only."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def backoff_s(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Seconds to wait before attempt + 1 (attempt counts from 0): exponential with full jitter.

    Formula: uniform(0, min(cap, base · 2^attempt)), "full jitter" of the AWS Architecture Blog, Exponential Backoff And
    Jitter (2015).
    """
    return random.uniform(0.0, min(cap_s, base_s * 2**attempt))  # noqa: S311 - jitter, no secret


def call_with_retries(
    call: Callable[[], T],
    *,
    attempts: int,
    should_retry: Callable[[Exception], bool],
    base_s: float = 0.5,
    cap_s: float = 8.0,
    least_wait_s: Callable[[Exception], float] = lambda error: 0.0,
    wait: Callable[[float], None] = time.sleep,
) -> T:
    """Return call(), called at most `attempts` times; an error not to be retried, or the last one, is raised.

    least_wait_s: seconds that an error itself asks for (Retry-After); waited when they exceed the backoff.
    """
    for attempt in range(attempts):
        try:
            return call()
        except Exception as error:
            if attempt + 1 == attempts or not should_retry(error):
                raise
            wait(max(least_wait_s(error), backoff_s(attempt, base_s=base_s, cap_s=cap_s)))
    raise ValueError("attempts must be at least 1")
