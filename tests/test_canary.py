"""The canary: judged queries put to a running service, and what becomes of them as figures."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

import serve_index
from raydex.client import AsyncRaydexClient, RaydexClient
from raydex.config import AccessConfig, AnalyticsConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.evaluate import Golden
from raydex.keys import create_key
from raydex.observe.canary import Round, ask_round
from raydex.serve.canary import golden_of, keep_asking
from raydex.serve.recorder import MemoryRecorder
from tests.processes import free_port
from tests.serving import serving
from tests.snapshots import make_snapshot

SITE = "https://docs.example.org"
TEXTS = {
    f"{SITE}/io.html#open": "open a file for reading",
    f"{SITE}/net.html#sockets": "wait for a socket connection",
}
RIGHT = {"id": "open", "query": "open a file", "gold": ["io.html#open"]}
WRONG = {"id": "gone", "query": "wait for a socket", "gold": ["moved.html#sockets"]}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    return tmp_path


def config_of(data_dir: Path, *questions: Mapping[str, object], **settings: object) -> ServeConfig:
    path = data_dir / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, questions)))
    return ServeConfig(data_dir=data_dir, canary_queries=str(path), canary_base=f"{SITE}/", **settings)


def golden(config: ServeConfig) -> Golden:
    found = golden_of(config)
    assert found is not None
    return found


def asked(config: ServeConfig, url: str, *, within_s: float = 60.0, **access: str) -> Round:
    async def ask() -> Round:
        async with AsyncRaydexClient(url, attempts=1, api_key=access.get("api_key", "")) as client:
            return await ask_round(client, golden(config), index=config.canary_index, within_s=within_s)

    return asyncio.run(ask())


def test_a_round_tells_recall_and_mrr_over_all_queries_and_how_long_each_answer_took(data_dir):
    config = config_of(data_dir, RIGHT, WRONG)
    with serving(config) as url:
        found = asked(config, url)
    assert (found.recall, found.mrr) == (0.5, 0.5)
    assert found.outcomes == {"answered": 2}
    assert len(found.seconds) == 2


def test_a_service_that_is_away_is_a_round_in_which_nothing_was_found(data_dir):
    found = asked(config_of(data_dir, RIGHT, WRONG), f"http://127.0.0.1:{free_port()}")
    assert (found.recall, found.mrr, found.seconds) == (0, 0, ())
    assert found.outcomes == {"unreachable": 2}


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [({"canary_index": ("nowhere",)}, "refused"), ({"canary_index": ()}, "answered")],
)
def test_a_query_that_the_service_refuses_is_told_apart_from_one_it_answers(data_dir, settings, outcome):
    config = config_of(data_dir, RIGHT, **settings)
    with serving(config) as url:
        assert asked(config, url).outcomes == {outcome: 1}


def test_where_keys_are_on_the_canary_needs_one_too(data_dir):
    token, _ = create_key(data_dir / "keys.json", "canary", rate="1/hour")
    config = config_of(data_dir, RIGHT, WRONG)
    with serving(config) as url:
        assert asked(config, url).outcomes == {"not_allowed": 2}
        assert asked(config, url, api_key=token).outcomes == {"answered": 1, "rate_limited": 1}


def test_an_index_that_cannot_be_opened_fails_the_round(data_dir):
    next((data_dir / "docs" / "objects").iterdir()).write_bytes(b"damaged")
    config = config_of(data_dir, RIGHT)
    with serving(config) as url:
        assert asked(config, url).outcomes == {"failed": 1}


def test_no_query_is_begun_after_the_time_of_a_round(data_dir):
    found = asked(config_of(data_dir, RIGHT, WRONG), "http://127.0.0.1:1", within_s=0)
    assert (found.recall, found.outcomes) == (0, {"unasked": 2})


def ask_until_the_second_round(config: ServeConfig, recorder: MemoryRecorder) -> None:
    async def ask() -> None:
        asking = asyncio.create_task(keep_asking(config, golden(config), recorder))
        while len(recorder.values("raydex_canary_queries", outcome="answered")) < 4:
            done, _ = await asyncio.wait({asking}, timeout=0.05)
            assert not done
        asking.cancel()

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_what_the_canary_asks_is_not_in_the_query_log(data_dir):
    analytics = AnalyticsConfig(query_log="hashes")
    config = config_of(data_dir, RIGHT, WRONG, canary_interval_s=1, analytics=analytics)
    with serving(config) as url, RaydexClient(url) as visitor:
        ask_until_the_second_round(config.model_copy(update={"canary_url": url}), MemoryRecorder())
        visitor.search("open a file")
        visitor.search("open a file")
        assert (visitor.report().searches, visitor.report().sessions) == (2, 1)


def test_rounds_follow_each_other_and_are_recorded(data_dir):
    recorder = MemoryRecorder()
    config = config_of(data_dir, RIGHT, WRONG, canary_interval_s=1, canary_least_recall=0.4)

    with serving(config) as url:
        ask_until_the_second_round(config.model_copy(update={"canary_url": url}), recorder)
    assert recorder.values("raydex_canary_recall") == [0.5]
    assert recorder.values("raydex_canary_mrr") == [0.5]
    assert recorder.values("raydex_canary_interval_seconds") == [1]
    assert recorder.values("raydex_canary_least_recall") == [0.4]
    assert len(recorder.values("raydex_canary_seconds")) >= 4
    assert recorder.values("raydex_canary_last_round_timestamp_seconds")[0] > 0


def test_without_queries_there_is_no_canary(data_dir):
    assert golden_of(ServeConfig(data_dir=data_dir)) is None


def test_a_file_of_queries_that_cannot_be_read_is_told_before_anything_starts(data_dir, capsys):
    missing = str(data_dir / "none.jsonl")
    assert serve_index.main(["--data-dir", str(data_dir), "--canary-queries", missing]) == 2
    assert missing in capsys.readouterr().err


def test_a_key_that_no_header_can_hold_is_told_before_anything_starts_and_not_shown(data_dir, capsys):
    config = config_of(data_dir, RIGHT)
    arguments = ["--data-dir", str(data_dir), "--canary-queries", config.canary_queries, "--canary-key", "rdx secret"]
    assert serve_index.main([*arguments, "--canary-base", config.canary_base]) == 2
    told = capsys.readouterr().err
    assert "API key" in told
    assert "secret" not in told


def test_an_address_without_a_scheme_is_told_before_anything_starts(data_dir, capsys):
    assert serve_index.main(["--data-dir", str(data_dir), "--canary-url", "search.example.org:8000"]) == 2
    assert "canary_url = 'search.example.org:8000' (from flag --canary-url)" in capsys.readouterr().err


def test_no_secret_is_in_what_a_configuration_says_of_itself(data_dir):
    access = AccessConfig(redis_url="redis://:rdx_secret@127.0.0.1/0")
    assert "rdx_secret" not in repr(config_of(data_dir, RIGHT, canary_key="rdx_secret", access=access))
