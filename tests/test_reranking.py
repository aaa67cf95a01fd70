"""The second look at the best hits: order, pages, budget, fall-through; with fakes, in process and over the routes."""

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from raydex.config import ServeConfig
from raydex.embed import HashEmbedder, OverlapReranker
from raydex.embed.batching import Scores
from raydex.errors import EmbedError
from raydex.records import Chunk, Found, Hit, Query, StageTimes
from raydex.search import RerankStage
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from tests.cross_encoders import tiny_cross_encoder
from tests.snapshots import make_snapshot

NUMBERS = (3, 9, 1, 7, 5, 8)
"""What Numbered gives to the passages, in the order of their ranks."""


class Numbered:
    """A fake whose score is the number that a passage consists of. slow: seconds on the clock for each passage."""

    name = "numbered"

    def __init__(self, clock: "Clock | None" = None, slow: float = 0.0, fails_at: str = "") -> None:
        self.clock, self.slow, self.fails_at = clock, slow, fails_at
        self.seen: list[str] = []

    def score(self, query: str, passages: Sequence[str]) -> Scores:
        self.seen += passages
        if self.clock:
            self.clock.now += self.slow * len(passages)
        if self.fails_at in passages:
            raise EmbedError("the model failed: out of memory")
        return np.array([float(text.split()[-1]) for text in passages], np.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def hit(rank: int, number: float, *, symbol: float = 0.0) -> Hit:
    text = f"{number:g}"
    chunk = Chunk(
        chunk_id=f"c{rank}",
        section_id=f"s{rank}",
        page_id="p",
        url=f"https://docs.example.org/#{rank}",
        title="",
        headings=(),
        context="",
        text=text,
        char_start=0,
        char_end=len(text),
        token_count=1,
    )
    explanation = {"dense": 1 / rank} | ({"symbol": symbol} if symbol else {})
    return Hit(
        rank=rank, score=1 / rank, index="docs", chunk=chunk, scores={"dense": 1 / rank}, explanation=explanation
    )


HITS = tuple(hit(rank, number) for rank, number in enumerate(NUMBERS, start=1))


def stage_of(reranker: Any, **settings: Any) -> RerankStage:
    return RerankStage(reranker, **{"candidates": 4, "budget_s": 60.0, **settings})


def answered(stage: RerankStage, hits: Sequence[Hit] = HITS, **options: Any) -> Found:
    """Do what the engine does: search as widened() says, then apply()."""
    query = Query(text="which", **options)
    wanted = stage.widened(query)
    cut = tuple(hits[wanted.offset :][: wanted.k])
    return stage.apply(query, Found(hits=cut), times=StageTimes())


def numbers(found: Found) -> list[int]:
    return [int(hit.chunk.text) for hit in found.hits]


def test_the_candidates_are_ordered_by_the_model_and_the_rest_follows_as_before():
    found = answered(stage_of(Numbered()), k=6)
    assert numbers(found) == [9, 7, 3, 1, 5, 8]
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5, 6]
    assert [hit.scores.get("rerank") for hit in found.hits] == [9, 7, 3, 1, None, None]
    assert [hit.scores["dense"] for hit in found.hits] == [hit.score for hit in found.hits]
    assert (found.message, found.fell_through) == ("", "")


def test_equal_scores_keep_the_order_they_had():
    hits = [hit(rank, 5) for rank in (1, 2, 3)]
    assert [one.chunk.chunk_id for one in answered(stage_of(Numbered()), hits).hits] == ["c1", "c2", "c3"]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_pages_follow_each_other_without_gap_or_repetition_across_the_last_candidate(k):
    stage = stage_of(Numbered())
    whole = answered(stage, k=6).hits
    pages = [one for offset in range(0, 6, k) for one in answered(stage, k=k, offset=offset).hits]
    assert [one.chunk.chunk_id for one in pages] == [one.chunk.chunk_id for one in whole]
    assert [one.rank for one in pages] == [1, 2, 3, 4, 5, 6]


def test_a_page_beyond_the_candidates_asks_the_model_nothing():
    reranker = Numbered()
    assert numbers(answered(stage_of(reranker), k=2, offset=4)) == [5, 8]
    assert reranker.seen == []


def test_only_explain_shows_where_a_hit_stood_and_what_it_got():
    plain, explained = answered(stage_of(Numbered())).hits[0], answered(stage_of(Numbered()), explain=True).hits[0]
    assert plain.explanation == {}
    assert explained.explanation == {"dense": 0.5, "rerank": 9, "rank_before": 2}


def test_a_definition_of_what_was_typed_stays_on_top():
    hits = [hit(1, 1, symbol=1.0), hit(2, 2, symbol=0.9), hit(3, 3, symbol=0.3), hit(4, 4)]
    assert numbers(answered(stage_of(Numbered()), hits)) == [1, 2, 4, 3]
    assert stage_of(Numbered()).widened(Query(text="os.path.join")).explain  # it tells which are definitions


def test_what_is_not_scored_in_time_keeps_its_order_behind_what_is():
    clock = Clock()
    reranker = Numbered(clock, slow=0.2)
    found = answered(stage_of(reranker, budget_s=0.5, clock=clock), k=6)
    assert reranker.seen == ["3", "9"]  # a third would end after the budget
    assert numbers(found) == [9, 3, 1, 7, 5, 8]
    assert (found.message, found.fell_through) == ("reranked within its time: 2 of 4 passages", "budget")


def test_no_more_than_half_of_what_the_caller_has_left_is_taken():
    clock = Clock()
    reranker = Numbered(clock, slow=0.2)
    stage = stage_of(reranker, clock=clock)
    stage.apply(Query(text="which"), Found(hits=HITS), times=StageTimes(), within_s=0.8)
    assert reranker.seen == ["3", "9"]
    assert numbers(stage.apply(Query(text="which"), Found(hits=HITS), times=StageTimes(), within_s=-1.0)) == [*NUMBERS]


def test_a_model_that_is_busy_for_longer_than_the_budget_leaves_the_order_alone():
    busy, free = threading.Event(), threading.Event()

    class Busy(Numbered):
        def score(self, query: str, passages: Sequence[str]) -> Scores:
            busy.set()
            free.wait(30)
            return super().score(query, passages)

    stage = stage_of(Busy(), budget_s=0.01)
    first = threading.Thread(target=answered, args=(stage,))
    first.start()
    busy.wait(30)
    found = answered(stage)
    free.set()
    first.join()
    assert (numbers(found), found.fell_through) == ([*NUMBERS], "budget")


def test_a_model_that_fails_midway_leaves_the_order_alone_and_the_next_query_its_turn(caplog):
    stage = stage_of(Numbered(fails_at="1"))
    for _ in range(2):
        found = answered(stage, k=6)
        assert numbers(found) == [*NUMBERS]
        assert (found.message, found.fell_through) == ("not reranked: the model failed", "failure")
        assert all("rerank" not in one.scores for one in found.hits)
    assert "out of memory" in caplog.text


READING = "open a file and read it"
TEXTS = {
    "https://docs.example.org/io.html#much": "open open open file file read read it it and and a a",
    "https://docs.example.org/io.html#loop": "open a file in a loop and read a file in a loop",
    "https://docs.example.org/io.html#all": "Here is how to open a large packed file from a disk and read all of it.",
    "https://docs.example.org/dates.html#parse": "parse a date",
    "https://docs.example.org/dates.html#zones": "zones shift a date",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", TEXTS, HashEmbedder())
    make_snapshot(data_dir / "other", {f"{url}-2": f"{text} too" for url, text in TEXTS.items()}, HashEmbedder())
    return data_dir


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


def client_of(data_dir: Path, recorder: MemoryRecorder, **settings: Any) -> TestClient:
    config = ServeConfig(data_dir=data_dir, **{"rerank_budget_ms": 60_000, **settings})
    return TestClient(create_app(DirectBackend(Engine(config), recorder), config))


@pytest.fixture
def client(data_dir: Path, recorder: MemoryRecorder) -> Iterator[TestClient]:
    with client_of(data_dir, recorder, rerank_model="overlap") as client:
        yield client


def asked(client: TestClient, query: str = READING, **options: Any) -> Any:
    response = client.get("/search", params={"query": query, **options})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_service_with_a_model_reranks_and_a_request_may_decline(client, recorder):
    answer = asked(client, explain=True)
    scores = [result["scores"]["rerank"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    assert [result["rank"] for result in answer["results"]] == list(range(1, len(scores) + 1))
    assert answer["results"][0]["explanation"]["rank_before"] >= 1
    assert answer["timings_s"]["rerank"] >= 0
    assert len(recorder.values("raydex_search_stage_seconds", stage="rerank")) == 1
    declined = asked(client, rerank=False)
    assert "rerank" not in declined["timings_s"]
    assert all("rerank" not in result["scores"] for result in declined["results"])
    before = [result["score"] for result in declined["results"]]
    assert before == sorted(before, reverse=True)


@pytest.mark.parametrize("options", [{}, {"index": "docs"}, {"group_by": "page"}, {"group_by": "none"}])
def test_pages_of_a_reranked_answer_follow_each_other(data_dir, recorder, options):
    with client_of(data_dir, recorder, rerank_model="overlap", rerank_candidates=3) as client:
        whole = asked(client, k=20, **options)["results"]
        pages = [asked(client, k=2, offset=offset, **options)["results"] for offset in range(0, len(whole) + 1, 2)]
    assert [result for page in pages for result in page] == whole
    assert ["rerank" in result["scores"] for result in whole] == [n < 3 for n in range(len(whole))]


def test_a_batch_reranks_each_query_as_if_it_were_asked_alone(client):
    queries = [READING, "zones shift a date"]
    batch = client.post("/search", json={"queries": queries, "k": 3}).json()
    for query, answer in zip(queries, batch["answers"], strict=True):
        assert answer["results"] == asked(client, query, k=3)["results"]


def test_a_service_without_a_model_says_so_to_who_asks_for_it_alone(data_dir, recorder):
    with client_of(data_dir, recorder) as client:
        plain, told = asked(client), asked(client, rerank=True)
    assert plain["message"] == ""
    assert told["message"] == "not reranked: this service has no reranking model"
    assert told["results"] == plain["results"]
    assert recorder.values("raydex_rerank_fall_through", reason="no_model") == [1]


def test_a_model_that_cannot_be_loaded_is_named_in_the_log_and_missed_in_every_answer(
    data_dir, recorder, caplog, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING), client_of(data_dir, recorder, rerank_model="nobody/nothing") as client:
        assert client.get("/readyz").status_code == 200
        answer = asked(client)
        assert asked(client, rerank=False)["message"] == ""
    assert "'nobody/nothing': there is no such folder" in caplog.text
    assert answer["message"] == "not reranked: the reranking model could not be loaded"
    assert len(answer["results"]) > 1
    assert recorder.values("raydex_rerank_fall_through", reason="no_model") == [1]


def test_a_model_that_fails_is_counted_and_answered_without(client, recorder, monkeypatch):
    expected = asked(client, rerank=False)["results"]

    def fail(*_: Any) -> Scores:
        raise EmbedError("the model failed")

    monkeypatch.setattr(OverlapReranker, "score", fail)
    answer = asked(client)
    assert (answer["results"], answer["message"]) == (expected, "not reranked: the model failed")
    assert recorder.values("raydex_rerank_fall_through", reason="failure") == [1]


def test_readiness_is_probed_without_the_model(client, monkeypatch):
    monkeypatch.setattr(OverlapReranker, "score", None)
    assert client.get("/readyz").status_code == 200


def test_a_cross_encoder_on_disk_reranks_a_service(data_dir, recorder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYDEX_MODEL_CACHE", str(tmp_path / "models"))
    folder = tiny_cross_encoder(tmp_path / "model")
    with client_of(data_dir, recorder, rerank_model=str(folder)) as client:
        answer = asked(client)
    scores = [result["scores"]["rerank"] for result in answer["results"]]
    assert answer["message"] == ""
    assert all(better >= worse for better, worse in pairwise(scores))
    assert len(set(scores)) > 1
