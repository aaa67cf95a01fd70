"""Wait for conditions, with a deadline, instead of for a length of time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.2


def eventually(found: Callable[[], T], *, within_s: float, poll_s: float = POLL_S) -> T:
    """Return the first true value of found(); fail when there is none in time. Only for what another process does."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        threading.Event().wait(poll_s)
    return value
