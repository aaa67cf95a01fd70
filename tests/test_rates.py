"""Rates and quotas: headers, refusals, several replicas over a real Redis, and a Redis that is gone."""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import serve_index
from raydex.config import AccessConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.keys import create_key
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.rates import REDIS_AGAIN_S
from raydex.serve.recorder import MemoryRecorder
from tests.redis_server import PASSWORD, PROGRAM, RedisServer, redis_running
from tests.snapshots import make_snapshot

QUESTION = {"query": "open a file"}
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", {"https://docs.example.org/io.html#a": "Open a file."}, HashEmbedder())
    return data_dir


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_running() as server:
        yield server


def replica(data_dir: Path, recorder: MemoryRecorder | None = None, **access: Any) -> TestClient:
    config = ServeConfig(data_dir=data_dir, access=AccessConfig(**access))
    return TestClient(create_app(DirectBackend(Engine(config), recorder or MemoryRecorder()), config))


def ask(client: TestClient, token: str = "") -> Any:
    return client.get("/search", params=QUESTION, headers={"X-API-Key": token} if token else {})


def test_a_key_is_told_its_limits_and_refused_beyond_them_with_retry_after(data_dir, keys_file):
    token, _ = create_key(keys_file, "ci", rate="2/hour", quota="10/day")
    recorder = MemoryRecorder()
    with replica(data_dir, recorder, keys_file=keys_file) as client:
        first, second, third = (ask(client, token) for _ in range(3))
        assert [answer.status_code for answer in (first, second, third)] == [200, 200, 429]
        for answer, rate_left, quota_left in ((first, 1, 9), (second, 0, 8), (third, 0, 8)):
            assert answer.headers["RateLimit-Policy"] == '"rate";q=2;w=3600, "quota";q=10;w=86400'
            told = rf'"rate";r={rate_left};t=\d+, "quota";r={quota_left};t=\d+'
            assert re.fullmatch(told, answer.headers["RateLimit"])
        error = third.json()["error"]
        assert (error["type"], "more than 2/hour with this key" in error["message"]) == ("rate_limited", True)
        assert 1 <= int(third.headers["Retry-After"]) <= 3600
        assert client.get("/healthz").status_code == 200
    assert recorder.values("raydex_refused_requests", reason="rate_limited") == [1]


def test_limits_are_each_key_s_own_and_come_from_the_settings_when_it_has_none(data_dir, keys_file):
    mine, yours = create_key(keys_file, "mine")[0], create_key(keys_file, "yours", rate="5/hour")[0]
    with replica(data_dir, keys_file=keys_file, default_rate="1/hour") as client:
        assert ask(client, mine).status_code == 200
        assert ask(client, mine).status_code == 429
        assert ask(client, yours).headers["RateLimit-Policy"] == '"rate";q=5;w=3600'
        assert ask(client, "wrong").status_code == 401


def test_without_limits_nothing_is_told(data_dir, keys_file):
    token, _ = create_key(keys_file, "ci")
    with replica(data_dir, keys_file=keys_file) as client:
        assert "RateLimit" not in ask(client, token).headers


def test_callers_without_a_key_share_one_limit(data_dir, keys_file):
    for is_open in (True, False):
        with replica(data_dir, keys_file=keys_file, default_quota="1/day", allow_anonymous=is_open) as client:
            assert [ask(client).status_code for _ in range(2)] == [200, 429]


def test_a_batch_counts_as_many_requests_as_it_has_queries(data_dir, keys_file):
    token, _ = create_key(keys_file, "ci", quota="5/day")
    with replica(data_dir, keys_file=keys_file) as client:
        headers = {"X-API-Key": token}
        answer = client.post("/search", json={"queries": ["a", "b", "c"]}, headers=headers)
        assert answer.headers["RateLimit"].startswith('"quota";r=2;')
        refused = client.post("/search", json={"queries": ["a", "b", "c"]}, headers=headers)
        assert refused.status_code == 429
        assert refused.headers["RateLimit"].startswith('"quota";r=0;')


@needs_redis
def test_replicas_count_together_in_redis(data_dir, keys_file, redis):
    token, _ = create_key(keys_file, "ci", rate="3/hour", quota="100/day")
    shared = {"keys_file": keys_file, "redis_url": redis.url}
    with replica(data_dir, **shared) as one, replica(data_dir, **shared) as other:
        statuses = [ask(client, token).status_code for client in (one, other, one, other, one)]
        assert statuses == [200, 200, 200, 429, 429]
        assert '"quota";r=97' in ask(other, token).headers["RateLimit"]


def test_without_redis_each_replica_counts_for_itself(data_dir, keys_file):
    token, _ = create_key(keys_file, "ci", rate="1/hour")
    with replica(data_dir, keys_file=keys_file) as one, replica(data_dir, keys_file=keys_file) as other:
        assert [ask(client, token).status_code for client in (one, other, one)] == [200, 200, 429]


@needs_redis
@pytest.mark.parametrize("trouble", ["stopped", "frozen"])
def test_while_redis_does_not_answer_each_replica_counts_alone_says_so_and_comes_back(
    data_dir, keys_file, redis, trouble, monkeypatch, caplog
):
    token, _ = create_key(keys_file, "ci", rate="3/hour")
    recorder = MemoryRecorder()
    with replica(data_dir, recorder, keys_file=keys_file, redis_url=redis.url) as client:
        assert ask(client, token).headers["RateLimit"].startswith('"rate";r=2')
        redis.stop() if trouble == "stopped" else redis.freeze()
        with caplog.at_level(logging.WARNING):
            statuses = [ask(client, token).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert recorder.values("raydex_limiter_failures") == [1]
        assert "Redis does not answer" in caplog.text
        assert PASSWORD not in caplog.text
        redis.stop()
        redis.start()
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + REDIS_AGAIN_S)
        assert ask(client, token).headers["RateLimit"].startswith('"rate";r=2')


@pytest.mark.parametrize("url", [f"http://:{PASSWORD}@here", f":{PASSWORD}@here:6379", f"redis::{PASSWORD}@here:6379"])
def test_a_wrong_redis_url_is_told_before_anything_starts_and_not_repeated(data_dir, capsys, monkeypatch, url):
    monkeypatch.setenv("RAYDEX_ACCESS__REDIS_URL", url)
    assert serve_index.main(["--data-dir", str(data_dir)]) == 2
    told = capsys.readouterr().err
    assert "redis_url: not a URL such as redis://" in told
    assert PASSWORD not in told
