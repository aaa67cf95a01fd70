"""What a request costs when it is logged: a place in a queue. A thread redacts, hashes and writes.

log = QueryLog(config, count)
log.add(Event(…))         never waits; a full queue drops, and counts what it dropped
"""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any, Literal, NamedTuple

from raydex.analytics.redaction import redact
from raydex.analytics.report import COLUMNS, Report, report
from raydex.analytics.store import Hasher, Store, day_of
from raydex.config import ServeConfig

logger = logging.getLogger(__name__)

MOST_WAITING_BYTES = 16_000_000
"""Of events in memory, those that are being written included: some 25,000 searches, fewer when they are long."""

SWEEP_S = 600.0

Kind = Literal["search", "click", "up", "down"]


class Event(NamedTuple):
    """One search, or one verdict on a page, in memory only. at: seconds since 1970. session: whatever tells callers
    apart; key_id: of the API key, if any. url: of the best result, or of the judged one.
    """

    at: float
    kind: Kind
    query: str
    session: str
    key_id: str
    indexes: tuple[str, ...]
    results: int
    url: str

    @property
    def bytes_in_memory(self) -> int:
        return sum(map(sys.getsizeof, (self, *self)))


class QueryLog:
    """The log of one process. count: told the names of metrics, `raydex_analytics_rows` and `…_dropped`."""

    def __init__(
        self, config: ServeConfig, count: Callable[[str], None], *, chance: Callable[[], float] = random.random
    ) -> None:
        self._config, self._count, self._chance = config.analytics, count, chance
        self._store = Store(config.analytics_dir)
        self._waiting: list[Event] = []
        self._bytes_held = 0
        self._holding, self._writing = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._swept_at = -SWEEP_S

    @property
    def is_on(self) -> bool:
        return self._config.query_log != "off"

    def add(self, event: Event) -> None:
        if not self.is_on:
            return
        size = event.bytes_in_memory
        with self._holding:
            if has_room := self._bytes_held + size <= MOST_WAITING_BYTES:
                self._waiting.append(event)
                self._bytes_held += size
        if not has_room:
            self._count("raydex_analytics_dropped")

    def start(self) -> None:
        """Begin to write. A log that is off is still swept, if there is one: what was promised to go, goes."""
        if self.is_on or self._store.folder.exists():
            self._thread = threading.Thread(target=self._work, name="query-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def flush(self) -> None:
        """Write what waits. What cannot be written is dropped and counted: a full disk must not fill memory."""
        with self._writing:
            with self._holding:
                events, self._waiting = self._waiting, []
            if not events:
                return
            try:
                self._write(events)
            except OSError as error:
                logger.error("query log not written rows=%d reason=%s", len(events), error)
                written = "raydex_analytics_dropped"
            else:
                written = "raydex_analytics_rows"
            with self._holding:
                self._bytes_held -= sum(event.bytes_in_memory for event in events)
        for _ in events:
            self._count(written)

    def report(self, *, days: int, most: int, allowed: frozenset[str] | None) -> Report:
        """Return what the log says of the last days, today included. allowed: indexes that may be seen, None: all."""
        self.flush()
        today = datetime.now(UTC).date()
        rows = self._store.read(today - timedelta(days=days - 1), today, COLUMNS)
        return report(
            rows,
            most=most,
            least_sessions=self._config.least_sessions,
            again_s=self._config.again_minutes * 60,
            allowed=allowed,
        )

    def _work(self) -> None:
        while not self._ended.wait(self._config.flush_s):
            self.flush()
            self._sweep()
        self.flush()

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_at < SWEEP_S:
            return
        self._swept_at = time.monotonic()
        try:
            most_bytes = self._config.query_log_mb * 1_000_000
            self._store.sweep(datetime.now(UTC).date(), days=self._config.query_log_days, most_bytes=most_bytes)
        except OSError as error:
            logger.error("query log not swept reason=%s", error)

    def _write(self, events: list[Event]) -> None:
        hasher = self._store.hasher()  # read anew: a key that was deleted is not used again
        for day, of_day in groupby(sorted(events, key=lambda event: event.at), key=lambda event: day_of(event.at)):
            self._store.append(day, [self._row(event, day, hasher) for event in of_day])

    def _row(self, event: Event, day: str, hasher: Hasher) -> dict[str, Any]:
        has_text = self._config.query_log == "text"
        is_sampled = has_text and self._chance() < self._config.raw_share
        return {
            "at": datetime.fromtimestamp(int(event.at), UTC),
            "kind": event.kind,
            "query": hasher.query(event.query),
            "text": redact(event.query) if has_text else "",
            "raw": event.query if is_sampled else "",
            "session": hasher.session(day, event.session),
            "caller": hasher.caller(day, event.key_id),
            "indexes": list(event.indexes),
            "results": event.results,
            "page": event.url.partition("#")[0],  # urldefrag refuses some of what a caller may send
        }


def forget(config: ServeConfig, since: date, until: date, *, query: str = "", key_id: str = "") -> int:
    """Take rows out of the log of this machine; see Store.forget."""
    return Store(config.analytics_dir).forget(since, until, query=query, key_id=key_id)
