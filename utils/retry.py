"""When to try again: later and later, and not before the other side wants to be asked. Standard library only."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def backoff_s(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Seconds to wait before attempt + 1 (attempt counts from 0): exponential with full jitter.

    Formula: uniform(0, min(cap, base · 2^attempt)), "full jitter" of the AWS Architecture Blog, Exponential Backoff And
    Jitter (2015).
    """
    return random.uniform(0.0, min(cap_s, base_s * 2**attempt))  # noqa: S311 - jitter, no secret


def retry_after_s(value: str) -> float:
    """Return the seconds of a Retry-After header, a number or an HTTP date; 0 without one."""
    if value.isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if when.tzinfo is None:  # `-0000`: UTC, source unknown
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)
