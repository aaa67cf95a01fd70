"""The query log: what is kept of a search, what a report says of it, and what goes when it must."""

import logging
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raydex.analytics import log as log_module
from raydex.analytics.log import Event, QueryLog, forget
from raydex.analytics.report import PageCount, QueryCount, Reformulation
from raydex.analytics.store import Store
from raydex.config import AnalyticsConfig, ServeConfig
from tests.waiting import eventually

NOW = datetime.now(UTC).replace(hour=12).timestamp()
TODAY = datetime.fromtimestamp(NOW, UTC).date()
SECRET_QUERY = "Reset jane@corp.example 4111 1111 1111 1111"
IO, DATES = "https://docs.example.org/io.html", "https://docs.example.org/dates.html"


class Told(Counter[str]):
    def __call__(self, name: str) -> None:
        self[name] += 1


def config_of(folder: Path, **settings: Any) -> ServeConfig:
    return ServeConfig(data_dir=folder, analytics=AnalyticsConfig(**{"query_log": "text", **settings}))


def event(query: str, *, at: float = 0, session: str = "a", key_id: str = "", **fields: Any) -> Event:
    given = {"kind": "search", "indexes": ("docs",), "results": 3, "url": f"{IO}#read", **fields}
    return Event(at=NOW + at, query=query, session=session, key_id=key_id, **given)


@pytest.fixture
def told() -> Told:
    return Told()


def filled(config: ServeConfig, told: Told, *events: Event) -> QueryLog:
    log = QueryLog(config, told, chance=lambda: 0.5)
    for one in events:
        log.add(one)
    log.flush()
    return log


def rows(config: ServeConfig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Store(config.analytics_dir).read(date.min, date.max).to_pylist()
    return found


def everything(folder: Path) -> bytes:
    """Return all bytes under a folder, and all values of its Parquet files."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    values = [str(pq.read_table(path).to_pylist()).encode() for path in paths if path.suffix == ".parquet"]
    return b"".join([*(path.read_bytes() for path in paths), *values])


def test_unless_it_is_asked_for_nothing_is_kept(tmp_path, told):
    config = ServeConfig(data_dir=tmp_path)
    filled(config, told, event(SECRET_QUERY))
    assert not list(tmp_path.iterdir())


def test_with_hashes_no_word_of_a_query_is_kept_and_the_report_still_counts(tmp_path, told):
    config = config_of(tmp_path, query_log="hashes", least_sessions=1)
    log = filled(config, told, event("unlikelyword here"), event("Unlikelyword  HERE", session="b"))
    assert b"unlikelyword" not in everything(tmp_path).lower()
    (top,) = log.report(days=1, most=5, allowed=None).top
    assert (top.searches, top.sessions) == (2, 2)
    assert top.query.startswith("#")


def test_with_text_what_tells_a_person_is_not_kept_nor_who_asked(tmp_path, told):
    config = config_of(tmp_path)
    filled(config, told, event(SECRET_QUERY, session="10.1.2.3\0curl/8", key_id="k3v9qmx2ab"))
    (row,) = rows(config)
    assert row["text"] == "reset <email> <number>"
    assert row["raw"] == ""
    kept = everything(tmp_path)
    for secret in (b"jane", b"4111", b"10.1.2.3", b"curl", b"k3v9qmx2ab"):
        assert secret not in kept


@pytest.mark.parametrize(("share", "raw"), [(0.4, ""), (0.6, SECRET_QUERY)])
def test_a_text_is_kept_as_typed_only_for_the_share_that_is_set(tmp_path, told, share, raw):
    config = config_of(tmp_path, raw_share=share)
    filled(config, told, event(SECRET_QUERY))
    assert rows(config)[0]["raw"] == raw


def test_hashes_need_the_key_and_sessions_change_with_the_day(tmp_path, told):
    one, other = config_of(tmp_path / "one"), config_of(tmp_path / "other")
    for config in (one, other):
        filled(config, told, event("open a file", key_id="k"), event("open a file", at=-86_400, key_id="k"))
    (first, second), (foreign, _) = rows(one), rows(other)
    assert first["query"] == second["query"] != foreign["query"]
    assert first["session"] != second["session"]
    assert first["caller"] != second["caller"]


def test_files_and_key_are_readable_by_their_owner_only(tmp_path, told):
    config = config_of(tmp_path)
    filled(config, told, event("open a file"))
    paths = [config.analytics_dir / "key", *config.analytics_dir.rglob("*.parquet")]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}


def test_a_queue_is_full_by_bytes_then_drops_and_counts_instead_of_waiting(tmp_path, told, monkeypatch):
    short, long = event("short"), event("long " * 1000)
    monkeypatch.setattr(log_module, "MOST_WAITING_BYTES", 3 * short.bytes_in_memory)
    config = config_of(tmp_path)
    log = filled(config, told, long, short, short, short, short)
    assert told == {"raydex_analytics_dropped": 2, "raydex_analytics_rows": 3}
    log.add(short)
    log.flush()
    assert [row["text"] for row in rows(config)] == ["short"] * 4


def test_what_is_being_written_still_takes_room(tmp_path, told, monkeypatch):
    one = event("open a file")
    monkeypatch.setattr(log_module, "MOST_WAITING_BYTES", one.bytes_in_memory)
    log = QueryLog(config_of(tmp_path), told)
    append = Store.append

    def append_while_asked(store: Store, day: str, rows: list[dict[str, Any]]) -> None:
        log.add(one)
        append(store, day, rows)

    monkeypatch.setattr(Store, "append", append_while_asked)
    log.add(one)
    log.flush()
    assert told == {"raydex_analytics_dropped": 1, "raydex_analytics_rows": 1}


def test_what_cannot_be_written_is_counted_and_does_not_stay_in_memory(tmp_path, told, caplog):
    (tmp_path / "_analytics").write_text("in the way")
    with caplog.at_level(logging.ERROR):
        log = filled(config_of(tmp_path), told, event("unlikelyword"))
    assert told == {"raydex_analytics_dropped": 1}
    assert "query log not written" in caplog.text
    assert "unlikelyword" not in caplog.text
    log.flush()
    assert told == {"raydex_analytics_dropped": 1}


def test_a_judged_url_that_no_library_can_read_is_kept_as_any_other(tmp_path, told):
    config = config_of(tmp_path)
    filled(config, told, event("open a file", kind="up", url="https://[x#y"), event("open a file"))
    assert {row["page"] for row in rows(config)} == {"https://[x", IO}


def test_closing_writes_what_waits(tmp_path, told):
    config = config_of(tmp_path, flush_s=3600)
    log = QueryLog(config, told)
    log.start()
    log.add(event("open a file"))
    log.close()
    assert len(rows(config)) == 1


def test_the_report_names_only_what_enough_sessions_asked(tmp_path, told):
    asked = [event("open a file", session=name) for name in "abc"]
    nothing = [event("warp drive", session=name, results=0, url="") for name in "abc"]
    log = filled(config_of(tmp_path), told, *asked, *nothing, event("my own secret idea"), event("open a file"))
    found = log.report(days=1, most=5, allowed=None)
    assert found.top == [
        QueryCount(query="open a file", searches=4, sessions=3, results=3),
        QueryCount(query="warp drive", searches=3, sessions=3, results=0),
    ]
    assert found.nothing_found == [QueryCount(query="warp drive", searches=3, sessions=3, results=0)]
    assert (found.searches, found.queries, found.sessions, found.without_results, found.kept_back) == (8, 3, 3, 3, 1)


def test_another_query_within_minutes_is_another_try_unless_a_result_was_opened(tmp_path, told):
    events = []
    for name in "abc":
        events += [event("read file", session=name), event("open a file", at=60, session=name)]
        events += [event("open a file", at=90, session=name, kind="click", results=0)]
        events += [event("parse a date", at=120, session=name, url=DATES)]
        events += [event("parse a date", at=130, session=name, kind="down", results=0, url=DATES)]
        events += [event("read file", at=3600, session=name)]
    found = filled(config_of(tmp_path), told, *events).report(days=1, most=5, allowed=None)
    assert found.reformulations == [Reformulation(query="read file", then="open a file", sessions=3)]
    assert found.pages == [
        PageCount(page=IO, best=9, asked_again=3, clicks=3, up=0, down=0),
        PageCount(page=DATES, best=3, asked_again=0, clicks=0, up=0, down=3),
    ]


def test_queries_of_one_batch_are_no_other_tries_of_each_other(tmp_path, told):
    events = [event(query, session=name) for name in "abc" for query in ("read file", "open a file")]
    found = filled(config_of(tmp_path), told, *events).report(days=1, most=5, allowed=None)
    assert found.reformulations == []
    assert found.pages[0].asked_again == 0


def test_who_may_see_some_indexes_is_told_of_those_alone(tmp_path, told):
    config = config_of(tmp_path, least_sessions=1)
    log = filled(
        config,
        told,
        event("open"),
        event("hidden", indexes=("secret",)),
        event("both", indexes=("docs", "secret")),
        event("unnamed", indexes=()),
    )
    assert [one.query for one in log.report(days=1, most=5, allowed=frozenset({"docs"})).top] == ["open"]
    assert log.report(days=1, most=5, allowed=frozenset()).searches == 0


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"query": "OPEN  a file"}, ["parse"]),
        ({"key_id": "ci"}, ["open a file"]),
        ({"since": TODAY}, ["open a file"]),
        ({"until": TODAY - timedelta(days=1)}, ["open a file", "parse"]),
        ({"key_id": "nobody"}, ["open a file", "open a file", "parse"]),
    ],
)
def test_rows_go_by_query_by_key_and_by_day(tmp_path, told, chosen, left):
    config = config_of(tmp_path)
    filled(
        config, told, event("open a file"), event("parse", key_id="ci"), event("open a file", at=-86_400, key_id="ci")
    )
    period = {"since": date.min, "until": date.max}
    before = len(rows(config))
    assert forget(config, **{**period, **chosen}) == before - len(left)
    assert sorted(row["text"] for row in rows(config)) == left


def test_days_go_when_they_are_old_and_the_oldest_when_all_are_too_large(tmp_path, told):
    config = config_of(tmp_path)
    filled(config, told, *(event("open a file", at=-86_400 * age) for age in range(5)))
    stranger = config.analytics_dir / "2001"
    stranger.mkdir()
    store = Store(config.analytics_dir)
    store.sweep(TODAY, days=3, most_bytes=10**9)
    assert len(rows(config)) == 3
    size = max(path.stat().st_size for path in config.analytics_dir.rglob("*.parquet"))
    store.sweep(TODAY, days=3, most_bytes=size)
    assert [row["at"].date() for row in rows(config)] == [TODAY]
    assert stranger.exists()


def test_a_log_that_was_turned_off_still_loses_its_old_days(tmp_path, told):
    filled(config_of(tmp_path), told, event("open a file", at=-86_400 * 40), event("open a file"))
    log = QueryLog(config_of(tmp_path, query_log="off", flush_s=0.05), told)
    log.start()
    eventually(lambda: len(rows(config_of(tmp_path))) == 1, within_s=20)
    log.close()


def test_nothing_is_found_and_nothing_goes_where_there_is_no_log(tmp_path, told):
    config = ServeConfig(data_dir=tmp_path)
    assert QueryLog(config, told).report(days=7, most=5, allowed=None).searches == 0
    assert forget(config, date.min, date.max) == 0
    assert not list(tmp_path.iterdir())
