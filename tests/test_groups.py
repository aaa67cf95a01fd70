"""What a process of a shard group has open, and for how long; how many groups there are. No Ray."""

import asyncio
import weakref
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.testclient import TestClient

from raydex.config import LimitsConfig, ScalingConfig, ServeConfig, ServeTelemetryConfig
from raydex.embed import HashEmbedder
from raydex.errors import SnapshotNotFound
from raydex.records import Query, StageTimes
from raydex.search import Scattered, SnapshotKey, groups_needed, megabytes, split
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.groups import ShardGroup, group_count
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from raydex.serve.swapping import Council, Follower
from raydex.snapshot import current_id, publish, read_manifest
from tests.serving import TEXTS, assert_failure
from tests.snapshots import make_snapshot

LASTS_S = 2


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Here:
    """The groups of a service, in this process."""

    def __init__(self, groups):
        self.groups, self.lost = groups, set()

    def ask(self, key, method, arguments, within_s):
        asked = {number: of for number, of in arguments.items() if number not in self.lost}
        return {number: self.groups[number].answer(key, method, of) for number, of in asked.items()}

    def reached(self, key):
        return frozenset(number for number, group in enumerate(self.groups) if key in group.keys)


def make(index_dir, ending="", *, hours_ago=1, published=True, shards=4):
    texts = {url: text + ending for url, text in TEXTS.items()}
    now = datetime.now(UTC) - timedelta(hours=hours_ago)
    return make_snapshot(index_dir, texts, HashEmbedder(), shards=shards, now=now, published=published).snapshot_id


@pytest.fixture
def config(tmp_path):
    make(tmp_path / "docs")
    return ServeConfig(data_dir=tmp_path, swap_check_s=0.05, limits=LimitsConfig(max_timeout_ms=1000 * LASTS_S))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def groups(config, clock):
    return [ShardGroup(config, number, 2, clock=clock) for number in range(2)]


def answers(group, key):
    return len(group.answer(key, "chunks", ([0],))) == 1


def test_an_engine_over_groups_answers_as_one_that_has_all_and_knows_how_many_shards_it_reaches(config, groups):
    engine, whole = Engine(config, groups=Here(groups), group_count=2), Engine(config)
    queries = [Query(text="read a file line by line", k=3), Query(text='"time zones"', facets=True)]

    def found(engine):
        vectors = engine.embed(engine.select()[0].model_id, [query.text for query in queries])
        return engine.find(engine.select(), queries, vectors, times=StageTimes())

    assert found(engine) == found(whole)
    holdings = engine.indexes["docs"].searcher.holdings
    assert isinstance(holdings, Scattered)
    assert (holdings.shards_ok, holdings.shards) == (4, 4)
    groups[0].drop("docs")
    groups[0].release({})
    assert holdings.shards_ok == 4  # a request may still need it
    groups.pop()
    assert holdings.shards_ok == holdings.shard_counts[0]


def test_a_replaced_snapshot_is_answered_for_while_a_replica_serves_it_and_as_long_as_its_last_request_may_last(
    config, groups, clock
):
    group, old = groups[0], current_id(config.folder / "docs")
    new = make(config.folder / "docs", " Anew.", hours_ago=0)
    prepared = group.prepare("docs", new)
    assert answers(group, SnapshotKey("docs", new))  # a replica may commit before the group does
    group.commit({"docs": prepared})
    clock.now = 100
    group.release({"docs": {old, new}})
    clock.now += LASTS_S
    group.release({"docs": {new}})
    assert answers(group, SnapshotKey("docs", old))
    clock.now += 1
    group.release({"docs": {new}})
    with pytest.raises(SnapshotNotFound):
        group.answer(SnapshotKey("docs", old), "chunks", ([0],))
    assert group.keys == [SnapshotKey("docs", new)]


def test_a_snapshot_that_was_prepared_and_then_refused_closes(config, groups):
    new = make(config.folder / "docs", " Anew.", hours_ago=0, published=False)
    prepared = weakref.ref(groups[0].prepare("docs", new))
    assert prepared() is None
    assert groups[0].keys == [SnapshotKey("docs", current_id(config.folder / "docs"))]


def test_only_what_a_replica_asks_can_be_called(groups, config):
    key = SnapshotKey("docs", current_id(config.folder / "docs"))
    with pytest.raises(ValueError, match="none of chunks, look, section"):
        groups[0].answer(key, "__init__", ())


def test_replica_and_groups_swap_together_and_no_answer_is_partial(config):
    """One council, one replica and two groups, each with a follower, in one event loop."""
    index_dir = config.folder / "docs"
    first, second = current_id(index_dir), make(index_dir, " Anew.", hours_ago=0, published=False)

    async def serve():
        council = Council(config)
        groups = [ShardGroup(config, number, 2) for number in range(2)]
        engine = Engine(config, groups=Here(groups), group_count=2)
        tasks = [asyncio.create_task(Follower(group, council, MemoryRecorder()).run()) for group in groups]
        tasks.append(asyncio.create_task(Follower(engine, council, MemoryRecorder()).run()))
        seen = set()
        try:
            async with asyncio.timeout(60):
                for target in (second, first, second):
                    publish(index_dir, target)
                    while (index := engine.select()[0]).manifest.snapshot_id != target:
                        vectors = engine.embed(index.model_id, ["read a file"])
                        query = Query(text="read a file", k=3)
                        found = (await asyncio.to_thread(engine.find, [index], [query], vectors, times=StageTimes()))[0]
                        assert not found.is_partial
                        assert {hit.chunk.text.endswith(" Anew.") for hit in found.hits} == {
                            index.manifest.snapshot_id == second
                        }
                        seen.add(index.manifest.snapshot_id)
        finally:
            for task in tasks:
                task.cancel()
        return seen

    assert asyncio.run(serve()) == {first, second}


def test_a_partial_answer_says_so_is_counted_and_traced_and_is_not_kept(config, groups):
    here, recorder, exporter = Here(groups), MemoryRecorder(), InMemorySpanExporter()
    config = config.model_copy(update={"telemetry": ServeTelemetryConfig(trace_share=0.0)})
    backend = DirectBackend(Engine(config, groups=here, group_count=2), recorder)
    with TestClient(create_app(backend, config, spans=exporter)) as client:
        here.lost = {1}
        answers = [client.get("/search", params={"query": "read a file", "k": 20}).json()]
        batch = client.post("/search", json={"queries": ["read a file"]}).json()
        here.lost = {0, 1}
        refused = client.get("/search", params={"query": "read a file", "k": 19})
        here.lost = set()
        answers += [client.get("/search", params={"query": "read a file", "k": 20}).json() for _ in range(2)]
    sizes = [len(part) for part in split(read_manifest(config.folder / "docs", current_id(config.folder / "docs")), 2)]
    assert [answer["shards_ok"] for answer in answers] == [f"{sizes[0]}/4", "4/4", "4/4"]
    assert batch["answers"][0]["shards_ok"] == f"{sizes[0]}/4"
    assert answers[0]["message"] == f"{sizes[0]} of 4 shards were searched, the others cannot be reached"
    assert "scan" not in answers[1]["timings_s"]
    assert answers[1]["timings_s"]["groups"] > 0
    assert answers[2]["timings_s"].keys() == {"total"}
    assert recorder.values("raydex_partial_answers") == [1, 1]
    assert_failure(refused, 503, "shards_lost", says="0 of 4 shards")
    assert refused.headers["Retry-After"]
    roots = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert [(root.attributes or {}).get("raydex.partial", False) for root in roots] == [True, True, False]


def test_there_are_as_many_groups_as_the_live_snapshots_need_and_none_without_a_limit(tmp_path):
    make(tmp_path / "docs", shards=4)
    make(tmp_path / "more", shards=3)
    manifests = [read_manifest(tmp_path / name, current_id(tmp_path / name)) for name in ("docs", "more")]
    whole = sum(megabytes(manifest.shards) for manifest in manifests)
    assert groups_needed(manifests, whole) == 1
    assert 2 <= groups_needed(manifests, 0.6 * whole) <= 3
    assert groups_needed(manifests, 0) == 4
    assert groups_needed([], 1) == 1

    def count(limit):
        return group_count(ServeConfig(data_dir=tmp_path, scaling=ScalingConfig(group_memory_mb=limit)))

    assert count(0) == 1
    assert count(whole) == 1
    assert count(0.6 * whole) == groups_needed(manifests, 0.6 * whole)


def test_a_group_that_has_more_than_it_may_says_so(config, caplog):
    ShardGroup(config.model_copy(update={"scaling": ScalingConfig(group_memory_mb=0.0001)}), 0, 2)
    assert "shard group above its memory" in caplog.text


def test_an_index_that_is_not_published_counts_for_nothing(tmp_path):
    config = ServeConfig(data_dir=tmp_path, index=("none",), scaling=ScalingConfig(group_memory_mb=1))
    assert group_count(config) == 1
